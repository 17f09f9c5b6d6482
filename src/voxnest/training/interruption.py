"""Ctrl-C and SIGTERM while a run trains, and processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from voxnest.files import discard_unfinished

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 0.7
"""Seconds that the start of a run has to leave its work in order."""
_LOOK = 0.3  # seconds between looks at whether the parent lives
_PARENT = "VOXNEST_PARENT"


class TrainingInterruptedError(Exception):
    """Training was stopped by Ctrl-C or SIGTERM, and can be continued.

    Args:
        step: the last step that is in the checkpoint; None if there is no checkpoint yet.
        status: the exit status a shell expects.
    """

    def __init__(self, step: int | None, status: int) -> None:
        super().__init__(f"interrupted after step {step}")
        self.step, self.status = step, status


class StoppedAtOnce(KeyboardInterrupt):
    """A signal arrived where nothing is half done: what was trained so far can be saved."""


class StopSignals:
    """Notes Ctrl-C and SIGTERM; a step ends before they count, a wait does not.

    Until `training` is set nothing can be lost, and a signal raises `StoppedAtOnce` anywhere. From then on it is only
    noted in `received`, but for the places that `at_once` marks. A second Ctrl-C raises `KeyboardInterrupt` anywhere.

    Attributes:
        received: the first signal; 0 if none.
        training: steps are trained; else the run still starts.
        end_others: ends the processes that were started, before this one is ended hard.
    """

    end_others: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.received = 0
        self.training = False
        self._at_once = False

    @contextmanager
    def taken_over(self, end_process: bool = False) -> Iterator[None]:
        """Handle the signals inside the block; in a thread other than the main one, do nothing.

        Args:
            end_process: a start that does not stop in `GRACE` seconds, being in a library, say, is ended hard.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # Handlers in Python wait for the main thread, which may be in a library. This is told at once.
        listen, tell = socket.socketpair()
        tell.setblocking(False)
        wakeup = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        if end_process:
            threading.Thread(target=self._end_late, args=(listen,), daemon=True).start()
        self.install()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            tell.close()  # ends the thread

    def install(self) -> None:
        """Set the handlers, again where another library has set its own."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self._on_signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A place where a signal raises `StoppedAtOnce`, one that has come before too."""
        self._at_once = True
        try:
            if self.received:
                raise StoppedAtOnce
            yield
        finally:
            self._at_once = False

    def __deepcopy__(self, memo: object) -> StopSignals:
        return self  # a module that is copied stays in the same process

    def _on_signal(self, number: int, frame: object) -> None:
        again, self.received = self.received, self.received or number
        if self._at_once or not self.training:
            raise StoppedAtOnce
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt

    def _end_late(self, listen: socket.socket) -> None:
        while number := listen.recv(1):
            if number[0] not in SIGNALS or self.training:
                continue
            time.sleep(GRACE)
            if not self.training:
                if self.end_others:
                    self.end_others()
                leave(128 + number[0], "interrupted: the same command continues.")
        listen.close()


def leave(status: int, message: str = "") -> NoReturn:
    """End the process at once: threads that read or compute are not waited for, what is half written is removed."""
    if message and os.environ.get("LOCAL_RANK", "0") == "0":
        print(message, file=sys.stderr)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        discard_unfinished()
        for worker in multiprocessing.active_children():
            worker.kill()
    finally:
        os._exit(status)


def end_with_parent() -> None:
    """In a process that Lightning started: end when the one that started it ends, however that ends."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        os.environ[_PARENT] = str(os.getpid())  # which those that are started inherit
    elif (parent := int(os.environ.get(_PARENT, 0))) and os.getppid() in (parent, 1):  # 1: it has ended already
        _watch(parent)


class WorkerStart:
    """What a process that reads data does first: leave signals to its parent, and end with it."""

    def __init__(self) -> None:
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        """See `torch.utils.data.DataLoader`."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "sigtimedwait"):  # which tells whether it is the parent that wants it to end
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        sys.excepthook = self._tell
        _watch(self.parent, hasattr(signal, "sigtimedwait"))

    def _tell(self, *error: Any) -> None:
        time.sleep(_LOOK)
        if os.getppid() == self.parent:  # else it is about the pipe to a process that is no more
            sys.__excepthook__(*error)


def _watch(parent: int, hear: bool = False) -> None:
    def look() -> None:
        while os.getppid() == parent:
            if not hear:
                time.sleep(_LOOK)
            elif (came := signal.sigtimedwait([signal.SIGTERM], _LOOK)) and came.si_pid == parent:
                break
        os._exit(1)

    threading.Thread(target=look, daemon=True).start()
