"""Evaluate an encoder on trials: embed each recording once, score every prefix size, measure the errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.score_files import match_scores, read_scores
from voxnest.corpora.trials import (
    IndexedTrials,
    Trial,
    find_speakers,
    index_trials,
    locate_recordings,
    read_trials,
)
from voxnest.errors import ConfigError, TrialError
from voxnest.evaluation.bootstrap import metric_interval
from voxnest.evaluation.checks import check_rates, check_trials
from voxnest.evaluation.cohorts import Cohort
from voxnest.evaluation.curve import ErrorCurve
from voxnest.evaluation.metrics import compute_eer, compute_min_dcf, error_rates_at
from voxnest.evaluation.report import (
    UNKNOWN_SIZE,
    CalibrationResult,
    DimensionResult,
    EvaluationReport,
    NormalisedResult,
    OperatingPoint,
)
from voxnest.evaluation.trial_sets import EmbeddedTrials, TrialSet, check_labels, embed_trials, find_trials
from voxnest.inference import DEFAULT_THRESHOLD, Progress
from voxnest.inference.cache import EmbeddingCache
from voxnest.scoring import PLDA
from voxnest.scoring.calibration import SCORE

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder
    from voxnest.models.encoder import SpeakerEncoder

PRIORS = (0.01, 0.05)


def evaluate(
    encoder: Embedder,
    trials: str | Path | Sequence[Trial] | TrialSet,
    root: str | Path | None = None,
    dims: Sequence[int] | None = None,
    progress: Progress | None = None,
    interval: bool = False,
    window: float | None = None,
    cohort: Cohort | None = None,
    plda: PLDA | None = None,
    cache: EmbeddingCache | None = None,
) -> EvaluationReport:
    """Measure how well an encoder tells speakers apart, at each prefix size.

    All input is checked before the first recording is embedded.

    Args:
        encoder: in eval mode, on the device it shall run on.
        trials: a trial list (see `read_trials`), trials, or what `find_trials` or `find_protocol_trials` gave.
        root: the folder that the trials' relative paths start from; see `find_trials`.
        dims: prefix sizes; all that the encoder has if None.
        progress: called with how many recordings (parts of long ones) are embedded, and of how many.
        interval: find a confidence interval of each EER too, by drawing speakers anew (`metric_interval`); recordings
            that target trials link are taken to be of one speaker.
        window: embed windows of so many seconds and take their mean, rather than whole recordings; see `embed_files`.
        cohort: measure scores that are normalised by these speakers too.
        plda: measure its scores of the full embeddings too.
        cache: of this encoder's embeddings (with the same window); those that it knows are not computed again.

    Returns:
        EER, threshold and minDCF (priors 0.01 and 0.05, costs 1) per prefix size, and the errors of `verify`: by the
        encoder's calibration, its threshold, or `DEFAULT_THRESHOLD`. Of a calibrated encoder Cllr, minCllr and actDCF.
        Doubtful trials are in `warnings`.

    Raises:
        ConfigError: a prefix size that the encoder was not trained for.
        TrialError: a malformed list, no target or no non-target trial, a recording that is not there, or too few
            speakers for an interval.
        AudioError: a recording that cannot be used.
        CheckpointError: an encoder whose embeddings are not finite.
        VoxnestError: the cache cannot be used.

    Examples:
        >>> report = evaluate(load_encoder("model.safetensors"), "veri_test2.txt", "voxceleb1/wav")
        >>> report.dims[64].eer
        0.0168
    """
    sizes = check_dims(encoder, dims)
    found = trials if isinstance(trials, TrialSet) else find_trials(trials, root)
    start = time.perf_counter()
    embedded = embed_trials(encoder, found, window=window, cache=cache, progress=progress)
    return _measure(encoder, embedded, sizes, time.perf_counter() - start, interval, cohort, plda)


def evaluate_exits(
    encoder: SpeakerEncoder,
    trials: str | Path | Sequence[Trial] | TrialSet,
    root: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[int | None, EvaluationReport]:
    """As `evaluate`, of an encoder at each of its exits and (None) at its end: one pass over each recording gives all.

    Each report's `embedding_seconds` are those of that pass.
    """
    from voxnest.models.exits import AllEnds  # here, for it imports torch

    found = trials if isinstance(trials, TrialSet) else find_trials(trials, root)
    start = time.perf_counter()
    embedded = embed_trials(cast("Embedder", AllEnds(encoder)), found, progress=progress)
    seconds = time.perf_counter() - start
    return {
        stage: _measure(part, embedded.row(number), encoder.dims, seconds)
        for number, (stage, part) in enumerate(encoder.parts().items())
    }


def _measure(
    encoder: Embedder,
    embedded: EmbeddedTrials,
    sizes: Sequence[int],
    seconds: float,
    interval: bool = False,
    cohort: Cohort | None = None,
    plda: PLDA | None = None,
) -> EvaluationReport:
    """What `evaluate` finds, once embeddings are there, which took so many seconds."""
    found, scores = embedded.trials, embedded.score(sizes)
    llrs = calibrated(encoder, embedded, scores)
    others: dict[str, Scores] = dict(cohort.scores(embedded, scores, sizes)) if cohort else {}
    if plda is not None:
        size = encoder.embedding_dim
        others["PLDA"] = {size: plda.score(embedded.matrix(size), found.pairs)}
    report = _report(
        model=encoder.name,
        source=found.source,
        pairs=found.pairs,
        scores=scores,
        verify=lambda dim: _verify_point(encoder, dim, scores[dim], llrs.get(dim), found.pairs.labels),
        interval=interval,
        warnings=list(found.warnings),
        seconds=(sum(embedded.embeddings.seconds.values()), seconds),
        llrs=llrs,
        others=others,
    )
    return replace(report, recordings=len(embedded.embeddings), cached=embedded.cached, models=found.models)


def calibrated(
    encoder: Embedder, embedded: EmbeddedTrials, scores: Mapping[int, NDArray[np.floating]]
) -> dict[int, NDArray[np.floating]]:
    """Log-likelihood ratios {prefix size: [trials]} of the sizes that the encoder carries a calibration for."""
    pairs, seconds = embedded.trials.pairs, embedded.seconds()
    return {
        dim: encoder.calibration[dim].llrs(values, pairs, embedded.matrix(dim), seconds)
        for dim, values in scores.items()
        if dim in encoder.calibration
    }


def _verify_point(
    encoder: Embedder,
    dim: int,
    scores: NDArray[np.floating],
    llrs: NDArray[np.floating] | None,
    labels: NDArray[np.bool_],
) -> OperatingPoint:
    """The errors of `verify` at one size, by what decides there."""
    if llrs is not None:
        rejects, accepts = error_rates_at(llrs, labels, 0.0)
        # The score at which the ratio is zero; with quality measures it is another for each trial.
        equivalent = np.median(scores - llrs / encoder.calibration[dim].llr.weights[SCORE])
        return OperatingPoint(float(equivalent), True, accepts, rejects)
    used = encoder.thresholds.get(dim, DEFAULT_THRESHOLD)
    rejects, accepts = error_rates_at(scores, labels, used)
    return OperatingPoint(used, dim in encoder.thresholds, accepts, rejects)


def evaluate_scores(
    scores: str | Path,
    trials: str | Path | None = None,
    root: str | Path | None = None,
    interval: bool = False,
) -> EvaluationReport:
    """Measure error rates from a score file, without any model.

    Args:
        scores: a score file (see `read_scores`).
        trials: a trial list with the labels; it decides, in whatever order the scores are. Those of other pairs are
            left out, with a warning. If None, the score file has labels.
        root: the folder that relative names start from, for who wants to hear the recordings.
        interval: as in `evaluate`.

    Returns:
        As `evaluate`, of the one size `UNKNOWN_SIZE`; there is no threshold of `verify`.

    Raises:
        TrialError: a malformed file or list, no labels, a trial without score or with two, no target or no non-target
            trial, too few speakers for an interval.
    """
    scored = read_scores(scores)
    warnings = []
    if trials is not None:
        given = index_trials(read_trials(trials))
        values, others = match_scores(scored, given, scores)
        if others:
            warnings.append(f"{others:,} scores of trials that are not in {trials} are left out")
    elif scored.labels is not None:
        given = IndexedTrials(scored.names, scored.enrollment, scored.test, scored.labels)
        values = scored.scores
    else:
        raise TrialError(scores, "scores without labels", "a label on each line, or the trial list as --trials")
    check_labels(given, trials or scores)
    pairs = given if root is None else locate_recordings(given, root)
    return _report(
        model=str(scores),
        source=str(trials) if trials is not None else None,
        pairs=pairs,
        scores={UNKNOWN_SIZE: values},
        verify=None,
        interval=interval,
        warnings=warnings + check_trials(given, pairs),
        seconds=(0.0, 0.0),
    )


Scores = Mapping[int, NDArray[np.floating]]


def _report(
    *,
    model: str,
    source: str | None,
    pairs: IndexedTrials,
    scores: dict[int, NDArray[np.floating]],
    verify: Callable[[int], OperatingPoint] | None,
    interval: bool,
    warnings: list[str],
    seconds: tuple[float, float],
    llrs: dict[int, NDArray[np.floating]] | None = None,
    others: Mapping[str, Scores] | None = None,
) -> EvaluationReport:
    """Measure the scores of each size; `verify` gives the errors that it would make there."""
    labels, llrs = pairs.labels, llrs or {}
    speakers = find_speakers(pairs)
    sides = speakers[pairs.enrollment], speakers[pairs.test]

    def measure(values: NDArray[np.floating]) -> tuple[float, float, dict[float, float], tuple[float, float] | None]:
        costs = {prior: compute_min_dcf(values, labels, prior) for prior in PRIORS}
        return *compute_eer(values, labels), costs, metric_interval(values, labels, *sides) if interval else None

    results = {}
    for dim, values in scores.items():
        eer, threshold, costs, limits = measure(values)
        point = verify(dim) if verify is not None else None
        measured = {
            name: NormalisedResult(*measure(found[dim])) for name, found in (others or {}).items() if dim in found
        }
        meaning = _calibration(llrs[dim], labels) if dim in llrs else None
        results[dim] = DimensionResult(eer, threshold, costs, point, limits, measured, meaning)
    return EvaluationReport(
        model=model,
        trials=source,
        targets=int(labels.sum()),
        nontargets=int((~labels).sum()),
        recordings=len(pairs.names),
        audio_seconds=seconds[0],
        embedding_seconds=seconds[1],
        dims=results,
        warnings=warnings + check_rates({dim: result.eer for dim, result in results.items()}),
        labels=labels,
        scores=scores,
        pairs=pairs,
        llrs=llrs,
    )


def _calibration(llrs: NDArray[np.floating], labels: NDArray[np.bool_]) -> CalibrationResult:
    curve = ErrorCurve.of(llrs, labels)
    return CalibrationResult(curve.cllr(), curve.min_cllr(), {prior: curve.act_dcf(prior) for prior in PRIORS})


def check_dims(encoder: Embedder, dims: Sequence[int] | None) -> tuple[int, ...]:
    """Give the prefix sizes asked for, ascending and once each; all there are if none is.

    Raises:
        ConfigError: the encoder was not trained for one of them.
    """
    if not dims:
        return encoder.dims
    unknown = sorted(set(dims) - set(encoder.dims))
    if unknown:
        expected = f"one of {', '.join(map(str, encoder.dims))}"
        raise ConfigError(encoder.name, f"has no embedding of dimension {unknown[0]}", expected)
    return tuple(sorted(set(dims)))
