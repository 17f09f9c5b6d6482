"""Several systems' scores made one: linear logistic fusion."""

from collections.abc import Mapping

from numpy.typing import ArrayLike

from voxnest.scoring.logistic import LinearLLR, fit_logistic


def fit_fusion(systems: Mapping[str, ArrayLike], labels: ArrayLike, prior: float = 0.5) -> LinearLLR:
    """Fit the weighted sum of several systems' scores that is the best log-likelihood ratio (Brümmer et al. 2007).

    The result is calibrated; quality measures can be given as if they were systems.

    Args:
        systems: name -> scores [trials] of the same trials.
        labels: [trials], True or 1 for a target trial.
        prior: probability of a target trial for which the cost shall be least.

    Returns:
        A function of scores by the same names.

    Raises:
        TrialError: one kind of trials only, or scores that are not finite; it names the system.
        ValueError: no systems, arrays of different lengths, or a prior outside (0, 1).

    Examples:
        >>> fusion = fit_fusion({"b2": b2_scores, "ecapa": ecapa_scores}, labels)
        >>> llrs = fusion({"b2": new_b2_scores, "ecapa": new_ecapa_scores})
    """
    return fit_logistic(systems, labels, prior)
