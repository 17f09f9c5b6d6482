"""The error curve: how many errors of both kinds there are at every threshold that makes a difference.

All metrics are read from it. It is computed from counts at the distinct scores, so it is exact: no grid of thresholds,
and trials with the same score always fall on the same side. A trial is accepted (same speaker) when score >= threshold.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxnest.scoring.arrays import Floats, Ints, check_trials
from voxnest.scoring.calibration import bayes_threshold


@dataclass(frozen=True)
class ErrorCurve:
    """Errors at every threshold. Counts are whole numbers, of trials or of weights (see `CurveMaker`).

    Attributes:
        thresholds: [distinct scores + 1] ascending; the last is infinite: nothing is accepted.
        misses: [distinct scores + 1] targets rejected, from 0 to all.
        false_accepts: [distinct scores + 1] non-targets accepted, from all to 0.
    """

    thresholds: Floats
    misses: Ints
    false_accepts: Ints

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> ErrorCurve:
        """Count the errors of scores [trials] with labels [trials].

        Raises:
            TrialError: no trials, no target, no non-target, or scores that are not finite.
            ValueError: scores and labels differ in shape, or labels are not 0 and 1.
        """
        maker = CurveMaker(scores, labels)
        return maker.make(np.ones(len(maker.order), dtype=np.int64))

    @property
    def fnr(self) -> Floats:
        """False-negative rate at each threshold."""
        return self.misses / self.misses[-1]

    @property
    def fpr(self) -> Floats:
        """False-positive rate at each threshold."""
        return self.false_accepts / self.false_accepts[0]

    def eer(self) -> float:
        """Equal error rate, a fraction (see `compute_eer`)."""
        return self.equal_error()[0]

    def equal_error(self) -> tuple[float, int]:
        """Interpolate the equal error rate; give also the first point where misses are not the rarer error.

        The comparison is of whole numbers, so a crossing that is exact is seen as exact.
        """
        misses, false_accepts = self.misses, self.false_accepts
        targets, nontargets = misses[-1], false_accepts[0]
        after = bisect_left(
            range(len(misses)), True, key=lambda at: misses[at] * nontargets >= false_accepts[at] * targets
        )
        before = after - 1
        fnr, fpr = misses[[before, after]] / targets, false_accepts[[before, after]] / nontargets
        step = (fpr[0] - fnr[0]) / ((fpr[0] - fnr[0]) + (fnr[1] - fpr[1]))
        return float(fnr[0] + step * (fnr[1] - fnr[0])), after

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """Least normalised detection cost over all thresholds (see `compute_min_dcf`)."""
        return float(np.min(self._costs(slice(None), p_target, c_miss, c_fa)))

    def act_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
        """Normalised detection cost at the Bayes threshold of log-likelihood ratios (see `compute_act_dcf`)."""
        threshold = bayes_threshold(p_target, c_miss, c_fa)
        place = int(np.searchsorted(self.thresholds, threshold))
        return float(self._costs(slice(place, place + 1), p_target, c_miss, c_fa)[0])

    def cllr(self) -> float:
        """Cost of log-likelihood ratios, in bits (see `compute_cllr`)."""
        llrs = self.thresholds[:-1]
        return _bits(llrs, np.diff(self.misses), -np.diff(self.false_accepts))

    def min_cllr(self) -> float:
        """The same after the best rising map of the scores (see `compute_min_cllr`)."""
        targets, nontargets = _pool(np.diff(self.misses), -np.diff(self.false_accepts))
        with np.errstate(divide="ignore"):
            llrs = np.log(targets / targets.sum()) - np.log(nontargets / nontargets.sum())
        return _bits(llrs, targets, nontargets)

    def fnr_at_fpr(self, rate: float) -> float:
        """Lowest false-negative rate with a false-positive rate of `rate` at most."""
        return float(self.fnr[np.argmax(self.fpr <= rate)])

    def _costs(self, where: slice, p_target: float, c_miss: float, c_fa: float) -> Floats:
        bayes_threshold(p_target, c_miss, c_fa)  # refuses what is no prior and no cost
        missing, accepting = c_miss * p_target, c_fa * (1 - p_target)
        fnr, fpr = self.misses[where] / self.misses[-1], self.false_accepts[where] / self.false_accepts[0]
        return (missing * fnr + accepting * fpr) / min(missing, accepting)


class CurveMaker:
    """Makes the curves of the same scores with many weights of the trials; they are sorted once.

    Attributes:
        order: [trials] the trials by ascending score; weights are given in this order.

    Raises:
        TrialError: as `ErrorCurve.of`.
        ValueError: as `ErrorCurve.of`.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        values, targets = check_trials(scores, labels)
        self.order: Ints = np.argsort(values, kind="stable")
        values = values[self.order]
        self._targets = targets[self.order].astype(np.int64)
        self._starts = np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])
        self._thresholds = np.append(values[self._starts[:-1]], np.inf)

    def make(self, weights: Ints) -> ErrorCurve:
        """The curve with whole weights [trials], in `order`. With nothing of a kind it has no rates."""
        below, misses = (self._sum_below(values) for values in (weights, weights * self._targets))
        rejected = below - misses
        return ErrorCurve(self._thresholds, misses, rejected[-1] - rejected)

    def _sum_below(self, weights: Ints) -> Ints:
        sums = np.empty(len(weights) + 1, dtype=np.int64)
        sums[0] = 0
        np.cumsum(weights, out=sums[1:])
        return sums if len(sums) == len(self._starts) else sums[self._starts]


def _bits(llrs: Floats, targets: Ints, nontargets: Ints) -> float:
    """Mean over both kinds of the surprise at the truth, in bits; what has no weight may be infinite."""
    kinds = []
    for counts, signed in ((targets, -llrs), (nontargets, llrs)):
        some = counts > 0
        kinds.append(counts[some] @ np.logaddexp(0, signed[some]) / counts.sum())
    return float(sum(kinds) / np.log(4))


def _pool(targets: Ints, nontargets: Ints) -> tuple[Ints, Ints]:
    """Pool neighbours (ascending scores) until the share of targets rises: pool adjacent violators.

    Runs that do not rise are pooled at once before; one after the other then, for few are left.
    """
    some = targets + nontargets > 0
    targets, nontargets = targets[some], nontargets[some]
    rises = targets[:-1] * nontargets[1:] < targets[1:] * nontargets[:-1]
    starts = np.concatenate([[0], np.flatnonzero(rises) + 1])
    pooled: list[tuple[int, int]] = []
    for here in zip(
        np.add.reduceat(targets, starts).tolist(), np.add.reduceat(nontargets, starts).tolist(), strict=True
    ):
        while pooled and pooled[-1][0] * here[1] >= here[0] * pooled[-1][1]:
            before = pooled.pop()
            here = (before[0] + here[0], before[1] + here[1])
        pooled.append(here)
    array = np.array(pooled, dtype=np.int64)
    return array[:, 0], array[:, 1]
