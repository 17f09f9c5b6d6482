"""Cosine similarity of the trials' embeddings, at any prefix, of whole recordings and of several crops each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from voxnest.corpora.trials import IndexedTrials, Trial, index_trials
from voxnest.scoring.arrays import Array, each_block, row_norms, unit_rows

BLOCK_VALUES = 1 << 17  # numbers gathered at once by a thread: 512 KiB of float32, which a core's cache holds


def cosine_similarity(first: Array, second: Array) -> float:
    """Cosine similarity of two embeddings `[dim]`, in double precision and in [-1, 1]; 0 if one of them is zero."""
    one, other = unit_rows(np.stack([first, second]).astype(np.float64))
    return float(np.clip(one @ other, -1, 1))


def similarity(a: ArrayLike, b: ArrayLike, dim: int | None = None) -> Any:
    """Cosine similarity of each of `a` with each of `b`, in [-1, 1]; an embedding of zeros has 0 with everything.

    Args:
        a: an embedding `[d]` or several `[n, d]`, such as `encoder.encode` gives.
        b: others, `[d]` or `[m, d]`.
        dim: compare the first `dim` numbers only; all if None.

    Returns:
        `[n, m]`; without the axis of what was a single embedding: of two of them it is a number.

    Raises:
        ValueError: embeddings of other shapes or of different sizes, or with fewer than `dim` numbers.

    Examples:
        >>> similarity(encoder.encode(["a.wav", "b.wav"]), encoder.encode("c.wav")).shape
        (2, 1)
    """
    one, other = np.asarray(a), np.asarray(b)
    if not (1 <= one.ndim <= 2 and 1 <= other.ndim <= 2 and one.shape[-1] == other.shape[-1]):
        raise ValueError(f"embeddings of shapes {one.shape} and {other.shape}: expected [d] or [n, d], of one size")
    if dim is not None and not 1 <= dim <= one.shape[-1]:
        raise ValueError(f"a prefix of {dim} numbers of embeddings with {one.shape[-1]}")
    return np.clip(unit_rows(one[..., :dim]) @ unit_rows(other[..., :dim]).T, -1, 1)


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

    Args:
        matrix: [recordings, full size], a row for each of `trials.names`.
        trials: what to compare.
        dims: prefix sizes.

    Returns:
        Prefix size -> [trials] cosine similarities. An embedding of zeros scores 0 against everything.

    Raises:
        ValueError: the embeddings have fewer numbers than a prefix asked for.
    """
    scores = inner_products(matrix, matrix, trials, dims)
    for dim, score in scores.items():
        norms = row_norms(matrix[:, :dim])
        scale = norms[trials.enrollment] * norms[trials.test]
        np.divide(score, scale, out=score, where=scale > 0)
    return scores


def score_crops(
    crops: Array, trials: IndexedTrials, dims: Sequence[int], whole: Array | None = None
) -> dict[int, Array]:
    """Score every trial by several crops of each recording: the mean of all cosines between crops of the two.

    With k crops these are k x k cosines (voxceleb_trainer, Chung et al. 2020: ten crops of four seconds). With
    embeddings of the whole recordings too, it is the mean of that and of the whole ones' cosine, as in TaoRuijie's
    ECAPA-TDNN. The mean of the cosines is the inner product of the means of the normalised crops, and costs as one.

    Args:
        crops: [recordings, k, full size] embeddings of crops, of the recordings of `trials.names`.
        trials: what to compare.
        dims: prefix sizes.
        whole: [recordings, full size] embeddings of the whole recordings.

    Returns:
        Prefix size -> [trials] in [-1, 1].

    Raises:
        ValueError: the embeddings have fewer numbers than a prefix asked for.
    """
    scores = {}
    for dim in sorted(set(dims)):
        centres = unit_rows(crops[:, :, :dim]).mean(axis=1)
        scores.update(inner_products(centres, centres, trials, (dim,)))
        if whole is not None:
            scores[dim] = (scores[dim] + score_indexed(whole, trials, (dim,))[dim]) / 2
    return scores


def inner_products(enrollment: Array, test: Array, trials: IndexedTrials, dims: Sequence[int]) -> dict[int, Array]:
    """Inner product of the two sides of each trial, of every prefix size in one pass.

    That of a prefix is that of the next shorter one plus that of the numbers between, so all sizes together cost what
    the largest does. Memory: the products, and a block of gathered rows per thread.

    Args:
        enrollment: [recordings, full size], what stands for each recording on the enrollment side.
        test: [recordings, full size], and on the test side.
        trials: what to multiply.
        dims: prefix sizes.

    Returns:
        Prefix size, ascending -> [trials].

    Raises:
        ValueError: the rows have fewer numbers than a prefix asked for.
    """
    if not 1 <= min(dims) <= max(dims) <= enrollment.shape[1]:
        raise ValueError(f"prefixes {sorted(dims)} of embeddings with {enrollment.shape[1]} numbers")
    products = {dim: np.empty(len(trials.labels), dtype=enrollment.dtype) for dim in sorted(set(dims))}

    def multiply(block: slice) -> None:
        first, second = enrollment[trials.enrollment[block]], test[trials.test[block]]
        sums, done = np.zeros(len(first), dtype=enrollment.dtype), 0
        for dim, product in products.items():
            sums += np.einsum("td,td->t", first[:, done:dim], second[:, done:dim])
            product[block], done = sums, dim

    each_block(multiply, len(trials.labels), BLOCK_VALUES // enrollment.shape[1])
    return products
