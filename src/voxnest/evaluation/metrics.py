"""How well scores tell speakers apart: equal error rate, minimum detection cost, the error curve behind them.

Everything is computed from counts at the distinct scores, so it is exact: no grid of thresholds, and trials
with the same score always fall on the same side. A trial is accepted (same speaker) when score >= threshold.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxnest.errors import TrialError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def compute_eer(scores: ArrayLike, labels: ArrayLike) -> tuple[float, float]:
    """Compute the equal error rate: where the rates of rejected targets and of accepted non-targets meet.

    The two rates are steps, so they seldom meet: between the last threshold with fewer rejected targets and
    the first with more, both are interpolated linearly (as NIST's scorer and wespeaker do).

    Args:
        scores: [trials], higher means more likely the same speaker.
        labels: [trials], True or 1 for a target trial (same speaker), False or 0 for a non-target.

    Returns:
        The EER as a fraction in [0, 1], and a threshold: accepting every score >= threshold operates at the
        crossing. Where the rates meet exactly, in a gap between two scores, it is the middle of the gap.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    thresholds, misses, false_accepts = _error_counts(scores, labels)
    eer, crossing = _equal_error(misses, false_accepts)
    below, above = thresholds[crossing - 1], thresholds[crossing]
    if misses[crossing] * false_accepts[0] > false_accepts[crossing] * misses[-1]:
        return eer, float(below)
    middle = below + (above - below) / 2
    return eer, float(middle if middle > below else above)


def compute_min_dcf(
    scores: ArrayLike,
    labels: ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Compute the minimum of the detection cost over all thresholds, normalised (NIST SRE).

    Args:
        scores: [trials], higher means more likely the same speaker.
        labels: [trials], True or 1 for a target trial, False or 0 for a non-target.
        p_target: prior probability of a target trial, in (0, 1).
        c_miss: cost of rejecting a target.
        c_fa: cost of accepting a non-target.

    Returns:
        The cost divided by that of the better constant answer (always accept, always reject): 0 is perfect,
        1 is useless, never more than 1.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: a prior outside (0, 1), a cost that is not positive, or arrays as in `compute_eer`.
    """
    if not 0 < p_target < 1:
        raise ValueError(f"p_target is {p_target}: expected a probability between 0 and 1, exclusive")
    if not (c_miss > 0 and c_fa > 0):
        raise ValueError(f"the costs are {c_miss} and {c_fa}: expected positive numbers")
    _, fnr, fpr = error_rates(scores, labels)
    cost_of_missing, cost_of_accepting = c_miss * p_target, c_fa * (1 - p_target)
    cost = np.min(cost_of_missing * fnr + cost_of_accepting * fpr)
    return float(cost / min(cost_of_missing, cost_of_accepting))


def error_rates(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Compute both error rates at every threshold that makes a difference: the ROC and the DET curve.

    Returns:
        Three arrays [distinct scores + 1]: thresholds ascending (the last is infinite: nothing is accepted),
        false-negative rate (targets rejected, from 0 to 1), false-positive rate (non-targets accepted, from 1
        to 0).

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    thresholds, misses, false_accepts = _error_counts(scores, labels)
    return thresholds, misses / misses[-1], false_accepts / false_accepts[0]


def error_rates_at(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[float, float]:
    """Compute both error rates when every score >= threshold is accepted.

    Returns:
        False-negative rate (targets rejected) and false-positive rate (non-targets accepted), fractions.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    values, targets = _checked(scores, labels)
    accepted = values >= threshold
    return float(np.mean(~accepted[targets])), float(np.mean(accepted[~targets]))


def eer_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    enrollment_speakers: ArrayLike,
    test_speakers: ArrayLike,
    *,
    confidence: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute a confidence interval of the EER by drawing the speakers anew (bootstrap over speakers).

    Trials that share a speaker are not independent, so resampling trials gives intervals that are far too
    narrow; the speakers are what was sampled from the world. A speaker drawn k times counts as k speakers:
    its target trials weigh k, a non-target trial weighs the product for its two speakers (the bootstrap of
    vertices of a graph, Snijders and Borgatti 1999). Draws without a target or a non-target are left out.

    Args:
        scores: [trials].
        labels: [trials], True or 1 for a target trial.
        enrollment_speakers: [trials], who speaks in the enrollment recording (names or numbers).
        test_speakers: [trials], who speaks in the test recording.
        confidence: of the interval, in (0, 1).
        replicates: how many times the speakers are drawn.
        seed: the same seed gives the same interval.

    Returns:
        (low, high), fractions.

    Raises:
        TrialError: as `compute_eer`; or so few speakers that hardly any draw holds both kinds of trials.
        ValueError: arrays of different lengths, or a confidence outside (0, 1).
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: expected a number between 0 and 1, exclusive")
    rates = eer_replicates(scores, labels, enrollment_speakers, test_speakers, replicates=replicates, seed=seed)
    low, high = np.nanquantile(rates, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def eer_replicates(
    scores: ArrayLike,
    labels: ArrayLike,
    enrollment_speakers: ArrayLike,
    test_speakers: ArrayLike,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Floats:
    """Compute the EER for each of many draws of the speakers (see `eer_interval`); NaN for draws left out.

    With the same seed and trials the draws are the same, so replicates of two systems can be compared one by one: the
    quantiles of their ratio are a confidence interval of the ratio.

    Returns:
        [replicates], fractions.

    Raises:
        TrialError: as `eer_interval`.
    """
    values, targets = _checked(scores, labels)
    names, speakers = np.unique(np.stack([enrollment_speakers, test_speakers]), return_inverse=True)
    speakers = speakers.reshape(2, -1)
    if speakers.shape[1] != len(values):
        raise ValueError(f"{len(values)} scores, but {speakers.shape[1]} pairs of speakers")

    order = np.argsort(values)
    values, targets, (enrollment, test) = values[order], targets[order], speakers[:, order]
    same = enrollment == test
    starts = _starts(values)
    random = np.random.default_rng(seed)
    rates = np.full(replicates, np.nan)
    for replicate in range(replicates):
        drawn = random.multinomial(len(names), np.full(len(names), 1 / len(names)))
        weights = drawn[enrollment] * np.where(same, 1, drawn[test])
        misses, false_accepts = _cumulative(weights, targets, starts)
        if misses[-1] and false_accepts[0]:
            rates[replicate] = _equal_error(misses, false_accepts)[0]
    if np.isnan(rates).sum() > replicates / 2:
        raise TrialError(f"{len(names)} speakers", "too few for a confidence interval", "three or more")
    return rates


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Validate, and convert to float64 scores and bool labels."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(
            f"scores of shape {values.shape} and labels of shape {truth.shape}: expected one each per trial"
        )
    if not len(values):
        raise TrialError("scores", "no trials", "at least one target and one non-target trial")
    targets = truth.astype(bool)
    if truth.dtype != bool and not np.array_equal(targets, truth):
        raise ValueError(f"labels hold {truth[targets != truth][0]!r}: expected True or 1 (target), False or 0")
    unusable = np.count_nonzero(~np.isfinite(values))
    if unusable:
        raise TrialError("scores", f"{unusable} of {len(values)} are NaN or infinite", "finite numbers")
    if targets.all() or not targets.any():
        found = "only target trials" if targets.all() else "only non-target trials"
        raise TrialError("labels", f"{found} ({len(values)})", "at least one of each kind")
    return values, targets


def _error_counts(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints, Ints]:
    """Count rejected targets and accepted non-targets with each distinct score as threshold, and infinity."""
    values, targets = _checked(scores, labels)
    order = np.argsort(values)
    values, targets = values[order], targets[order]
    starts = _starts(values)
    misses, false_accepts = _cumulative(np.ones(len(values), dtype=np.int64), targets, starts)
    return np.append(values[starts[:-1]], np.inf), misses, false_accepts


def _starts(values: Floats) -> Ints:
    """Where each distinct value begins in ascending values, and their number as the end."""
    return np.concatenate([[0], np.flatnonzero(np.diff(values)) + 1, [len(values)]])


def _cumulative(weights: Ints, targets: NDArray[np.bool_], starts: Ints) -> tuple[Ints, Ints]:
    """Sum the weights of targets before each start, and of non-targets from it on."""
    below = np.concatenate([[0], np.cumsum(weights)])[starts]
    misses = np.concatenate([[0], np.cumsum(weights * targets)])[starts]
    rejected = below - misses
    return misses, rejected[-1] - rejected


def _equal_error(misses: Ints, false_accepts: Ints) -> tuple[float, int]:
    """Interpolate the equal error rate; give also the first point where misses are not the rarer error.

    The comparison is of whole numbers, so a crossing that is exact is seen as exact.
    """
    targets, nontargets = misses[-1], false_accepts[0]
    after = int(np.argmax(misses * nontargets >= false_accepts * targets))
    before = after - 1
    fnr, fpr = misses[[before, after]] / targets, false_accepts[[before, after]] / nontargets
    step = (fpr[0] - fnr[0]) / ((fpr[0] - fnr[0]) + (fnr[1] - fpr[1]))
    return float(fnr[0] + step * (fnr[1] - fnr[0])), after
