"""How sure a metric is: intervals by drawing the speakers anew, of one system and of the difference of two.

Trials that share a speaker are not independent, so resampling trials gives intervals that are far too narrow; the
speakers are what was sampled from the world. A speaker drawn k times counts as k speakers: its target trials weigh k, a
non-target trial weighs the product for its two speakers (the bootstrap of vertices of a graph, Snijders and Borgatti
1999). Draws without a target or a non-target are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxnest.errors import TrialError
from voxnest.evaluation.curve import CurveMaker, ErrorCurve
from voxnest.scoring.arrays import Floats, each_block

Metric = Callable[[ErrorCurve], float]


@dataclass(frozen=True)
class Difference:
    """How much two systems differ on the same trials.

    Attributes:
        value: metric of the first minus that of the second.
        low: lower end of its interval.
        high: upper end; if zero is outside, the difference is more than chance.
    """

    value: float
    low: float
    high: float


def metric_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    enrollment_speakers: ArrayLike,
    test_speakers: ArrayLike,
    metric: Metric = ErrorCurve.eer,
    *,
    confidence: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Compute a confidence interval of a metric by drawing the speakers anew (bootstrap over speakers).

    Args:
        scores: [trials].
        labels: [trials], True or 1 for a target trial.
        enrollment_speakers: [trials], who speaks in the enrollment recording (names or numbers).
        test_speakers: [trials], who speaks in the test recording.
        metric: what a curve of errors is worth, such as `ErrorCurve.cllr` or `lambda curve: curve.min_dcf(0.05)`.
        confidence: of the interval, in (0, 1).
        replicates: how many times the speakers are drawn.
        seed: the same seed gives the same interval.

    Returns:
        (low, high).

    Raises:
        TrialError: as `compute_eer`; or so few speakers that hardly any draw holds both kinds of trials.
        ValueError: arrays of different lengths, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    found = metric_replicates(
        scores, labels, enrollment_speakers, test_speakers, metric, replicates=replicates, seed=seed
    )
    return _interval(found, confidence)


def metric_difference(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    enrollment_speakers: ArrayLike,
    test_speakers: ArrayLike,
    metric: Metric = ErrorCurve.eer,
    *,
    confidence: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> Difference:
    """Compare two systems on the same trials by a paired bootstrap: both are measured with the same draws of speakers.

    Args:
        first: [trials] scores of one system.
        second: [trials] scores of the other.
        labels: the rest is as in `metric_interval`.

    Raises:
        TrialError: as `metric_interval`.
        ValueError: as `metric_interval`.
    """
    _check_confidence(confidence)
    values, draws = [], []
    for scores in (first, second):
        values.append(metric(ErrorCurve.of(scores, labels)))
        draws.append(
            metric_replicates(
                scores, labels, enrollment_speakers, test_speakers, metric, replicates=replicates, seed=seed
            )
        )
    return Difference(values[0] - values[1], *_interval(draws[0] - draws[1], confidence))


def metric_replicates(
    scores: ArrayLike,
    labels: ArrayLike,
    enrollment_speakers: ArrayLike,
    test_speakers: ArrayLike,
    metric: Metric = ErrorCurve.eer,
    *,
    replicates: int = 1000,
    seed: int = 0,
) -> Floats:
    """Compute a metric for each of many draws of the speakers (see `metric_interval`); NaN for draws left out.

    With the same seed and trials the draws are the same, so replicates of two systems can be compared one by one: the
    quantiles of their ratio are a confidence interval of the ratio.

    Returns:
        [replicates].

    Raises:
        TrialError: as `metric_interval`.
    """
    maker = CurveMaker(scores, labels)
    names, speakers = np.unique(np.stack([enrollment_speakers, test_speakers]), return_inverse=True)
    speakers = speakers.reshape(2, -1)
    if speakers.shape[1] != len(maker.order):
        raise ValueError(f"{len(maker.order)} scores, but {speakers.shape[1]} pairs of speakers")
    # Within a speaker the second factor is one: that of nobody, who comes after all speakers.
    enrollment, test = speakers[0], np.where(speakers[0] == speakers[1], len(names), speakers[1])
    enrollment, test = enrollment[maker.order], test[maker.order]
    chances = np.full(len(names), 1 / len(names))
    drawn = np.random.default_rng(seed).multinomial(len(names), chances, size=replicates)
    found = np.full(replicates, np.nan)

    def compute(block: slice) -> None:
        for replicate in range(block.start, block.stop):
            times = np.append(drawn[replicate], 1)
            curve = maker.make(times.take(enrollment) * times.take(test))
            if curve.misses[-1] and curve.false_accepts[0]:
                found[replicate] = metric(curve)

    each_block(compute, replicates, 10)
    if np.isnan(found).sum() > replicates / 2:
        raise TrialError(f"{len(names)} speakers", "too few for a confidence interval", "three or more")
    return found


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: expected a number between 0 and 1, exclusive")


def _interval(values: Floats, confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
