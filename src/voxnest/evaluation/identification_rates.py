"""Identification: who of the enrolled people speaks, if any of them does (ISO/IEC 19795-1, NIST FRTE's terms)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxnest.errors import TrialError
from voxnest.scoring.arrays import Floats


@dataclass(frozen=True)
class OpenSetPoint:
    """Errors of an open-set search that names the best person if their score is >= the threshold.

    Attributes:
        threshold: infinite if nobody may be named.
        fpir: false-positive identification rate: searches for people who are not enrolled that name somebody.
        fnir: false-negative identification rate: searches for enrolled people that do not name them.
        mated: number of searches for enrolled people.
        nonmated: number of the others.
    """

    threshold: float
    fpir: float
    fnir: float
    mated: int
    nonmated: int


def top_k_accuracy(
    scores: ArrayLike, probes: ArrayLike, gallery: ArrayLike, ranks: Sequence[int] = (1, 5, 10)
) -> dict[int, float]:
    """Compute closed-set Top-k accuracy: how often the right person is among the k best.

    Args:
        scores: [probes, people] similarity of each probe to each enrolled person.
        probes: [probes] who speaks in each.
        gallery: [people] who is enrolled, each once.
        ranks: the k's.

    Returns:
        k -> fraction. Others with the right person's very score count as better.

    Raises:
        TrialError: scores that are not finite, no probes, or one of somebody who is not enrolled.
        ValueError: shapes that do not fit, or a person who is enrolled twice.
    """
    values, mates = _mated(scores, probes, gallery)
    strangers = np.count_nonzero(mates < 0)
    if strangers:
        found = f"{strangers} of {len(mates)} are of nobody who is enrolled"
        raise TrialError("probes", found, "a closed set; open_set_error for an open one")
    own = values[np.arange(len(values)), mates]
    places = np.count_nonzero(values >= own[:, None], axis=1)  # counts itself
    return {rank: float(np.mean(places <= rank)) for rank in ranks}


def open_set_error(scores: ArrayLike, probes: ArrayLike, gallery: ArrayLike, fpir: float = 0.01) -> OpenSetPoint:
    """Find the lowest threshold with a false-positive identification rate of `fpir` at most, and the errors there.

    Args:
        scores: [probes, people] similarity of each probe to each enrolled person.
        probes: [probes] who speaks in each, enrolled or not.
        gallery: [people] who is enrolled, each once.
        fpir: the rate allowed, in [0, 1].

    Raises:
        TrialError: scores that are not finite, or probes of one kind only, enrolled or not.
        ValueError: shapes that do not fit, a person who is enrolled twice, or a rate outside [0, 1].
    """
    if not 0 <= fpir <= 1:
        raise ValueError(f"fpir is {fpir}: expected a fraction from 0 to 1")
    values, mates = _mated(scores, probes, gallery)
    mated = mates >= 0
    if mated.all() or not mated.any():
        found = f"{mated.sum()} of enrolled people and {(~mated).sum()} of others"
        raise TrialError("probes", found, "some of each kind")
    best = values.max(axis=1)
    others = np.sort(best[~mated])
    allowed = int(np.floor(fpir * len(others) * (1 + 1e-12)))
    # Scores above the highest that must not be accepted are; with ties that may be fewer than allowed.
    threshold = float(np.nextafter(others[-1 - allowed], np.inf)) if allowed < len(others) else -np.inf
    own = values[mated, mates[mated]]
    rivals = np.count_nonzero(values[mated] >= own[:, None], axis=1) > 1
    return OpenSetPoint(
        threshold,
        float(np.mean(others >= threshold)),
        float(np.mean(rivals | (own < threshold))),
        int(mated.sum()),
        len(others),
    )


def _mated(scores: ArrayLike, probes: ArrayLike, gallery: ArrayLike) -> tuple[Floats, NDArray[np.int64]]:
    """Validate; give scores, and where in the gallery the person of each probe is, or -1."""
    values, names = np.asarray(scores, dtype=np.float64), [str(name) for name in np.asarray(gallery)]
    places = {name: place for place, name in enumerate(names)}
    mates = np.array([places.get(str(name), -1) for name in np.asarray(probes)], dtype=np.int64)
    if values.shape != (len(mates), len(names)) or len(places) < len(names):
        found = f"scores of shape {values.shape}, {len(mates)} probes, {len(places)} people in {len(names)} rows"
        raise ValueError(f"{found}: expected [probes, people], each person once")
    if not values.size:
        raise TrialError("scores", "no probes or no people", "at least one of each")
    unusable = np.count_nonzero(~np.isfinite(values))
    if unusable:
        raise TrialError("scores", f"{unusable} of {values.size} are NaN or infinite", "finite numbers")
    return values, mates
