"""Scores of trials: cosine similarity of (prefix) embeddings, and its normalisation against a cohort."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.trials import IndexedTrials, Trial, index_trials

Array = NDArray[np.floating]
BLOCK_VALUES = 1 << 22  # numbers gathered at once: 16 MiB of float32, whatever the number of trials


def cosine(first: Array, second: Array) -> float:
    """Cosine similarity of two embeddings `[dim]`, in double precision and in [-1, 1]; 0 if one of them is zero."""
    pair = IndexedTrials(["first", "second"], np.array([0]), np.array([1]), np.array([True]))
    matrix = np.stack([first, second]).astype(np.float64)
    scores = score_indexed(matrix, pair, (len(first),))[len(first)]
    return float(np.clip(scores[0], -1, 1))


def score_trials(embeddings: Mapping[str, Array], trials: Sequence[Trial], dim: int | None = None) -> Array:
    """Score every trial by the cosine similarity of the first `dim` numbers of its two embeddings.

    Args:
        embeddings: recording -> embedding [full size], for every recording of the trials.
        trials: what to compare.
        dim: prefix size; the whole embedding if None.

    Returns:
        [trials] in [-1, 1], of the embeddings' dtype.

    Raises:
        KeyError: a trial names a recording that has no embedding.
        ValueError: the embeddings have fewer than `dim` numbers.
    """
    indexed = index_trials(trials)
    matrix = np.stack([embeddings[name] for name in indexed.names])
    size = dim or matrix.shape[1]
    return score_indexed(matrix, indexed, (size,))[size]


def score_indexed(matrix: Array, trials: IndexedTrials, dims: Sequence[int]) -> dict[int, Array]:
    """Score every trial at every prefix size in one pass over the embeddings.

    The inner product of a prefix is that of the next shorter one plus that of the numbers between, so all
    sizes together cost what the largest does. Memory: the scores, and one block of gathered embeddings.

    Args:
        matrix: [recordings, full size], a row for each of `trials.names`.
        trials: what to compare.
        dims: prefix sizes.

    Returns:
        Prefix size -> [trials] cosine similarities. An embedding of zeros scores 0 against everything.

    Raises:
        ValueError: the embeddings have fewer numbers than a prefix asked for.
    """
    if not 1 <= min(dims) <= max(dims) <= matrix.shape[1]:
        raise ValueError(f"prefixes {sorted(dims)} of embeddings with {matrix.shape[1]} numbers")
    scores = {dim: np.empty(len(trials.labels), dtype=matrix.dtype) for dim in sorted(set(dims))}
    norms = {dim: np.linalg.norm(matrix[:, :dim], axis=1) for dim in scores}
    rows = max(1, BLOCK_VALUES // matrix.shape[1])
    for start in range(0, len(trials.labels), rows):
        block = slice(start, start + rows)
        enrollment, test = trials.enrollment[block], trials.test[block]
        first, second = matrix[enrollment], matrix[test]
        product, done = np.zeros(len(enrollment), dtype=matrix.dtype), 0
        for dim, score in scores.items():
            product += np.einsum("td,td->t", first[:, done:dim], second[:, done:dim])
            done = dim
            scale = norms[dim][enrollment] * norms[dim][test]
            score[block] = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return scores


def s_norm(scores: Array, embeddings: Mapping[str, Array], trials: Sequence[Trial], cohort: Array) -> Array:
    """Normalise scores symmetrically: S-norm (Kenny 2010), as wespeaker computes it.

    Each score is centred and scaled once by the scores of its enrollment against the cohort and once by those
    of its test recording; the result is the mean of the two.

    Args:
        scores: [trials] cosine similarities, as `score_trials` gives them.
        embeddings: recording -> embedding [dim]; give prefixes to normalise the scores of prefixes.
        trials: [trials] what was compared.
        cohort: [cohort, dim] embeddings of speakers who are not in the trials, ideally one mean per speaker.

    Returns:
        [trials], in standard deviations; not bounded.

    Raises:
        ValueError: an empty cohort, or shapes that do not fit.
    """
    return as_norm(scores, embeddings, trials, cohort, top_n=len(cohort))


def as_norm(
    scores: Array,
    embeddings: Mapping[str, Array],
    trials: Sequence[Trial],
    cohort: Array,
    *,
    top_n: int = 300,
) -> Array:
    """Normalise scores adaptively: AS-norm (Cumani et al. 2011; Matejka et al. 2017).

    As `s_norm`, but each recording is normalised by its own `top_n` most similar members of the cohort only,
    as wespeaker does.

    Args:
        scores: [trials] cosine similarities, as `score_trials` gives them.
        embeddings: recording -> embedding [dim]; give prefixes to normalise the scores of prefixes.
        trials: [trials] what was compared.
        cohort: [cohort, dim] embeddings of speakers who are not in the trials, ideally one mean per speaker.
        top_n: size of the part of the cohort; all of a smaller cohort.

    Returns:
        [trials], in standard deviations; not bounded.

    Raises:
        ValueError: an empty cohort, `top_n` below 2, or shapes that do not fit.
    """
    if len(scores) != len(trials):
        raise ValueError(f"{len(scores)} scores of {len(trials)} trials")
    indexed = index_trials(trials)
    matrix = np.stack([embeddings[name] for name in indexed.names])
    mean, deviation = cohort_statistics(matrix, cohort, top_n)
    sides = [(scores - mean[side]) / deviation[side] for side in (indexed.enrollment, indexed.test)]
    return (sides[0] + sides[1]) / 2


def cohort_statistics(matrix: Array, cohort: Array, top_n: int) -> tuple[Array, Array]:
    """Compute mean and standard deviation of each embedding's `top_n` highest similarities to a cohort.

    Args:
        matrix: [recordings, dim] embeddings.
        cohort: [cohort, dim] embeddings.
        top_n: how many of the cohort; all of a smaller cohort.

    Returns:
        Mean [recordings] and standard deviation [recordings].

    Raises:
        ValueError: fewer than two to compare with, or embeddings of different sizes.
    """
    if min(len(cohort), top_n) < 2:
        raise ValueError(f"the {min(len(cohort), top_n)} nearest of a cohort have no spread: expected two or more")
    if matrix.shape[1] != cohort.shape[1]:
        raise ValueError(f"embeddings of {matrix.shape[1]} numbers, a cohort of {cohort.shape[1]}")
    top_n = min(top_n, len(cohort))
    unit, others = _unit(matrix), _unit(cohort).T
    mean, deviation = np.empty(len(unit), dtype=unit.dtype), np.empty(len(unit), dtype=unit.dtype)
    rows = max(1, BLOCK_VALUES // len(cohort))
    for start in range(0, len(unit), rows):
        block = slice(start, start + rows)
        nearest = unit[block] @ others
        if top_n < len(cohort):
            nearest = np.partition(nearest, -top_n, axis=1)[:, -top_n:]
        mean[block], deviation[block] = nearest.mean(axis=1), nearest.std(axis=1)
    return mean, deviation


def _unit(matrix: Array) -> Array:
    """Scale rows to length one; rows of zeros stay."""
    norms = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / np.where(norms > 0, norms, 1)
