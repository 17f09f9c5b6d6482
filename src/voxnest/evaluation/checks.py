"""What makes the figures of an evaluation doubtful, though they can be computed: each in one line, as a warning."""

from collections.abc import Mapping

import numpy as np

from voxnest.corpora.trials import IndexedTrials, find_speakers
from voxnest.evaluation.report import UNKNOWN_SIZE

LEAST_TRIALS = 30
"""Of each kind. To know an error rate to within a third takes thirty errors (Doddington's rule)."""
LEAST_SPEAKERS = 10


def check_trials(given: IndexedTrials, indexed: IndexedTrials) -> list[str]:
    """Warn of trials that contradict or repeat others, of recordings compared with themselves, and of too few.

    A pair in the other order is the same pair.

    Args:
        given: as they were read; a warning shows the first that is meant.
        indexed: the same ones, with each recording under one name (see `locate_recordings`).
    """
    labels = indexed.labels
    low, high = np.minimum(indexed.enrollment, indexed.test), np.maximum(indexed.enrollment, indexed.test)
    _, first, pair, counts = np.unique(
        low * len(indexed.names) + high, return_index=True, return_inverse=True, return_counts=True
    )
    targets = np.bincount(pair, weights=labels)
    contradictory = (targets > 0) & (targets < counts)
    repeats = counts - 1 - contradictory
    itself = low == high

    def shown(position: int) -> str:
        text = f"{given.names[given.enrollment[position]]} {given.names[given.test[position]]}"
        return repr(text if len(text) <= 160 else f"{text[:160]}...")

    warnings = []
    if contradictory.any():
        pairs = _count(contradictory.sum(), "pair")
        warnings.append(f"{pairs} given both as target and as non-target, first {shown(first[contradictory].min())}")
    if repeats.any():
        again = _count(repeats.sum(), "trial")
        warnings.append(f"{again} of a pair given before, first {shown(first[repeats > 0].min())}")
    if itself.any():
        kinds = f"{(itself & labels).sum():,} target and {(itself & ~labels).sum():,} non-target"
        warnings.append(
            f"{_count(itself.sum(), 'trial')} of a recording with itself ({kinds}), first {shown(itself.argmax())}: "
            "its score is 1 whatever the model"
        )
    return warnings + _check_numbers(indexed)


def check_rates(eers: Mapping[int, float]) -> list[str]:
    """Warn of equal error rates {prefix size: fraction} that are worse than chance."""
    worse = [dim for dim, eer in eers.items() if eer > 0.5]
    if not worse:
        return []
    sizes = "" if worse == [UNKNOWN_SIZE] else f" (dimension {', '.join(map(str, worse))})"
    return [
        f"EER above 50%{sizes}: the labels look inverted (1 and target mean the same speaker), "
        "or the model is no better than chance"
    ]


def _check_numbers(indexed: IndexedTrials) -> list[str]:
    """Warn of too few trials or speakers."""
    warnings = []
    targets = int(indexed.labels.sum())
    for number, kind in ((targets, "target trial"), (len(indexed.labels) - targets, "non-target trial")):
        if number < LEAST_TRIALS:
            warnings.append(f"{_count(number, kind)}: with fewer than {LEAST_TRIALS} an error rate says little")
    speakers = len(np.unique(find_speakers(indexed)[indexed.enrollment[indexed.labels]]))
    if speakers < LEAST_SPEAKERS:
        text = f"target trials of {_count(speakers, 'speaker')}: with fewer than {LEAST_SPEAKERS}"
        warnings.append(f"{text} an error rate says little of others")
    return warnings


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
