"""Metrics by group of trials: bands of duration, gender, language, or any other column of a manifest."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxnest.corpora.trials import IndexedTrials
from voxnest.evaluation.bootstrap import Metric
from voxnest.evaluation.curve import ErrorCurve
from voxnest.scoring.arrays import check_trials

SEPARATOR = " / "


@dataclass(frozen=True)
class Group:
    """The trials that have the same value of a column.

    Attributes:
        name: the value.
        targets: number of target trials.
        nontargets: number of non-target trials.
        value: the metric; None where there are no targets, or no non-targets.
    """

    name: str
    targets: int
    nontargets: int
    value: float | None


def breakdown(scores: ArrayLike, labels: ArrayLike, groups: ArrayLike, metric: Metric = ErrorCurve.eer) -> list[Group]:
    """Measure each group of trials by itself.

    Args:
        scores: [trials].
        labels: [trials], True or 1 for a target trial.
        groups: [trials] of which group each is (see `pair_groups`).
        metric: what a curve of errors is worth.

    Returns:
        Groups by descending number of trials.

    Raises:
        TrialError: as `compute_eer`, of all trials together.
        ValueError: arrays of different lengths.
    """
    values, targets = check_trials(scores, labels)
    names, index, counts = np.unique(np.asarray(groups).astype(str), return_inverse=True, return_counts=True)
    if index.shape != values.shape:
        raise ValueError(f"{len(values)} scores, but groups of shape {np.shape(groups)}")
    found = []
    for place in np.argsort(-counts, kind="stable"):
        chosen = index == place
        kind = targets[chosen]
        both = kind.any() and not kind.all()
        value = metric(ErrorCurve.of(values[chosen], kind)) if both else None
        found.append(Group(str(names[place]), int(kind.sum()), int((~kind).sum()), value))
    return found


def pair_groups(values: ArrayLike, trials: IndexedTrials) -> NDArray[np.str_]:
    """Name the group of each trial after its two recordings: "f", or "f / m" in whichever order.

    Args:
        values: [recordings] of `trials.names`: text, such as gender or what `bands` gives.
        trials: what was compared.

    Returns:
        [trials].
    """
    names, index = np.unique(np.asarray(values).astype(str), return_inverse=True)
    sides = np.sort(index[np.stack([trials.enrollment, trials.test])], axis=0)
    pairs, inverse = np.unique(sides, axis=1, return_inverse=True)
    texts = [names[a] if a == b else f"{names[a]}{SEPARATOR}{names[b]}" for a, b in pairs.T]
    return np.array(texts)[inverse.reshape(-1)]


def bands(values: ArrayLike, edges: Sequence[float], unit: str = "s") -> NDArray[np.str_]:
    """Name the band of each value: with edges 2 and 4 "under 2 s", "2-4 s" (2 is in it, 4 is not), "from 4 s".

    Args:
        values: [recordings] numbers, such as durations.
        edges: ascending.
        unit: what they are in.

    Raises:
        ValueError: no edges, or not ascending.
    """
    if not len(edges) or np.any(np.diff(edges) <= 0):
        raise ValueError(f"edges are {list(edges)}: expected ascending numbers")
    inner = [f"{low:g}-{high:g} {unit}" for low, high in pairwise(edges)]
    names = np.array([f"under {edges[0]:g} {unit}", *inner, f"from {edges[-1]:g} {unit}"])
    return names[np.searchsorted(edges, np.asarray(values, dtype=np.float64), side="right")]
