"""What a score means: log-likelihood ratios, probabilities, and thresholds with the count of trials behind them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import TrialError
from voxnest.scoring.arrays import Floats
from voxnest.scoring.logistic import LinearLLR, fit_logistic

SCORE = "score"
FEW_ERRORS = 30
"""To know an error rate to within a third takes thirty errors (Doddington's rule)."""


def fit_calibration(
    scores: ArrayLike, labels: ArrayLike, measures: Mapping[str, ArrayLike] | None = None, prior: float = 0.5
) -> LinearLLR:
    """Fit the map from scores, and quality measures if there are, to log-likelihood ratios.

    Args:
        scores: [trials].
        labels: [trials], True or 1 for a target trial.
        measures: name -> [trials], such as the logarithm of the shorter duration (see `pair_measures`).
        prior: probability of a target trial for which the cost shall be least.

    Returns:
        A function of `{"score": scores, **measures}`, to be kept as JSON by `to_dict`.

    Raises:
        TrialError: one kind of trials only, or numbers that are not finite.
        ValueError: arrays of different lengths, or a prior outside (0, 1).

    Examples:
        >>> calibration = fit_calibration(scores, labels)
        >>> calibration({"score": [0.43]})
        array([2.1])
    """
    return fit_logistic({SCORE: scores, **(measures or {})}, labels, prior)


def pair_measures(name: str, values: ArrayLike, trials: IndexedTrials) -> dict[str, Floats]:
    """Make measures of trials out of one of recordings: the lower and the higher of the two, whatever their order.

    Args:
        name: of the measure, such as "log_duration", "norm" or "cohort_mean".
        values: [recordings], of `trials.names`.
        trials: what was compared.

    Returns:
        `{NAME_low: [trials], NAME_high: [trials]}`.
    """
    sides = np.asarray(values, dtype=np.float64)[np.stack([trials.enrollment, trials.test])]
    return {f"{name}_low": sides.min(axis=0), f"{name}_high": sides.max(axis=0)}


def bayes_threshold(p_target: float, c_miss: float = 1.0, c_fa: float = 1.0) -> float:
    """Give the log-likelihood ratio from which on accepting costs less than rejecting.

    Args:
        p_target: prior probability of a target trial, in (0, 1).
        c_miss: cost of rejecting a target.
        c_fa: cost of accepting a non-target.

    Raises:
        ValueError: a prior outside (0, 1), or a cost that is not positive.
    """
    if not 0 < p_target < 1:
        raise ValueError(f"p_target is {p_target}: expected a probability between 0 and 1, exclusive")
    if not (0 < c_miss < math.inf and 0 < c_fa < math.inf):
        raise ValueError(f"the costs are {c_miss} and {c_fa}: expected positive numbers")
    return math.log(c_fa / c_miss) - math.log(p_target / (1 - p_target))


def probability(llr: ArrayLike, p_target: float) -> Floats:
    """Give the probability of a target trial after a log-likelihood ratio, with a prior probability in (0, 1)."""
    return 0.5 * (1 + np.tanh(0.5 * (np.asarray(llr, dtype=np.float64) - bayes_threshold(p_target))))


@dataclass(frozen=True)
class FalseAcceptThreshold:
    """A threshold for a wanted rate of false accepts.

    Attributes:
        threshold: scores >= this are accepted.
        rate: the wanted rate, a fraction.
        nontargets: number of non-target trials that it was learnt from.
        accepted: how many of them it accepts.
    """

    threshold: float
    rate: float
    nontargets: int
    accepted: int

    def __str__(self) -> str:
        text = f"accepts {self.accepted} of {self.nontargets:,} non-target trials"
        return text if self.accepted >= FEW_ERRORS else f"{text}: with fewer than {FEW_ERRORS} a rough estimate"


@dataclass(frozen=True)
class TooFewTrials:
    """There is no threshold for the wanted rate of false accepts: with so few trials none could be vouched for.

    Attributes:
        rate: the wanted rate, a fraction.
        nontargets: number of non-target trials.
        needed: the fewest that would do.
    """

    rate: float
    nontargets: int
    needed: int

    def __str__(self) -> str:
        few = f"{self.nontargets:,} non-target trials are too few for a false-accept rate of {self.rate:g}"
        return f"{few}: it takes {self.needed:,}"


def false_accept_threshold(scores: ArrayLike, rate: float) -> FalseAcceptThreshold | TooFewTrials:
    """Find the lowest threshold that accepts a new non-target trial with a probability of `rate` at most.

    That is the conformal bound (Vovk et al. 2005): of n trials and a new one, all exchangeable, the new one is above
    the k-th highest of the others with a probability of k / (n + 1) at most, whatever the scores' distribution. Trials
    of other speakers, rooms or microphones are not exchangeable with these.

    Args:
        scores: [trials] of non-target trials alone; calibrated or not.
        rate: wanted rate of false accepts, in (0, 1).

    Raises:
        TrialError: no scores, or some that are not finite.
        ValueError: a rate outside (0, 1).
    """
    values = np.asarray(scores, dtype=np.float64).reshape(-1)
    if not len(values) or not np.isfinite(values).all():
        found = f"{np.count_nonzero(~np.isfinite(values))} of {len(values)} are NaN or infinite"
        raise TrialError("scores", found if len(values) else "no trials", "finite scores of non-target trials")
    allowed = allowed_false_accepts(len(values), rate)
    if not isinstance(allowed, int):
        return allowed
    highest = np.partition(values, len(values) - allowed)[len(values) - allowed]
    accepted = int(np.count_nonzero(values > highest))
    return FalseAcceptThreshold(float(np.nextafter(highest, np.inf)), rate, len(values), accepted)


def allowed_false_accepts(nontargets: int, rate: float) -> int | TooFewTrials:
    """Tell which rank, from the highest, the non-target trial has whose score is the bound of `rate`.

    Raises:
        ValueError: a rate outside (0, 1).
    """
    if not 0 < rate < 1:
        raise ValueError(f"the rate of false accepts is {rate}: expected a number between 0 and 1, exclusive")
    allowed = math.floor(rate * (nontargets + 1) * (1 + 1e-12))  # 0.01 x 100 is one
    return allowed or TooFewTrials(rate, nontargets, math.ceil(1 / rate * (1 - 1e-12)) - 1)
