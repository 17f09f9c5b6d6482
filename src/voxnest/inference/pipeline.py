"""Files through an embedder, as many as there may be: what came of each, in order; see `voxnest.models.workers`."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from voxnest.audio import audio_info, read_audio
from voxnest.errors import AudioError
from voxnest.inference.quality import QualityMeter
from voxnest.models.blame import blame_recording, blaming
from voxnest.models.encoding import MAX_DURATION, mean_embedding, parts
from voxnest.models.workers import Recording, workers

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

Progress = Callable[[int, int], None]
"""Called with how many parts are done, and of how many: a recording is one, a long one several."""

_LONGEST_WITH_WINDOWS = 600.0  # seconds whose features are in memory at once


class Span(NamedTuple):
    """A file, or so many seconds of it from an offset."""

    path: Path
    offset: float = 0.0
    duration: float | None = None


class Outcome(NamedTuple):
    """What came of a recording.

    Attributes:
        name: of it.
        span: where it is.
        embedding: `[embedding_dim]` float32; None if there is none.
        seconds: its length.
        silent: whether it holds nothing but silence.
        warnings: what makes the embedding unreliable.
        failure: why there is no embedding.
    """

    name: str
    span: Span
    embedding: np.ndarray | None = None
    seconds: float = 0.0
    silent: bool = False
    warnings: tuple[str, ...] = ()
    failure: str = ""


def stream_spans(
    encoder: Embedder,
    spans: Iterable[tuple[str, Span]],
    *,
    total: int = 0,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_duration: float = MAX_DURATION,
    window: float | None = None,
    jobs: int | None = None,
) -> Generator[Outcome, None, None]:
    """As `embed_files`, of any number of files or parts of them: what came of each, in their order.

    No more of `spans` is taken than is soon worked on, so that memory does not depend on how many there are. The
    encoder is ready from the first outcome to the last; one who leaves before closes the generator.

    Args:
        encoder: as the other arguments, see `embed_files`.
        spans: names, and where the recordings are.
        total: how many there are, for `progress`.
        progress: see `embed_files`.
        on_error: see `embed_files`.
        max_duration: see `embed_files`.
        window: see `embed_files`.
        jobs: threads; as many as the encoder has if None.

    Raises:
        AudioError: as `embed_files`, if `on_error` is "raise".
        CheckpointError: the encoder gives no finite embedding of any recording.
        ValueError: a `max_duration` or `window` that is not positive.
    """
    for name, value in (("max_duration", max_duration), ("window", window)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be a positive number of seconds, not {value}")
    work = _Work(encoder, max_duration, window, total)
    begun: deque[tuple[str, Span]] = deque()

    def begin() -> Iterator[Recording[_Found]]:
        for name, span in spans:
            begun.append((name, span))
            yield work.embed(span)

    def collect(name: str, span: Span, done: Future[_Found]) -> Outcome:
        try:
            with blaming(encoder, span.path):
                found = done.result()
            if not np.isfinite(found.embedding).all():
                raise blame_recording(encoder, span.path)
        except AudioError as error:
            if on_error == "raise":
                raise
            return Outcome(name, span, failure=str(error).removeprefix(f"{error.subject}: "))
        finally:
            work.report(progress)
        return Outcome(name, span, found.embedding, found.seconds, found.silent, found.warnings)

    with workers(encoder, jobs) as team:
        for done in team.embed(begin(), encoder.batch_size, lambda: work.report(progress)):
            yield collect(*begun.popleft(), done)


@dataclass(frozen=True)
class _Found:
    embedding: np.ndarray
    seconds: float
    silent: bool
    warnings: tuple[str, ...]


class _Work:
    """What becomes of each recording, and what they share: how many parts are done."""

    def __init__(self, encoder: Embedder, max_duration: float, window: float | None, recordings: int) -> None:
        self.encoder, self.window = encoder, window
        self.max_duration = max_duration if window is None else max(_LONGEST_WITH_WINDOWS, max_duration)
        self._lock = threading.Lock()
        self._done, self._total = 0, recordings  # of parts; a recording is one until its length is known
        self._reported = (0, 0)

    def embed(self, span: Span) -> Recording[_Found]:
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
                if self.window is None:
                    embeddings.append((yield audio.samples))
                else:
                    embeddings.append(self.encoder.embed_windows(audio.samples[None], self.window).mean(axis=0))
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
