"""Recordings through an embedder: the decoding of some under the network's work on others, in order, in little memory.

A recording is a coroutine. It reads, yields a waveform, is sent its embedding, reads on. So what is read and what comes
of it is told in one place, and here in one place who computes when. This file needs no torch.

On a CPU each thread takes a recording through by itself: threads within one operation wait for each other more than
they work. Where many at once are faster (a GPU), the threads decode, and waveforms of one length are embedded together.
Those of other lengths are not padded to be together: a network takes its statistics (mean of the features, level, the
pooling's, squeeze-excitation's, attention) over all frames it is given, at every edge it sees zeros, and strides round
up. A mask would have to be right in each layer of each family; a group of one length is right in all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from voxnest.models.embedder import Embedder

Result = TypeVar("Result")
Recording = Generator[np.ndarray, np.ndarray, Result]
"""Yields waveforms `[samples]` float32, is sent the embedding `[embedding_dim]` of each, and returns what it found."""

SECONDS_AT_ONCE = 256.0
"""The most sound embedded at once, in seconds: the network's memory grows with it. 64 recordings of 4 s."""

_AHEAD = 16  # recordings for each thread, or place in a batch, that may be under way or done before the oldest
_SECONDS_WAITING = 1200.0  # of decoded sound that waits for others of its length: 77 MB at 16 kHz
_TICK = 0.2  # seconds between two looks at what the threads have done


def embed_alone(embedder: Embedder, recording: Recording[Result], go_on: Callable[[], bool] = lambda: True) -> Result:
    """Take one recording through; the embedder is ready.

    Args:
        embedder: what embeds it.
        recording: a coroutine that was not begun.
        go_on: asked before each embedding.

    Raises:
        Stopped: not to go on.
    """
    try:
        waveform = next(recording)
        while go_on():
            waveform = recording.send(embedder.embed(waveform[None])[0])
        raise Stopped
    except StopIteration as end:
        return end.value
    finally:
        recording.close()


class Stopped(Exception):
    """A recording was given up, because of another or of Ctrl-C."""


@contextmanager
def workers(embedder: Embedder, number: int | None = None) -> Iterator[Workers]:
    """Threads for an embedder, which is ready until they have ended.

    An error lets the threads finish the waveforms that they are at; Ctrl-C does not wait for that.

    Args:
        embedder: what embeds.
        number: of threads; as many as the embedder asks for if None.
    """
    modes = ExitStack()
    threads = modes.enter_context(embedder.ready())
    number = number or threads.number
    pool = ThreadPoolExecutor(number, "embed", initializer=threads.start)
    team = Workers(embedder, pool, number)

    def finish() -> None:
        pool.shutdown(cancel_futures=True)
        modes.close()

    try:
        # All threads begin before there is work: interrupted while it starts one, the pool would not know of it, and
        # `finish` would not wait for it.
        begun = threading.Barrier(number)
        wait([pool.submit(begun.wait, 10) for _ in range(number)])
        yield team
    except Exception:
        team.stopped.set()
        finish()
        raise
    except BaseException:  # Ctrl-C, or a generator closed: none waits for the threads, but the modes have to
        team.stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        threading.Thread(target=finish, name="embed-finish").start()
        raise
    finish()


