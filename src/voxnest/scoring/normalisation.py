"""Scores made comparable by a cohort: mean subtraction, Z-, T-, S- and AS-norm.

How similar a recording is to strangers (the cohort) tells how high its scores are anyway. Every recording is compared
with the cohort once, however many trials it is in. Standard deviations are those of the cohort (divided by n, not
n - 1), as in wespeaker.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import TrialError
from voxnest.scoring.arrays import Array, Floats, Ints, each_block, unique_rows, unit_rows

Norm = Literal["z", "t", "s", "as"]
BLOCK_VALUES = 1 << 20  # similarities held at once by a thread: 4 MiB of float32, which a processor's cache holds
LEAST_DEVIATION = 1e-6  # of cosines: less is rounding


def subtract_mean(embeddings: ArrayLike, cohort: ArrayLike) -> Array:
    """Centre embeddings [..., dim] by the mean of a cohort [cohort, dim]; do so with the cohort itself too."""
    values = np.asarray(embeddings)
    return values - np.asarray(cohort).mean(axis=0, dtype=np.float64).astype(np.result_type(values, np.float32))


def speaker_means(embeddings: ArrayLike, speakers: ArrayLike) -> Array:
    """Make a cohort of speakers: the mean of each one's embeddings, scaled to length one before (ECAPA-TDNN's paper).

    Args:
        embeddings: [utterances, dim].
        speakers: [utterances], names or numbers.

    Returns:
        [speakers, dim], in the order of the sorted speakers.
    """
    _, index, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    units = unit_rows(embeddings)[np.argsort(index, kind="stable")]
    return np.add.reduceat(units, np.cumsum(counts) - counts, axis=0) / counts[:, None].astype(units.dtype)


def normalise(
    scores: ArrayLike, matrix: Array, trials: IndexedTrials, cohort: Array, norm: Norm = "as", top_n: int = 300
) -> Floats:
    """Normalise the scores of indexed trials.

    Each score is centred and scaled by the cosine similarities between a cohort and, by `norm`:

    - "z" (Z-norm): its enrollment recording;
    - "t" (T-norm): its test recording;
    - "s" (S-norm, Kenny 2010): each of the two; the result is the mean of both;
    - "as" (AS-norm, Cumani et al. 2011, Matejka et al. 2017): as "s", with the `top_n` most similar of the cohort
      only, for each recording its own.

    Args:
        scores: [trials].
        matrix: [recordings, dim], a row for each of `trials.names`; prefixes to normalise the scores of prefixes.
        trials: [trials] what was compared.
        cohort: [cohort, dim] embeddings of speakers who are not in the trials, of utterances or `speaker_means`.
        norm: which of the four.
        top_n: size of the part of the cohort for AS-norm; all of a smaller cohort.

    Returns:
        [trials], in standard deviations; not bounded.

    Raises:
        TrialError: a recording to which all of the cohort (or its nearest) are equally similar.
        ValueError: an unknown norm, a cohort or `top_n` below 2, or shapes that do not fit.
    """
    sides = {"z": [trials.enrollment], "t": [trials.test]}.get(norm, [trials.enrollment, trials.test])
    if norm not in ("z", "t", "s", "as"):
        raise ValueError(f"norm is {norm!r}: expected one of z, t, s, as")
    return _normalise(scores, matrix, sides, cohort, top_n if norm == "as" else None)


def as_norm(scores: ArrayLike, enroll: ArrayLike, test: ArrayLike, cohort: ArrayLike, top_n: int = 300) -> Floats:
    """AS-norm of scores, with the embeddings of both sides of each trial (see `normalise`).

    Args:
        scores: [trials].
        enroll: [trials, dim] embedding of each trial's enrollment; a recording may come again and again, it is
            compared with the cohort once.
        test: [trials, dim] embedding of each trial's test recording.
        cohort: [cohort, dim].
        top_n: how many of the cohort, those most similar to the recording; all of a smaller cohort.

    Returns:
        [trials], in standard deviations.

    Raises:
        TrialError: a recording to which its nearest of the cohort are equally similar.
        ValueError: a cohort or `top_n` below 2, or shapes that do not fit.

    Examples:
        >>> scores = as_norm(scores, embeddings[first], embeddings[second], cohort)
    """
    return _normalise_rows(scores, [enroll, test], cohort, top_n)


def s_norm(scores: ArrayLike, enroll: ArrayLike, test: ArrayLike, cohort: ArrayLike) -> Floats:
    """S-norm of scores, as `as_norm` with all of the cohort."""
    return _normalise_rows(scores, [enroll, test], cohort, None)


def z_norm(scores: ArrayLike, enroll: ArrayLike, cohort: ArrayLike) -> Floats:
    """Z-norm of scores: by the enrollments' similarities to the cohort alone (see `as_norm`)."""
    return _normalise_rows(scores, [enroll], cohort, None)


