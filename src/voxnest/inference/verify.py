"""Decide whether two recordings are of one speaker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from voxnest.corpora.trials import Trial, index_trials
from voxnest.errors import ConfigError
from voxnest.inference.embedding import embed_files
from voxnest.inference.pipeline import Progress
from voxnest.scoring import (
    Calibration,
    FalseAcceptThreshold,
    TooFewTrials,
    bayes_threshold,
    cosine_similarity,
    probability,
)

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

DEFAULT_THRESHOLD = 0.5
"""Used where an encoder carries no threshold of its own. It is not calibrated for any model."""
DEFAULT_PRIOR = 0.5


@dataclass(frozen=True)
class Verification:
    """The answer of `verify`.

    Attributes:
        score: cosine similarity of the two embeddings, in [-1, 1].
        same: whether the score reaches the threshold.
        threshold: the one used; where the log-likelihood ratio decided, the score for which it would be that of the
            threshold.
        dim: the size of the embeddings compared.
        calibrated: False if the threshold is the generic `DEFAULT_THRESHOLD`; True if the caller gave it, or
            the encoder carries it or a calibration.
        silent: those of the two recordings in which there is nothing to hear; the answer then means nothing.
        warnings: (recording, what is wrong) of those that the answer is not to be relied on for: silent ones, and
            what else `voxnest.inference.quality` finds.
        llr: calibrated log-likelihood ratio (natural logarithm); None if the encoder has no calibration for `dim`.
        llr_threshold: the least one of one speaker; None if the score itself was compared.
        probability: that one speaker speaks in both, with `prior` before; None without calibration.
        prior: probability of one speaker before anything was heard.
        false_accepts: the trials that the threshold of a wanted rate of false accepts comes from, if that decided.
    """

    score: float
    same: bool
    threshold: float
    dim: int
    calibrated: bool
    silent: tuple[str, ...]
    warnings: tuple[tuple[str, str], ...]
    llr: float | None = None
    llr_threshold: float | None = None
    probability: float | None = None
    prior: float | None = None
    false_accepts: FalseAcceptThreshold | None = None


class Costs(NamedTuple):
    """Of the two kinds of wrong answers."""

    miss: float = 1.0
    false_accept: float = 1.0


def verify(
    encoder: Embedder,
    a: str | Path,
    b: str | Path,
    dim: int | None = None,
    threshold: float | None = None,
    *,
    prior: float | None = None,
    costs: tuple[float, float] | None = None,
    far: float | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare the speakers of two recordings by the cosine similarity of their embeddings.

    An encoder with a calibration (`voxnest calibrate`) decides by the log-likelihood ratio: at the threshold of a
    wanted rate of false accepts (`far`), else where the answer costs least (`prior`, `costs`). Without, or with a
    `threshold`, it is the score that is compared.

    Args:
        encoder: see `load_encoder`.
        a: a recording.
        b: another.
        dim: compare the first `dim` numbers only; all if None.
        threshold: the least score of one speaker. If None, and there is no calibration: the encoder's own for that
            `dim` (`encoder.thresholds`), or `DEFAULT_THRESHOLD` if it carries none. `voxnest evaluate` tells one.
        prior: probability of one speaker before anything was heard, in (0, 1); 0.5 if None.
        costs: of answering "different" wrongly, and of answering "same" wrongly; (1, 1) if None.
        far: the wanted rate of false accepts, in (0, 1).
        progress: see `embed_files`.

    Raises:
        AudioError: a recording cannot be used.
        ConfigError: the encoder was not trained for `dim`; the threshold is not in [-1, 1]; `prior`, `costs` or `far`
            without a calibration, or out of range; or a calibration on too few trials for `far`.
        CheckpointError: the encoder gives embeddings that are not finite.

    Examples:
        >>> verify(load_encoder("model.safetensors"), "monday.wav", "friday.m4a").same
        True
    """
    if dim is None:
        dim = encoder.embedding_dim
    encoder.check_dim(dim)
    encoder = encoder.for_dim(dim)
    calibration = encoder.calibration.get(dim)
    decision = _decide(calibration, threshold, prior, costs, far, f"{encoder.name} at {dim} numbers")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ConfigError("threshold", f"{threshold:g}", "a cosine similarity, in [-1, 1]")
    own = encoder.thresholds.get(dim)
    embeddings = embed_files(encoder, [a, b], progress=progress)
    pair = [str(a), str(b)]
    score = cosine_similarity(embeddings[pair[0]][:dim], embeddings[pair[1]][:dim])
    silent, warnings = tuple(embeddings.silent), tuple(embeddings.warnings)
    known = threshold is not None or own is not None or calibration is not None
    if threshold is None:
        threshold = DEFAULT_THRESHOLD if own is None else own
    if calibration is None:
        return Verification(score, score >= threshold, threshold, dim, known, silent, warnings)
    matrix = np.stack([embeddings[name][:dim] for name in pair])
    seconds = [embeddings.seconds[name] for name in pair]
    llr = float(calibration.llrs([score], index_trials([Trial(False, *pair)]), matrix, seconds)[0])
    same = score >= threshold
    if decision.llr is not None:
        same = llr >= decision.llr
        threshold = score + (decision.llr - llr) / calibration.llr.weights["score"]
    given = DEFAULT_PRIOR if prior is None else prior
    return Verification(
        *(score, same, threshold, dim, known, silent, warnings, llr, decision.llr),
        *(float(probability(llr, given)), given, decision.false_accepts),
    )


class _Decision(NamedTuple):
    """The least log-likelihood ratio of one speaker, or None if the score is compared; and where it comes from."""

    llr: float | None
    false_accepts: FalseAcceptThreshold | None = None


def _decide(
    calibration: Calibration | None,
    threshold: float | None,
    prior: float | None,
    costs: tuple[float, float] | None,
    far: float | None,
    where: str,
) -> _Decision:
    """Check what was asked for before anything is embedded."""
    wanted = {"a threshold": threshold, "a false-accept rate": far, "costs": costs}
    given = [name for name, value in wanted.items() if value is not None]
    if len(given) > 1:
        raise ConfigError("verify", " and ".join(given), "one of them: each alone decides")
    asked = [name for name, value in {"prior": prior, "costs": costs, "far": far}.items() if value is not None]
    if calibration is None:
        if asked:
            expected = "a calibrated model: voxnest calibrate MODEL --trials LIST"
            raise ConfigError(where, f"no calibration, which {asked[0]} needs", expected)
        return _Decision(None)
    if calibration.llr.weights["score"] <= 0:
        raise ConfigError(where, "a calibration by which alike recordings are of different speakers", "another one")
    try:
        least = bayes_threshold(DEFAULT_PRIOR if prior is None else prior, *(costs or Costs()))
        found = None if far is None else calibration.false_accepts(far)
    except ValueError as error:
        raise ConfigError("verify", str(error)) from error
    if isinstance(found, TooFewTrials):
        raise ConfigError(where, str(found), "a higher rate, or voxnest calibrate with a longer list")
    if found is not None:
        return _Decision(found.threshold, found)
    return _Decision(least if threshold is None else None)
