"""Embed whole recordings, each read once, with the decoding of some under the network's work on others."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from voxnest.audio import audio_info, read_audio
from voxnest.errors import AudioError, CheckpointError
from voxnest.inference.quality import QualityMeter
from voxnest.inference.recordings import recording_names
from voxnest.models.blame import blame_recording
from voxnest.models.encoding import MAX_DURATION, mean_embedding, parts

if TYPE_CHECKING:
    from voxnest.corpora.manifest import Utterance
    from voxnest.models.embedder import Embedder

Progress = Callable[[int, int], None]
"""Called with how many parts are done, and of how many: a recording is one, a long one several."""

_LONGEST_WITH_WINDOWS = 600.0  # seconds whose features are in memory at once
_TICK = 0.2  # seconds between two looks at what the threads have done


class Embeddings(dict[str, np.ndarray]):
    """`{path as given: [embedding_dim] float32}` in the order given.

    Attributes:
        failures: (path, reason) of each recording that was skipped.
        warnings: (path, what is wrong) of each that was embedded and is not to be relied on; see
            `voxnest.inference.quality`.
        silent: paths of recordings that hold nothing but silence; they are among the `warnings` too.
        seconds: the length of each recording that was embedded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.silent: list[str] = []
        self.seconds: dict[str, float] = {}


def embed_files(
    encoder: Embedder,
    paths: str | Path | Iterable[str | Path],
    *,
    root: str | Path | None = None,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_duration: float = MAX_DURATION,
    window: float | None = None,
) -> Embeddings:
    """Embed whole recordings at full size, each read once.

    Every recording goes through the network alone, at its own length, so its embedding does not depend on the
    others. On a CPU as many are under way as the encoder has threads (at most 8), each in one thread: recordings
    seldom have equal lengths to be batched by, and threads within one operation wait for each other more than
    they work (6 times slower for 100 utterances of LibriSpeech on 2 busy cores).

    A recording longer than `max_duration` is embedded in equal parts, since the network's memory grows with
    the length. Its embedding is the mean of the parts' length-normalised embeddings, times their mean norm.

    Args:
        encoder: a `SpeakerEncoder` on the device it shall run on, or another `Embedder`. Its modes are put back after.
        paths: recordings, or a single one; one given twice is embedded once.
        root: the folder that `paths` are relative to; the current one if None.
        progress: called, in this thread, whenever there is progress.
        on_error: "raise" at the first recording that cannot be used, or "skip" it and list it in the result's
            `failures`.
        max_duration: the longest part given to the network at once, in seconds.
        window: rather than recordings or parts, give the network windows of so many seconds, each half over the last,
            and take the mean of their embeddings; see `window_embeddings`.

    Returns:
        Embeddings by the path as given (as a string).

    Raises:
        AudioError: a recording cannot be used, or is shorter than the encoder's `min_samples`, or its embedding is
            not finite.
        CheckpointError: the encoder gives no finite embedding of any recording.
        ConfigError: `paths` are not paths.
        ValueError: a `max_duration` or `window` that is not positive.
    """
    folder = Path(root) if root is not None else Path()
    spans = {name: Span(folder / name) for name in recording_names(paths)}
    return embed_spans(encoder, spans, progress=progress, on_error=on_error, max_duration=max_duration, window=window)


def embed_utterances(
    encoder: Embedder,
    utterances: Iterable[Utterance],
    *,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    window: float | None = None,
) -> Embeddings:
    """As `embed_files`, of the utterances of a manifest: `{id: [embedding_dim]}`."""
    return embed_spans(encoder, utterance_spans(utterances), progress=progress, on_error=on_error, window=window)


def utterance_spans(utterances: Iterable[Utterance]) -> dict[str, Span]:
    """Where the utterances of a manifest are, by their ids."""
    return {item.id: Span(item.path, item.offset, item.duration) for item in utterances}


class Span(NamedTuple):
    """A file, or so many seconds of it from an offset."""

    path: Path
    offset: float = 0.0
    duration: float | None = None


