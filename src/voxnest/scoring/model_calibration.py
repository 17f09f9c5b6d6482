"""The calibration that a model carries, for one size of its embeddings: evidence, and thresholds for false accepts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import CheckpointError, ConfigError
from voxnest.scoring.arrays import Array, Floats, row_norms, unit_rows
from voxnest.scoring.calibration import (
    SCORE,
    FalseAcceptThreshold,
    TooFewTrials,
    allowed_false_accepts,
    fit_calibration,
    pair_measures,
)
from voxnest.scoring.logistic import LinearLLR

MEASURES = ("duration", "norm", "cohort")
"""Quality measures of a recording: logarithm of its seconds, length of its embedding, mean cosine to a cohort."""
RANK_STEP = 1.02  # ratio of the ranks that are kept: a threshold accepts at most 2% fewer than it might
DECIMALS = 4  # of the log-likelihood ratios that are kept
SEEN = (0.01, 0.99)  # quantiles of a measure over the trials of a fit, beyond which nothing is known of its worth


@dataclass(frozen=True)
class Calibration:
    """What the cosine scores of one size of embedding mean.

    Attributes:
        llr: from scores, and measures if there are, to log-likelihood ratios.
        highest: (rank, log-likelihood ratio) of non-target trials that it was fitted on, from the highest, which has
            rank one; of many trials not every rank.
        centre: [dim], mean of the cohort's embeddings scaled to length one, if the cohort is a measure.
        ranges: (least, largest) value of each measure that it was fitted on, without the outermost: a measure beyond
            counts as the nearest of these. Fitted on words of a second, a weight of durations says nothing of minutes.
    """

    llr: LinearLLR
    highest: tuple[tuple[int, float], ...]
    centre: tuple[float, ...] | None = None
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        scores: ArrayLike,
        trials: IndexedTrials,
        matrix: Array,
        seconds: ArrayLike,
        measures: Sequence[str] = (),
        cohort: ArrayLike | None = None,
    ) -> Calibration:
        """Fit the calibration of one size.

        Args:
            scores: [trials] cosine similarities.
            trials: what was compared.
            matrix: [recordings, dim] embeddings of `trials.names`.
            seconds: [recordings] their durations.
            measures: of `MEASURES`.
            cohort: [cohort, dim] embeddings of other speakers, for the measure "cohort".

        Raises:
            ConfigError: an unknown measure, or "cohort" without one.
            TrialError: one kind of trials only, or numbers that are not finite.
        """
        unknown = [name for name in measures if name not in MEASURES]
        if unknown:
            raise ConfigError("measures", repr(unknown[0]), f"some of {', '.join(MEASURES)}")
        centre = None
        if "cohort" in measures:
            if cohort is None:
                raise ConfigError("measures", "cohort, without one", "the embeddings of a cohort")
            centre = tuple(unit_rows(cohort).mean(axis=0, dtype=np.float64).tolist())
        inputs = _measure(measures, matrix, seconds, trials, centre)
        quantiles = {name: np.quantile(values, SEEN).tolist() for name, values in inputs.items()}
        ranges = {name: (low, high) for name, (low, high) in quantiles.items()}
        inputs = _clipped(inputs, ranges)
        llr = fit_calibration(scores, trials.labels, inputs)
        ordered = np.sort(llr({SCORE: scores, **inputs})[~trials.labels])[::-1]
        kept = [(rank, _upwards(ordered[rank - 1])) for rank in _ranks(len(ordered))]
        return cls(llr, tuple(kept), centre, ranges)

    @property
    def measures(self) -> tuple[str, ...]:
        """Which of `MEASURES` it needs of the recordings."""
        return tuple(name for name in MEASURES if f"{name}_low" in self.llr.weights)

    def llrs(self, scores: ArrayLike, trials: IndexedTrials, matrix: Array, seconds: ArrayLike) -> Floats:
        """Compute log-likelihood ratios [trials] (natural); arguments as of `fit`."""
        inputs = _measure(self.measures, matrix, seconds, trials, self.centre)
        return self.llr({SCORE: scores, **_clipped(inputs, self.ranges)})

    def false_accepts(self, rate: float) -> FalseAcceptThreshold | TooFewTrials:
        """Find the least log-likelihood ratio for a wanted rate of false accepts (see `false_accept_threshold`).

        Raises:
            ValueError: a rate outside (0, 1).
        """
        allowed = allowed_false_accepts(self.llr.nontargets, rate)
        if not isinstance(allowed, int):
            return allowed
        rank, llr = max(pair for pair in self.highest if pair[0] <= allowed)
        return FalseAcceptThreshold(math.nextafter(llr, math.inf), rate, self.llr.nontargets, rank - 1)

    def to_dict(self) -> dict[str, Any]:
        """Give plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any, dim: int) -> Calibration:
        """Take what `to_dict` gave, of embeddings of `dim` numbers.

        Raises:
            CheckpointError: anything else.
        """
        if not isinstance(values, Mapping) or set(values) != {"llr", "highest", "centre", "ranges"}:
            raise CheckpointError("calibration", f"{values!r:.80}", "llr, highest, centre and ranges")
        llr = LinearLLR.from_dict(values["llr"])
        try:
            highest = tuple((int(rank), float(value)) for rank, value in values["highest"])
            centre = None if values["centre"] is None else tuple(map(float, values["centre"]))
            ranges = {str(name): (float(low), float(high)) for name, (low, high) in values["ranges"].items()}
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise CheckpointError("calibration", f"{error}", "pairs of rank and number, and numbers") from error
        found = cls(llr, highest, centre, ranges)
        inputs = {f"{name}_{side}" for name in found.measures for side in ("low", "high")}
        ranks = [rank for rank, _ in highest]
        numbers = (
            [value for _, value in highest] + list(centre or ()) + [end for ends in ranges.values() for end in ends]
        )
        ascending = ranks[:1] == [1] and all(a < b for a, b in itertools.pairwise(ranks))
        fits = len(centre or ()) == (dim if "cohort" in found.measures else 0)
        fits &= set(llr.weights) == {SCORE, *inputs} and set(ranges) == inputs
        if not ascending or not np.isfinite(numbers).all() or not fits:
            found_text = f"inputs {', '.join(llr.weights)}, {len(ranks)} ranks, a centre of {len(centre or ())} numbers"
            raise CheckpointError("calibration", found_text, f"finite numbers that fit embeddings of {dim} numbers")
        return found


