"""Evaluate an encoder on trials: embed each recording once, score every prefix size, measure the errors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxnest.corpora.trials import (
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
from voxnest.evaluation.report import DimensionResult, EvaluationReport, OperatingPoint
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
    sizes = _check_dims(encoder, dims)
    if isinstance(trials, str | Path):
        source, listed = Path(trials), read_trials(trials)
    else:
        source, listed = None, list(trials)
    indexed = index_trials(listed)
    targets = int(indexed.labels.sum())
    nontargets = len(listed) - targets
    if not (targets and nontargets):
        found = f"{targets} target and {nontargets} non-target trials"
        raise TrialError(source or "trials", found, "at least one of each kind")
    if root is None:
        root = find_root(source, listed) if source is not None else Path()
    check_recordings(listed, root, source)
    indexed = locate_recordings(indexed, root)
    warnings = check_trials(listed, indexed)

    start = time.perf_counter()
    embeddings = embed_files(encoder, indexed.names, progress=progress, window=window)
    seconds = time.perf_counter() - start
    scores = score_indexed(np.stack([embeddings[name] for name in indexed.names]), indexed, sizes)
    speakers = find_speakers(indexed)
    sides = speakers[indexed.enrollment], speakers[indexed.test]
    results = {}
    for dim in sizes:
        eer, threshold = compute_eer(scores[dim], indexed.labels)
        costs = {prior: compute_min_dcf(scores[dim], indexed.labels, prior) for prior in PRIORS}
        own = encoder.thresholds.get(dim)
        used = DEFAULT_THRESHOLD if own is None else own
        rejects, accepts = error_rates_at(scores[dim], indexed.labels, used)
        verify = OperatingPoint(used, own is not None, accepts, rejects)
        limits = metric_interval(scores[dim], indexed.labels, *sides) if interval else None
        results[dim] = DimensionResult(eer, threshold, costs, verify, limits)
    return EvaluationReport(
        model=encoder.name,
        trials=str(source) if source is not None else None,
        targets=targets,
        nontargets=nontargets,
        recordings=len(embeddings),
        audio_seconds=sum(embeddings.seconds.values()),
        embedding_seconds=seconds,
        dims=results,
        warnings=warnings + check_rates({dim: result.eer for dim, result in results.items()}),
        labels=indexed.labels,
        scores=scores,
    )


def _check_dims(encoder: SpeakerEncoder, dims: Sequence[int] | None) -> tuple[int, ...]:
    """Give the prefix sizes asked for, ascending and once each."""
    if not dims:
        return encoder.dims
    unknown = sorted(set(dims) - set(encoder.dims))
    if unknown:
        expected = f"one of {', '.join(map(str, encoder.dims))}"
        raise ConfigError(encoder.name, f"has no embedding of dimension {unknown[0]}", expected)
    return tuple(sorted(set(dims)))
