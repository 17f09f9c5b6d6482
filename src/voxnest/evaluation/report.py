"""What an evaluation found: error rates per prefix size, and the facts needed to trust and repeat them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.trials import IndexedTrials
from voxnest.files import atomic_write, writing

UNKNOWN_SIZE = 0
"""The key, among prefix sizes, of scores of which nobody knows what embeddings they are of."""


@dataclass(frozen=True)
class OperatingPoint:
    """The errors of `voxnest verify`, which takes the model's own threshold and not the best one of these trials.

    Attributes:
        threshold: scores >= this are accepted.
        calibrated: False if it is the generic `DEFAULT_THRESHOLD`, because the model carries none for this size.
        false_accept_rate: accepted non-target trials, a fraction in [0, 1].
        false_reject_rate: rejected target trials, a fraction in [0, 1].
    """

    threshold: float
    calibrated: bool
    false_accept_rate: float
    false_reject_rate: float


@dataclass(frozen=True)
class NormalisedResult:
    """How well scores that a cohort has normalised tell speakers apart; attributes as of `DimensionResult`."""

    eer: float
    threshold: float
    min_dcf: dict[float, float]
    eer_interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return {
            "eer": self.eer,
            "threshold": self.threshold,
            "min_dcf": {f"{prior:g}": cost for prior, cost in self.min_dcf.items()},
            **({"eer_interval": list(self.eer_interval)} if self.eer_interval else {}),
        }


@dataclass(frozen=True)
class CalibrationResult:
    """What a model's log-likelihood ratios are worth.

    Attributes:
        cllr: cost of the log-likelihood ratios, in bits.
        min_cllr: what it would be after the best calibration for these trials.
        act_dcf: prior of a target trial -> normalised detection cost of the decisions that the ratios lead to.
    """

    cllr: float
    min_cllr: float
    act_dcf: dict[float, float]

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        costs = {f"{prior:g}": cost for prior, cost in self.act_dcf.items()}
        return {"cllr": self.cllr, "min_cllr": self.min_cllr, "act_dcf": costs}


@dataclass(frozen=True)
class DimensionResult:
    """How well one prefix size tells speakers apart.

    Attributes:
        eer: equal error rate, a fraction in [0, 1].
        threshold: scores >= this are accepted at the equal error rate.
        min_dcf: prior of a target trial -> normalised minimum detection cost.
        verify: the errors at the threshold that `voxnest verify` uses; None for scores from a file.
        eer_interval: 95% confidence interval of the EER over speakers, if it was asked for.
        normalised: name such as "AS-norm" -> the same of normalised scores.
        calibration: of log-likelihood ratios, if the model is calibrated.
    """

    eer: float
    threshold: float
    min_dcf: dict[float, float]
    verify: OperatingPoint | None
    eer_interval: tuple[float, float] | None = None
    normalised: dict[str, NormalisedResult] = field(default_factory=dict)
    calibration: CalibrationResult | None = None

    def to_normalised(self) -> NormalisedResult:
        """What is known of scores as they are, in the form of the others."""
        return NormalisedResult(self.eer, self.threshold, self.min_dcf, self.eer_interval)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        normalised = {name: found.to_dict() for name, found in self.normalised.items()}
        return {
            **self.to_normalised().to_dict(),
            "verify": asdict(self.verify) if self.verify else None,
            **({"normalised": normalised} if normalised else {}),
            **({"calibration": self.calibration.to_dict()} if self.calibration else {}),
        }


@dataclass(frozen=True)
class EvaluationReport:
    """The outcome of `evaluate`.

    Attributes:
        model: name of the encoder, or the score file.
        trials: the trial list, or None when the trials did not come from a file.
        targets: number of target trials.
        nontargets: number of non-target trials.
        recordings: number of recordings, each embedded once.
        audio_seconds: their duration together.
        embedding_seconds: wall-clock time spent on reading and embedding them.
        dims: prefix size -> result, ascending; `UNKNOWN_SIZE` alone for scores from a file.
        warnings: what makes these figures doubtful, each in one line (see `voxnest.evaluation.checks`).
        labels: [trials] True for target trials.
        scores: prefix size -> [trials] cosine similarities, or what the file has.
        pairs: the trials, with the paths of recordings as names, or those of `models`; None if they are not known.
        models: name -> paths of the several recordings that a speaker was enrolled by.
        cached: how many recordings were not embedded, for the cache knew them.
        llrs: prefix size -> [trials] calibrated log-likelihood ratios (natural logarithm), where there are any.
    """

    model: str
    trials: str | None
    targets: int
    nontargets: int
    recordings: int
    audio_seconds: float
    embedding_seconds: float
    dims: dict[int, DimensionResult]
    warnings: list[str]
    labels: NDArray[np.bool_] = field(repr=False, compare=False)
    scores: dict[int, NDArray[np.floating]] = field(repr=False, compare=False)
    pairs: IndexedTrials | None = field(default=None, repr=False, compare=False)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)
    llrs: dict[int, NDArray[np.floating]] = field(default_factory=dict, repr=False, compare=False)
    cached: int = 0

    @property
    def real_time_factor(self) -> float | None:
        """Seconds of computing per second of audio: 0.1 is ten times real time. None if not all was heard."""
        return self.embedding_seconds / self.audio_seconds if self.audio_seconds and not self.cached else None

    def to_dict(self) -> dict[str, Any]:
        """Give the report as plain JSON values. Error rates are fractions: an `eer` of 0.0168 is 1.68%."""
        factor = self.real_time_factor
        return {
            "model": self.model,
            "trials": self.trials,
            "targets": self.targets,
            "nontargets": self.nontargets,
            "recordings": self.recordings,
            "audio_seconds": round(self.audio_seconds, 3),
            "embedding_seconds": round(self.embedding_seconds, 3),
            "real_time_factor": None if factor is None else round(factor, 6),
            "warnings": self.warnings,
            "cached": self.cached,
            "dims": {str(dim): result.to_dict() for dim, result in self.dims.items()},
        }

    def save_json(self, path: str | Path) -> None:
        """Write `to_dict()` as JSON, atomically.

        Raises:
            VoxnestError: the file cannot be written (a full disk, say).
        """
        write_report(self.to_dict(), path)


def write_report(content: dict[str, Any], path: str | Path) -> None:
    """Write a report as JSON, atomically.

    Raises:
        VoxnestError: the file cannot be written (a full disk, say).
    """
    with writing(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