def _measure(
    kinds: Sequence[str], matrix: Array, seconds: ArrayLike, trials: IndexedTrials, centre: ArrayLike | None
) -> dict[str, Floats]:
    """Measures of trials, from those of recordings."""
    found: dict[str, Floats] = {}
    for kind in kinds:
        if kind == "duration":
            values = np.log(np.asarray(seconds, dtype=np.float64))
        elif kind == "norm":
            values = row_norms(np.asarray(matrix, dtype=np.float64))
        else:
            values = unit_rows(np.asarray(matrix, dtype=np.float64)) @ np.asarray(centre)
        found |= pair_measures(kind, values, trials)
    return found


def _clipped(inputs: Mapping[str, Floats], ranges: Mapping[str, tuple[float, float]]) -> dict[str, Floats]:
    return {name: np.clip(values, *ranges[name]) for name, values in inputs.items()}


def _ranks(count: int) -> list[int]:
    """From 1 to `count`, each of the first fifty and then in steps of 2%."""
    ranks = [1]
    while ranks[-1] < count:
        ranks.append(min(count, max(ranks[-1] + 1, int(ranks[-1] * RANK_STEP))))
    return ranks


def _upwards(value: float) -> float:
    """Round up: a threshold there accepts no more than one at the value itself."""
    return math.ceil(value * 10**DECIMALS) / 10**DECIMALS
