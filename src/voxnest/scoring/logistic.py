"""Logistic regression from scores to log-likelihood ratios: the machinery of calibration and fusion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from voxnest.errors import CheckpointError, TrialError
from voxnest.scoring.arrays import Floats, check_trials

PRIOR_DEVIATION = 10.0  # of the weights of standardised inputs: finite ones even where the kinds can be separated
MOST_STEPS = 100


@dataclass(frozen=True)
class LinearLLR:
    """A log-likelihood ratio (natural logarithm) that is a weighted sum of inputs, and an offset.

    Attributes:
        weights: name of each input -> weight.
        offset: added to the sum.
        prior: probability of a target trial that it was fitted for.
        targets: number of target trials that it was fitted on.
        nontargets: number of non-target trials.
    """

    weights: dict[str, float]
    offset: float
    prior: float
    targets: int
    nontargets: int

    def __call__(self, inputs: Mapping[str, ArrayLike]) -> Floats:
        """Compute the log-likelihood ratios [trials] of inputs: the same names as `weights`, [trials] numbers each.

        Raises:
            ValueError: other inputs than it was fitted on.
        """
        if set(inputs) != set(self.weights):
            raise ValueError(f"inputs {', '.join(sorted(inputs))}: expected {', '.join(sorted(self.weights))}")
        terms = [weight * np.asarray(inputs[name], dtype=np.float64) for name, weight in self.weights.items()]
        return np.sum(terms, axis=0) + self.offset

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> LinearLLR:
        """Take what `to_dict` gave.

        Raises:
            CheckpointError: anything else.
        """
        names = [field.name for field in fields(cls)]
        try:
            weights = {str(name): float(weight) for name, weight in values["weights"].items()}
            counts = int(values["targets"]), int(values["nontargets"])
            found = cls(weights, float(values["offset"]), float(values["prior"]), *counts)
            if not (weights and np.isfinite([*weights.values(), found.offset]).all() and 0 < found.prior < 1):
                raise ValueError
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError("calibration", f"{values!r:.80}", f"finite numbers for {', '.join(names)}") from error
        return found


def fit_logistic(inputs: Mapping[str, ArrayLike], labels: ArrayLike, prior: float = 0.5) -> LinearLLR:
    """Fit a log-likelihood ratio by prior-weighted logistic regression, as BOSARIS and FoCal do.

    Targets and non-targets are weighted to make up `prior` and 1 - `prior` of the whole, whatever their numbers. The
    weights of inputs (scaled to deviation one) are drawn to zero by a wide normal prior, as much as one more trial.

    Args:
        inputs: name -> [trials] numbers: scores, quality measures.
        labels: [trials], True or 1 for a target trial.
        prior: probability of a target trial for which the cost shall be least, in (0, 1).

    Raises:
        TrialError: one kind of trials only, or inputs that are not finite.
        ValueError: no inputs, arrays of different lengths, or a prior outside (0, 1).
    """
    if not inputs or not 0 < prior < 1:
        raise ValueError(f"inputs {list(inputs)}, prior {prior}: expected one or more, and a number between 0 and 1")
    columns = []
    for name, values in inputs.items():
        try:
            column, targets = check_trials(values, labels)
        except TrialError as error:
            raise TrialError(
                name if error.subject == "scores" else error.subject, error.found, error.expected
            ) from None
        columns.append(column)
    matrix = np.stack(columns, axis=1)
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    scale[scale <= 1e-12 * np.abs(mean)] = 1  # a constant says nothing: the offset takes it
    standard = np.column_stack([(matrix - mean) / scale, np.ones(len(matrix))])
    counts = int(targets.sum()), int(len(targets) - targets.sum())
    share = np.where(targets, prior / counts[0], (1 - prior) / counts[1])
    penalty = np.append(np.full(len(columns), 1 / (PRIOR_DEVIATION**2 * min(counts))), 0)
    solution = _minimise(standard, np.where(targets, 1.0, -1.0), share, math.log(prior / (1 - prior)), penalty)
    weights = solution[:-1] / scale
    offset = float(solution[-1] - weights @ mean)
    return LinearLLR(dict(zip(inputs, weights.tolist(), strict=True)), offset, prior, *counts)


def _minimise(matrix: Floats, signs: Floats, share: Floats, shift: float, penalty: Floats) -> Floats:
    """Newton's method with halved steps; the objective is convex."""

    def cost(weights: Floats) -> float:
        losses = np.logaddexp(0, -signs * (matrix @ weights + shift))
        return float(share @ losses + 0.5 * penalty @ weights**2)

    weights = np.zeros(matrix.shape[1])
    lowest = cost(weights)
    for _ in range(MOST_STEPS):
        chances = 0.5 * (1 - np.tanh(0.5 * signs * (matrix @ weights + shift)))  # of the wrong answer, without overflow
        gradient = matrix.T @ (-share * signs * chances) + penalty * weights
        curvature = matrix.T @ (matrix * (share * chances * (1 - chances))[:, None]) + np.diag(penalty)
        step = np.linalg.lstsq(curvature, gradient, rcond=None)[0]
        size = 1.0
        while (found := cost(weights - size * step)) > lowest and size > 1e-9:
            size /= 2
        if lowest - found <= 1e-14 * (1 + lowest):
            break
        weights, lowest = weights - size * step, found
    return weights
