"""Evaluate an encoder on trials: embed each recording once, score every prefix size, measure the errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.score_files import match_scores, read_scores
from voxnest.corpora.trials import (
    IndexedTrials,
    Trial,
    check_recordings,
    find_root,
    find_speakers,
    index_trials,
    locate_recordings,
    read_trials,
)
from voxnest.errors import ConfigError, TrialError
from voxnest.evaluation.bootstrap import metric_interval
from voxnest.evaluation.checks import check_rates, check_trials
from voxnest.evaluation.metrics import compute_eer, compute_min_dcf, error_rates_at
from voxnest.evaluation.report import UNKNOWN_SIZE, DimensionResult, EvaluationReport, OperatingPoint
from voxnest.inference import DEFAULT_THRESHOLD, Progress, embed_files
from voxnest.scoring import score_indexed

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

PRIORS = (0.01, 0.05)


def evaluate(
    encoder: SpeakerEncoder,
    trials: str | Path | Sequence[Trial],
    root: str | Path | None = None,
    dims: Sequence[int] | None = None,
    progress: Progress | None = None,
    interval: bool = False,
    window: float | None = None,
) -> EvaluationReport:
    """Measure how well an encoder tells speakers apart, at each prefix size.

    All input is checked before the first recording is embedded.

    Args:
        encoder: in eval mode, on the device it shall run on.
        trials: a trial list (see `read_trials`), or trials.
        root: the folder that the trials' relative paths start from. If None: for a list, its own folder or `wav`
            or `test` in it, wherever its recordings are; for trials, the current folder.
        dims: prefix sizes; all that the encoder has if None.
        progress: called with how many recordings (parts of long ones) are embedded, and of how many.
        interval: find a confidence interval of each EER too, by drawing speakers anew (`metric_interval`); recordings
            that target trials link are taken to be of one speaker.
        window: embed windows of so many seconds and take their mean, rather than whole recordings; see `embed_files`.

    Returns:
        EER, threshold and minDCF (priors 0.01 and 0.05, costs 1) per prefix size, and the errors at the threshold of
        `verify`: the encoder's own, else `DEFAULT_THRESHOLD`. Doubtful trials are in `warnings`.

    Raises:
        ConfigError: a prefix size that the encoder was not trained for.
        TrialError: a malformed list, no target or no non-target trial, a recording that is not there, or too few
            speakers for an interval.
        AudioError: a recording that cannot be used.
        CheckpointError: an encoder whose embeddings are not finite.

    Examples:
        >>> report = evaluate(load_encoder("model.safetensors"), "veri_test2.txt", "voxceleb1/wav")
        >>> report.dims[64].eer
        0.0168
    """
    sizes = check_dims(encoder, dims)
    if isinstance(trials, str | Path):
        source, listed = Path(trials), read_trials(trials)
    else:
        source, listed = None, list(trials)
    indexed = index_trials(listed)
    _check_labels(indexed.labels, source or "trials")
    if root is None:
        root = find_root(source, listed) if source is not None else Path()
    check_recordings(listed, root, source)
    given, indexed = indexed, locate_recordings(indexed, root)
    warnings = check_trials(given, indexed)

    start = time.perf_counter()
    embeddings = embed_files(encoder, indexed.names, progress=progress, window=window)
    seconds = time.perf_counter() - start
    scores = score_indexed(np.stack([embeddings[name] for name in indexed.names]), indexed, sizes)
    return _report(
        model=encoder.name,
        source=source,
        pairs=indexed,
        scores=scores,
        verify=lambda dim: (encoder.thresholds.get(dim, DEFAULT_THRESHOLD), dim in encoder.thresholds),
        interval=interval,
        warnings=warnings,
        seconds=(sum(embeddings.seconds.values()), seconds),
    )


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
    _check_labels(given.labels, trials or scores)
    pairs = given if root is None else locate_recordings(given, root)
    return _report(
        model=str(scores),
        source=Path(trials) if trials is not None else None,
        pairs=pairs,
        scores={UNKNOWN_SIZE: values},
        verify=None,
        interval=interval,
        warnings=warnings + check_trials(given, pairs),
        seconds=(0.0, 0.0),
    )


def _report(
    *,
    model: str,
    source: Path | None,
    pairs: IndexedTrials,
    scores: dict[int, NDArray[np.floating]],
    verify: Callable[[int], tuple[float, bool]] | None,
    interval: bool,
    warnings: list[str],
    seconds: tuple[float, float],
) -> EvaluationReport:
    """Measure the scores of each size; `verify` gives its threshold, and whether that is the model's own."""
    labels = pairs.labels
    speakers = find_speakers(pairs)
    sides = speakers[pairs.enrollment], speakers[pairs.test]
    results = {}
    for dim, values in scores.items():
        eer, threshold = compute_eer(values, labels)
        costs = {prior: compute_min_dcf(values, labels, prior) for prior in PRIORS}
        point = None
        if verify is not None:
            used, own = verify(dim)
            rejects, accepts = error_rates_at(values, labels, used)
            point = OperatingPoint(used, own, accepts, rejects)
        limits = metric_interval(values, labels, *sides) if interval else None
        results[dim] = DimensionResult(eer, threshold, costs, point, limits)
    return EvaluationReport(
        model=model,
        trials=str(source) if source is not None else None,
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
    )


def _check_labels(labels: NDArray[np.bool_], source: str | Path) -> None:
    """Refuse trials of one kind."""
    targets = int(labels.sum())
    if not 0 < targets < len(labels):
        found = f"{targets} target and {len(labels) - targets} non-target trials"
        raise TrialError(source, found, "at least one of each kind")


def check_dims(encoder: SpeakerEncoder, dims: Sequence[int] | None) -> tuple[int, ...]:
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
