"""Embed whole recordings, each read once, into memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from voxnest.inference.pipeline import Outcome, Progress, Span, stream_spans
from voxnest.inference.recordings import recording_names
from voxnest.models.encoding import MAX_DURATION

if TYPE_CHECKING:
    from voxnest.corpora.manifest import Utterance
    from voxnest.models.embedder import Embedder


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

    def add(self, outcome: Outcome) -> None:
        """Put what came of a recording where it belongs."""
        name = outcome.name
        if outcome.embedding is None:
            self.failures.append((name, outcome.failure))
            return
        self[name], self.seconds[name] = outcome.embedding, outcome.seconds
        if outcome.warnings:
            self.warnings.append((name, "; ".join(outcome.warnings)))
        if outcome.silent:
            self.silent.append(name)


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

    Every recording goes through the network at its own length, so its embedding does not depend on the others. On a
    CPU as many are under way as the encoder has threads (at most 8), each in one thread: threads within one operation
    wait for each other more than they work (6 times slower for 100 utterances of LibriSpeech on 2 busy cores). On a GPU
    those of one length are embedded together; see `voxnest.models.workers`.

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


def embed_spans(
    encoder: Embedder,
    spans: Mapping[str, Span],
    *,
    progress: Progress | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    max_duration: float = MAX_DURATION,
    window: float | None = None,
    jobs: int | None = None,
) -> Embeddings:
    """As `embed_files`, of files or parts of them by any names; `jobs` as of `stream_spans`."""
    result = Embeddings()
    outcomes = stream_spans(
        encoder,
        spans.items(),
        total=len(spans),
        progress=progress,
        on_error=on_error,
        max_duration=max_duration,
        window=window,
        jobs=jobs,
    )
    with closing(outcomes):
        for outcome in outcomes:
            result.add(outcome)
    return result