class Workers:
    """See `workers`."""

    def __init__(self, embedder: Embedder, pool: ThreadPoolExecutor, number: int) -> None:
        self.embedder, self.number = embedder, number
        self.stopped = threading.Event()
        self._pool = pool

    def embed(
        self, recordings: Iterable[Recording[Result]], batch: int = 1, tick: Callable[[], object] = lambda: None
    ) -> Iterator[Future[Result]]:
        """What becomes of each recording, in their order: a future that is done.

        Args:
            recordings: coroutines that were not begun. As many are taken as are needed ahead.
            batch: how many waveforms of one length are embedded at once, less if they are long (`SECONDS_AT_ONCE`).
            tick: called often while there is nothing to give.
        """
        return self._each(recordings, tick) if batch == 1 else self._in_groups(recordings, batch, tick)

    def _each(self, recordings: Iterable[Recording[Result]], tick: Callable[[], object]) -> Iterator[Future[Result]]:
        pending: deque[Future[Result]] = deque()
        for recording in recordings:
            pending.append(self._pool.submit(embed_alone, self.embedder, recording, self._goes_on))
            if len(pending) > _AHEAD * self.number:  # hundreds of thousands of futures would be memory too
                yield _awaited(pending.popleft(), tick)
        while pending:
            yield _awaited(pending.popleft(), tick)

    def _goes_on(self) -> bool:
        return not self.stopped.is_set()

    def _in_groups(
        self, recordings: Iterable[Recording[Result]], batch: int, tick: Callable[[], object]
    ) -> Iterator[Future[Result]]:
        """What is done when depends on the recordings alone, not on the threads: so embeddings are always the same."""
        coming = iter(recordings)
        flights: deque[_Flight[Result]] = deque()  # all under way, in order
        decoding: deque[_Flight[Result]] = deque()
        waiting = _Waiting[Result](batch, self.embedder.sample_rate)
        while True:
            while len(decoding) < 2 * self.number and len(flights) < _AHEAD * batch:
                if (recording := next(coming, None)) is None:
                    break
                flights.append(_Flight(recording, Future(), self._pool.submit(_step, recording)))
                decoding.append(flights[-1])
            if not flights:
                return
            group: list[_Flight[Result]] = []
            if not decoding or waiting.are_many:
                group = waiting.take_oldest()
            else:
                flight = decoding.popleft()
                try:
                    step = _awaited(flight.step, tick).result()
                except Exception as error:
                    flight.done.set_exception(error)
                else:
                    if isinstance(step, np.ndarray):
                        group = waiting.add(flight, step)
                    else:
                        flight.done.set_result(step.value)
            for flight, embedding in zip(group, self._embed_group(group), strict=True):
                if isinstance(embedding, Exception):
                    flight.recording.close()
                    flight.done.set_exception(embedding)
                else:
                    flight.step = self._pool.submit(_step, flight.recording, embedding)
                    decoding.append(flight)
            while flights and flights[0].done.done():
                yield flights.popleft().done

    def _embed_group(self, group: list[_Flight[Result]]) -> Iterable[np.ndarray | Exception]:
        """Their embeddings, or what is wrong with one alone."""
        if not group:
            return []
        try:
            return self.embedder.embed(np.stack([flight.waveform for flight in group]))
        except Exception as error:
            if len(group) == 1:
                return [error]
            return [found for flight in group for found in self._embed_group([flight])]


class _Flight(Generic[Result]):
    """A recording under way: `done` when it has ended, `step` when there is its next waveform."""

    waveform: np.ndarray

    def __init__(
        self, recording: Recording[Result], done: Future[Result], step: Future[np.ndarray | _End[Result]]
    ) -> None:
        self.recording, self.done, self.step = recording, done, step


class _End(NamedTuple, Generic[Result]):
    """What a recording returned."""

    value: Result


def _step(recording: Recording[Result], embedding: np.ndarray | None = None) -> np.ndarray | _End[Result]:
    try:
        return next(recording) if embedding is None else recording.send(embedding)
    except StopIteration as end:
        return _End(end.value)


class _Waiting(Generic[Result]):
    """Recordings that wait for others of their length."""

    def __init__(self, batch: int, sample_rate: int) -> None:
        self._batch, self._rate = batch, sample_rate
        self._groups: dict[int, list[_Flight[Result]]] = {}  # in the order in which they were begun
        self._count = self._samples = 0

    @property
    def are_many(self) -> bool:
        """So many that the oldest are to be embedded, while there is room for others to be decoded."""
        return self._count > _AHEAD * self._batch // 2 or self._samples > _SECONDS_WAITING * self._rate

    def add(self, flight: _Flight[Result], waveform: np.ndarray) -> list[_Flight[Result]]:
        """The group that is full with it, if one is."""
        flight.waveform, length = waveform, len(waveform)
        group = self._groups.setdefault(length, [])
        group.append(flight)
        self._count, self._samples = self._count + 1, self._samples + length
        most = min(self._batch, int(SECONDS_AT_ONCE * self._rate) // length)
        return self._take(length) if len(group) >= most else []

    def take_oldest(self) -> list[_Flight[Result]]:
        """The group that has waited longest."""
        return self._take(next(iter(self._groups)))

    def _take(self, length: int) -> list[_Flight[Result]]:
        group = self._groups.pop(length)
        self._count, self._samples = self._count - len(group), self._samples - length * len(group)
        return group


def _awaited(future: Future[Result], tick: Callable[[], object]) -> Future[Result]:
    while not wait([future], _TICK).done:
        tick()
    return future
