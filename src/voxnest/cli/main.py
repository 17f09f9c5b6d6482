"""What the command `voxnest` starts: every way that it can end is one line and a documented exit status.

| status | meaning |
| --- | --- |
| 0 | done; `verify`: the same speaker |
| 1 | the answer is no: `verify`: different speakers; `models check`: an unexplained count |
| 2 | an error of any kind, in every command: nothing of ours exits 1 by accident |
| 130, 143 | interrupted by Ctrl-C, by SIGTERM |

Nothing is imported here that takes time, so that Ctrl-C is heard from the start.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from voxnest.errors import VoxnestError
from voxnest.files import cache_folder, discard_unfinished

GRACE = 0.5
"""Seconds between Ctrl-C and the end of a process that is too busy to end by itself, in a library, say."""

_signals: list[int] = []


def main() -> None:
    """Run the command line, and exit."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _on_signal)
    _leave(run(_app))


def run(app: Callable[[], object]) -> int:
    """Call `app`, tell on stderr in one line what went wrong, and give the exit status."""
    try:
        status = app()
        if _signals:  # that a library took for the end of its work
            return _interrupted()
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except VoxnestError as error:
        return _tell(str(error))
    except BaseException as error:  # whatever it is, status 1 would be an answer
        if _signals:
            return _interrupted()
        if isinstance(error, KeyboardInterrupt):
            return _interrupted(signal.SIGINT)
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python tells of it once more at its end
            return _tell(f"{error.filename or 'standard output'}: {error.strerror}")
        if isinstance(error, OSError) and error.strerror is not None:
            return _tell(f"{error.filename or 'voxnest'}: {error.strerror}")
        if type(error).__name__ == "NoArgsIsHelpError":  # how newer clicks show the help
            print(error.format_message())  # type: ignore[attr-defined]
            return 0
        if hasattr(error, "format_message"):  # of click, of which typer may have its own copy
            return _tell(_usage(error))
        if isinstance(error, SystemExit) and not error.code:
            return 0
        return _tell(f"{_crash(error)} (the traceback is in {_log(error)})")


def _leave(status: int) -> NoReturn:
    """Exit as Python does, but do not take modules and libraries apart: that takes 0.1 s, with torch more."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, and ends those of pools
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it; `run` has told so if that matters
            stream.flush()
    os._exit(status)


def _app() -> object:
    from voxnest.cli.app import app

    return app(standalone_mode=False)


def _tell(line: str) -> int:
    text = " ".join(line.split())
    colour = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    print(("\033[1;31merror:\033[0m " if colour else "error: ") + text, file=sys.stderr)
    return 2


def _usage(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "voxnest"
    message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
    return f"{command}: {message[:1].lower()}{message[1:]} (see {command} --help)"


def _crash(error: BaseException) -> str:
    memory = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(word in str(error).lower() for word in memory):
        return "voxnest: out of memory"
    reason = str(error).strip().splitlines()[:1] or [""]
    return f"voxnest: failed with {type(error).__name__}" + (f": {reason[0][:200]}" if reason[0] else "")


def _log(error: BaseException) -> str:
    """Write the traceback to a file; give its name."""
    import tempfile
    import traceback
    from platform import python_version

    from voxnest import __version__

    text = f"voxnest {__version__}, Python {python_version()}\n{sys.argv}\n" + "".join(
        traceback.format_exception(error)
    )
    name = f"voxnest-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    for folder in (cache_folder() / "logs", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError:
            continue
        return str(folder / name)
    return "no file, for none can be written"


def _on_signal(number: int, frame: object) -> None:
    """Let the main thread leave its work in order, but not take its time."""
    if not _signals:
        threading.Thread(target=_end_soon, args=(number,), daemon=True).start()
    _signals.append(number)
    raise KeyboardInterrupt


def _end_soon(number: int) -> None:
    time.sleep(GRACE)
    if signal.getsignal(number) is _on_signal:  # else somebody took over, who ends in order
        _end(number)


def _interrupted(number: int = 0) -> NoReturn:
    _end(number or _signals[0])


def _end(number: int) -> NoReturn:
    """End at once: threads that compute or decode are not waited for."""
    discard_unfinished()
    if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes of a training, one tells
        print("interrupted", file=sys.stderr, flush=True)
    os._exit(128 + number)