def embed_spans(
    encoder: Embedder,
    spans: Mapping[str, Span],
    *,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_duration: float = MAX_DURATION,
    window: float | None = None,
) -> Embeddings:
    """As `embed_files`, of files or parts of them by any names."""
    for name, value in (("max_duration", max_duration), ("window", window)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be a positive number of seconds, not {value}")
    result = Embeddings()
    work = _Work(encoder, max_duration, window, len(spans))

    def collect(name: str, future: Future[_Found]) -> None:
        while not wait([future], _TICK).done:
            work.report(progress)
        try:
            found = _result(encoder, spans[name].path, future)
        except AudioError as error:
            if on_error == "raise":
                raise
            result.failures.append((name, str(error).removeprefix(f"{error.subject}: ")))
        else:
            result[name], result.seconds[name] = found.embedding, found.seconds
            if found.warnings:
                result.warnings.append((name, "; ".join(found.warnings)))
            if found.silent:
                result.silent.append(name)
        work.report(progress)

    with _workers(work) as (pool, workers):
        pending: deque[tuple[str, Future[_Found]]] = deque()
        for name, span in spans.items():
            pending.append((name, pool.submit(work.embed, span)))
            if len(pending) > 2 * workers:  # hundreds of thousands of futures would be memory too
                collect(*pending.popleft())
        while pending:
            collect(*pending.popleft())
    return result


@dataclass(frozen=True)
class _Found:
    embedding: np.ndarray
    seconds: float
    silent: bool
    warnings: tuple[str, ...]


class _Work:
    """What the threads do, and what they share: how many parts are done, and whether to go on."""

    def __init__(self, encoder: Embedder, max_duration: float, window: float | None, recordings: int) -> None:
        self.encoder, self.window = encoder, window
        self.max_duration = max_duration if window is None else max(_LONGEST_WITH_WINDOWS, max_duration)
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._done, self._total = 0, recordings  # of parts; a recording is one until its length is known
        self._reported = (0, 0)

    def embed(self, span: Span) -> _Found:
        """Embed one recording, or a piece of one.

        Raises:
            AudioError: it cannot be read.
            Exception: whatever a decoder or the network breaks at.
        """
        rate = self.encoder.sample_rate
        shortest = self.encoder.min_samples / rate
        embeddings, quality, left = [], QualityMeter(rate), 1
        try:
            seconds = audio_info(span.path).duration if span.duration is None else span.duration
            pieces = parts(seconds, self.max_duration)
            self._count(total=len(pieces) - 1)
            left = len(pieces)
            for offset, duration in pieces:
                if self.stop.is_set():
                    raise _Stopped
                if duration is None and span.duration is not None:
                    duration = span.duration - offset
                audio = read_audio(
                    span.path,
                    sample_rate=rate,
                    offset=span.offset + offset,
                    duration=duration,
                    min_duration=shortest,
                )
                quality.add(audio.samples)
                waveform = audio.samples[None]
                if self.window is None:
                    embeddings.append(self.encoder.embed(waveform)[0])
                else:
                    embeddings.append(self.encoder.embed_windows(waveform, self.window).mean(axis=0))
                self._count(done=1)
                left -= 1
        finally:
            self._count(done=left)
        return _Found(mean_embedding(np.stack(embeddings)), seconds, quality.is_silent, quality.findings())

    def report(self, call: Progress | None) -> None:
        """Call with the numbers of parts done and in all, if they have changed."""
        if call is None:
            return
        with self._lock:
            now = self._done, self._total
        if now != self._reported:
            self._reported = now
            call(*now)

    def _count(self, done: int = 0, total: int = 0) -> None:
        with self._lock:
            self._done += done
            self._total += total


class _Stopped(Exception):
    pass


def _result(encoder: Embedder, path: Path, future: Future[_Found]) -> _Found:
    """What a thread found; whatever else is wrong with the recording as an `AudioError`."""
    try:
        found = future.result()
    except (AudioError, CheckpointError):
        raise
    except Exception as error:
        raise blame_recording(encoder, path, error) from error
    if not np.isfinite(found.embedding).all():
        raise blame_recording(encoder, path)
    return found


@contextmanager
def _workers(work: _Work) -> Iterator[tuple[Executor, int]]:
    """Give a pool of threads that embed each by itself, and how many they are; the encoder is ready."""
    modes = ExitStack()
    threads = modes.enter_context(work.encoder.ready())
    pool = ThreadPoolExecutor(threads.number, "embed", initializer=threads.start)

    def finish() -> None:
        pool.shutdown(cancel_futures=True)
        modes.close()

    try:
        # All threads begin before there is work: interrupted while it starts one, the pool would not know of it, and
        # `finish` would not wait for it.
        begun = threading.Barrier(threads.number)
        wait([pool.submit(begun.wait, 10) for _ in range(threads.number)])
        yield pool, threads.number
    except Exception:
        work.stop.set()
        finish()
        raise
    except BaseException:  # Ctrl-C does not wait for what the threads are at, but the modes have to
        work.stop.set()
        pool.shutdown(wait=False, cancel_futures=True)
        threading.Thread(target=finish, name="embed-finish").start()
        raise
    finish()
