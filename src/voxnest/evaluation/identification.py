"""Identification in a closed set: how often the classifier of a model names the speaker of a recording."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from voxnest.corpora.manifest import check_files, read_manifest
from voxnest.errors import CheckpointError, ConfigError, CorpusError
from voxnest.evaluation.report import write_report
from voxnest.inference.embedding import embed_utterances
from voxnest.inference.pipeline import Progress

if TYPE_CHECKING:
    from voxnest.corpora.manifest import Utterance
    from voxnest.models.classifier import SpeakerClassifier
    from voxnest.models.encoder import SpeakerEncoder

WINDOW = 3.0
"""Seconds of the windows whose embeddings are averaged, as in AutoSpeech."""


@dataclass(frozen=True)
class Accuracy:
    """A share of recordings, with its 95% interval (Wilson; recordings are taken to be independent)."""

    value: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, right: int, total: int) -> Accuracy:
        """That of `right` among `total`."""
        return cls(right / total, wilson_interval(right, total))


@dataclass(frozen=True)
class IdentificationReport:
    """The outcome of `identify`.

    Attributes:
        model: name of the encoder.
        source: the manifest, or None when the utterances did not come from one.
        speakers: how many the classifier tells apart.
        utterances: how many were identified.
        audio_seconds: their duration together.
        embedding_seconds: wall-clock time spent on reading and embedding them.
        window: seconds of a window; None if recordings were embedded whole.
        top1: prefix size -> share of recordings whose speaker has the highest logit.
        top5: prefix size -> share of recordings whose speaker is among the five highest.
    """

    model: str
    source: str | None
    speakers: int
    utterances: int
    audio_seconds: float
    embedding_seconds: float
    window: float | None
    top1: dict[int, Accuracy]
    top5: dict[int, Accuracy]

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing per second of audio."""
        return self.embedding_seconds / self.audio_seconds

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain JSON values; shares are fractions."""
        return {
            "task": "identification",
            **{name: getattr(self, name) for name in ("model", "source", "speakers", "utterances", "window")},
            "audio_seconds": round(self.audio_seconds, 3),
            "embedding_seconds": round(self.embedding_seconds, 3),
            "dims": {
                str(dim): {
                    name: {"value": found[dim].value, "interval": list(found[dim].interval)}
                    for name, found in (("top1", self.top1), ("top5", self.top5))
                }
                for dim in self.top1
            },
        }

    def save_json(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON, atomically.

        Raises:
            VoxnestError: the file cannot be written (a full disk, say).
        """
        write_report(self.to_dict(), path)


def identify(
    encoder: SpeakerEncoder,
    classifier: SpeakerClassifier,
    utterances: str | Path | Sequence[Utterance],
    dims: Sequence[int] | None = None,
    *,
    window: float | None = WINDOW,
    progress: Progress | None = None,
) -> IdentificationReport:
    """Measure how often a model names the right one of the speakers it was trained on, at each prefix size.

    Args:
        encoder: on the device it shall run on.
        classifier: that was trained with it; see `load_classifier`.
        utterances: a manifest folder, or utterances. All must be of the classifier's speakers.
        dims: prefix sizes; all that the encoder has if None.
        window: the embedding of a recording is the mean over windows of so many seconds, each half over the last; None
            for one embedding of it all.
        progress: called with how many recordings are embedded, and of how many.

    Raises:
        CorpusError: a manifest that cannot be read, or speakers that the classifier does not know.
        CheckpointError: a classifier of another encoder.
        ConfigError: a prefix size that the encoder was not trained for.
        AudioError: a recording that cannot be used.
    """
    source: str | Path | None = None
    if isinstance(utterances, str | Path):
        source, utterances = utterances, read_manifest(utterances)
    listed = list(utterances)
    sizes = sorted({encoder.head.check_dim(dim) for dim in dims or encoder.dims})
    if classifier.weight.shape[1] != encoder.embedding_dim:
        found = f"a classifier of {classifier.weight.shape[1]} numbers"
        raise CheckpointError(encoder.name, found, f"one of its {encoder.embedding_dim}")
    if window is not None and not window > 0:
        raise ConfigError("window", f"{window:g} s", "a positive number of seconds")
    truth = _labels(classifier, listed, source)
    if source is not None:
        check_files(listed, source)
    start = time.perf_counter()
    embeddings = embed_utterances(encoder, listed, progress=progress, window=window)
    seconds = time.perf_counter() - start
    place = classifier.weight.device
    matrix = torch.from_numpy(np.stack([embeddings[item.id] for item in listed]))
    ranks: dict[int, list[int]] = {dim: [] for dim in sizes}
    with torch.inference_mode():
        for rows, labels in zip(matrix.split(1024), truth.split(1024), strict=True):
            for dim in sizes:
                logits = classifier(rows[:, :dim].to(place)).cpu()
                own = logits.gather(1, labels[:, None])
                # A tie is not a hit: a network that says the same of everybody names nobody.
                ranks[dim] += ((logits >= own).sum(dim=1) - 1).tolist()
    counts = {dim: np.array(found) for dim, found in ranks.items()}
    return IdentificationReport(
        model=encoder.name,
        source=None if source is None else str(source),
        speakers=len(classifier.speakers),
        utterances=len(listed),
        audio_seconds=sum(embeddings.seconds.values()),
        embedding_seconds=seconds,
        window=window,
        top1={dim: Accuracy.of(int((found < 1).sum()), len(listed)) for dim, found in counts.items()},
        top5={dim: Accuracy.of(int((found < 5).sum()), len(listed)) for dim, found in counts.items()},
    )


def wilson_interval(right: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share (Wilson 1927), which stays within 0 and 1 and has a width at 0 and 1 too."""
    share, tail = right / total, z * z / total
    middle, half = share + tail / 2, z * math.sqrt((share * (1 - share) + tail / 4) / total)
    return max(0.0, (middle - half) / (1 + tail)), min(1.0, (middle + half) / (1 + tail))


def _labels(classifier: SpeakerClassifier, utterances: Sequence[Utterance], source: str | Path | None) -> torch.Tensor:
    index = {name: number for number, name in enumerate(classifier.speakers)}
    unknown = sorted({utterance.speaker for utterance in utterances} - set(index))
    if unknown or not utterances:
        strangers = f"{len(unknown)} speakers that the model does not know"
        found = f"{strangers}, such as {unknown[0]!r}" if unknown else "nothing"
        raise CorpusError(source or "utterances", found, f"recordings of its {len(index)} speakers")
    return torch.tensor([index[utterance.speaker] for utterance in utterances])