def t_norm(scores: ArrayLike, test: ArrayLike, cohort: ArrayLike) -> Floats:
    """T-norm of scores: by the test recordings' similarities to the cohort alone (see `as_norm`)."""
    return _normalise_rows(scores, [test], cohort, None)


def cohort_statistics(matrix: ArrayLike, cohort: ArrayLike, top_n: int | None = None) -> tuple[Floats, Floats]:
    """Compute mean and standard deviation of each embedding's highest cosine similarities to a cohort.

    Similarities are computed in the embeddings' precision (float32 or float64), blocks of rows at a time, and summed
    in float64.

    Args:
        matrix: [recordings, dim] embeddings.
        cohort: [cohort, dim] embeddings.
        top_n: how many of the cohort, the most similar; all of a smaller cohort, or if None.

    Returns:
        Mean [recordings] and standard deviation [recordings].

    Raises:
        TrialError: an embedding whose similarities do not differ, so that nothing can be scaled by them.
        ValueError: fewer than two to compare with, or embeddings of different sizes.
    """
    matrix, others = np.asarray(matrix), unit_rows(cohort)
    others = others.astype(np.result_type(matrix, others), copy=False)
    top_n = len(others) if top_n is None else min(top_n, len(others))
    if top_n < 2:
        raise ValueError(f"the {top_n} nearest of a cohort have no spread: expected two or more")
    if matrix.ndim != 2 or matrix.shape[1:] != others.shape[1:]:
        raise ValueError(f"embeddings of shape {matrix.shape}, a cohort of {others.shape[-1]} numbers each")
    compute = _all_statistics if top_n == len(others) else _top_statistics
    mean, deviation = compute(matrix, others, top_n)
    equal = np.count_nonzero(~(deviation > LEAST_DEVIATION))  # or NaN
    if equal:
        found = f"{top_n} of the cohort are equally similar to {equal} of {len(matrix)} recordings"
        raise TrialError("normalisation", found, "embeddings that are finite and not zero, and a cohort of many voices")
    return mean, deviation


def _all_statistics(matrix: Array, others: Array, _: int) -> tuple[Floats, Floats]:
    """Mean and deviation of the similarities x.c to all of a cohort, without computing them: x.mean(c), x'Cov(c)x."""
    others = others.astype(np.float64)
    centre = others.mean(axis=0)
    covariance = (others - centre).T @ (others - centre) / len(others)
    mean, deviation = np.empty(len(matrix)), np.empty(len(matrix))

    def compute(block: slice) -> None:
        rows = unit_rows(matrix[block].astype(np.float64))
        mean[block] = rows @ centre
        deviation[block] = np.sqrt(np.maximum(np.einsum("rd,rd->r", rows @ covariance, rows), 0))

    each_block(compute, len(matrix), BLOCK_VALUES // matrix.shape[1])
    return mean, deviation


def _top_statistics(matrix: Array, others: Array, top_n: int) -> tuple[Floats, Floats]:
    """Mean and deviation of the `top_n` highest similarities, selected but not sorted."""
    import torch  # here, so that whoever only scores does without

    members = torch.from_numpy(np.ascontiguousarray(others.T))
    mean, deviation = np.empty(len(matrix)), np.empty(len(matrix))

    def compute(block: slice) -> None:
        similarities = (torch.from_numpy(unit_rows(matrix[block])).to(members.dtype) @ members).numpy()
        similarities.partition(-top_n, axis=1)
        nearest = similarities[:, -top_n:]
        mean[block] = nearest.mean(axis=1, dtype=np.float64)
        deviation[block] = nearest.std(axis=1, dtype=np.float64)

    each_block(compute, len(matrix), max(1, BLOCK_VALUES // len(others)))
    return mean, deviation


def _normalise_rows(scores: ArrayLike, sides: Sequence[ArrayLike], cohort: ArrayLike, top_n: int | None) -> Floats:
    rows, positions = unique_rows(*sides)
    return _normalise(scores, rows, positions, cohort, top_n)


def _normalise(scores: ArrayLike, matrix: Array, sides: Sequence[Ints], cohort: ArrayLike, top_n: int | None) -> Floats:
    """Mean over the sides [trials], positions in `matrix`, of the scores normalised by each."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or any(len(side) != len(values) for side in sides):
        raise ValueError(f"{values.size} scores of {len(sides[0])} trials")
    mean, deviation = cohort_statistics(matrix, cohort, top_n)
    total = np.zeros_like(values)
    for side in sides:
        total += (values - mean[side]) / deviation[side]
    return total / len(sides)
