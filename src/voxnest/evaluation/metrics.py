"""How well scores tell speakers apart, and how well log-likelihood ratios say so: numbers from the error curve."""

import numpy as np
from numpy.typing import ArrayLike

from voxnest.evaluation.curve import ErrorCurve
from voxnest.scoring.arrays import Floats, check_trials


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
    curve = ErrorCurve.of(scores, labels)
    eer, crossing = curve.equal_error()
    below, above = curve.thresholds[crossing - 1], curve.thresholds[crossing]
    if curve.misses[crossing] * curve.false_accepts[0] > curve.false_accepts[crossing] * curve.misses[-1]:
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
    return ErrorCurve.of(scores, labels).min_dcf(p_target, c_miss, c_fa)


def compute_act_dcf(
    llrs: ArrayLike,
    labels: ArrayLike,
    p_target: float = 0.01,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
) -> float:
    """Compute the actual detection cost, normalised: at the threshold that Bayes' rule gives for the prior and costs.

    Args:
        llrs: [trials] log-likelihood ratios (natural), such as calibrated scores. Others have no such threshold.
        labels: [trials], True or 1 for a target trial, False or 0 for a non-target.
        p_target: prior probability of a target trial, in (0, 1).
        c_miss: cost of rejecting a target.
        c_fa: cost of accepting a non-target.

    Returns:
        As `compute_min_dcf`, but it can be more than 1. The difference of the two is what calibration loses.

    Raises:
        TrialError: as `compute_min_dcf`.
        ValueError: as `compute_min_dcf`.
    """
    return ErrorCurve.of(llrs, labels).act_dcf(p_target, c_miss, c_fa)


def compute_cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Compute the cost of log-likelihood ratios, Cllr (Brümmer and du Preez 2006): over all priors and costs.

    Args:
        llrs: [trials] log-likelihood ratios (natural).
        labels: [trials], True or 1 for a target trial, False or 0 for a non-target.

    Returns:
        Bits: 0 is perfect, 1 is that of always answering "no idea" (zero), more misleads.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    return ErrorCurve.of(llrs, labels).cllr()


def compute_min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Compute Cllr after the best map that keeps the order of scores (isotonic regression): what calibration can reach.

    Args:
        scores: [trials], higher means more likely the same speaker.
        labels: [trials], True or 1 for a target trial, False or 0 for a non-target.

    Returns:
        Bits, from 0 to 1.

    Raises:
        TrialError: as `compute_cllr`.
        ValueError: as `compute_cllr`.
    """
    return ErrorCurve.of(scores, labels).min_cllr()


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
    curve = ErrorCurve.of(scores, labels)
    return curve.thresholds, curve.fnr, curve.fpr


def error_rates_at(scores: ArrayLike, labels: ArrayLike, threshold: float) -> tuple[float, float]:
    """Compute both error rates when every score >= threshold is accepted.

    Returns:
        False-negative rate (targets rejected) and false-positive rate (non-targets accepted), fractions.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    values, targets = check_trials(scores, labels)
    accepted = values >= threshold
    return float(np.mean(~accepted[targets])), float(np.mean(accepted[~targets]))
