"""What all scores share: arrays in blocks and threads, rows of length one, trials that are fit to learn from."""

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxnest.errors import TrialError

Array = NDArray[np.floating]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BLOCK_ROWS = 4096


def each_block(work: Callable[[slice], object], rows: int, size: int) -> None:
    """Call `work` for the slices of `size` that make up `rows`, in as many threads as torch uses.

    numpy and torch let go of the interpreter in products, selections and sums. In a thread torch computes with one
    thread; numpy's products of matrices would wait for each other there. Where nobody has imported torch, as with an
    exported model, it is not imported here, which takes longer than most scoring.
    """
    blocks = [slice(start, min(start + size, rows)) for start in range(0, rows, max(1, size))]
    if len(blocks) < 2:
        for block in blocks:
            work(block)
        return
    torch = sys.modules.get("torch")
    if torch is None:
        with ThreadPoolExecutor(os.cpu_count(), "scoring") as pool:
            for _ in pool.map(work, blocks):
                pass
        return
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, "scoring", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, blocks):
                pass
    finally:
        torch.set_num_threads(threads)  # the workers' setting is also what later threads begin with


def unit_rows(matrix: ArrayLike) -> Array:
    """Scale rows (the last axis) to length one, in float32 or, if they have it, float64; rows of zeros stay."""
    values = np.asarray(matrix)
    values = values.astype(np.result_type(values, np.float32), copy=False)
    norms = row_norms(values)[..., None]
    return values / np.where(norms > 0, norms, 1)


def row_norms(values: Array) -> Array:
    """Lengths of rows (the last axis); as numpy's, without a matrix of squares in between."""
    return np.sqrt(np.einsum("...d,...d->...", values, values))


def unique_rows(*matrices: ArrayLike) -> tuple[Array, list[Ints]]:
    """Find every distinct row of matrices [rows, dim].

    Rows are sorted by a hash of their bits, which is many times faster than by their numbers. That rows of one hash
    are equal is then checked: if they were not, every row would count as distinct, and the answer be right.

    Returns:
        Distinct rows [distinct, dim], in float32 or float64; for each matrix, where its rows are among them [rows].

    Raises:
        ValueError: not matrices, or of different widths.
    """
    arrays = [np.asarray(matrix) for matrix in matrices]
    dtype = np.result_type(*arrays, np.float32)
    sides: list[Array] = [np.ascontiguousarray(array, dtype=dtype) for array in arrays]
    if any(side.ndim != 2 or side.shape[1] != sides[0].shape[-1] for side in sides):
        raise ValueError(f"embeddings of shapes {[side.shape for side in sides]}: expected [trials, dim] on each side")
    _, first, inverse = np.unique(np.concatenate([*map(_hashes, sides)]), return_index=True, return_inverse=True)
    ends = np.cumsum([len(side) for side in sides])
    distinct = np.empty((len(first), sides[0].shape[1]), dtype=dtype)
    for side, end in zip(sides, ends, strict=True):
        place = first - (end - len(side))
        here = (place >= 0) & (place < len(side))
        distinct[here] = side[place[here]]
    positions = np.split(inverse.reshape(-1), ends[:-1])
    if all(_are_rows(side, distinct, position) for side, position in zip(sides, positions, strict=True)):
        return distinct, positions
    return np.concatenate(sides), np.split(np.arange(ends[-1]), ends[:-1])


def _hashes(matrix: Array) -> NDArray[np.uint64]:
    """Multiply the bits of each row's numbers by random odd numbers, and add, modulo 2^64."""
    bits = matrix.view(f"u{matrix.itemsize}")
    keys = np.random.default_rng(0).integers(1 << 63, size=matrix.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(
        1
    )
    hashes = np.empty(len(matrix), dtype=np.uint64)

    def compute(block: slice) -> None:
        hashes[block] = bits[block].astype(np.uint64) @ keys

    each_block(compute, len(matrix), BLOCK_ROWS)
    return hashes


def _are_rows(matrix: Array, distinct: Array, positions: Ints) -> bool:
    """Whether each row of a matrix is, bit by bit, the distinct row at its position."""
    different = np.zeros(len(matrix), dtype=bool)

    def compare(block: slice) -> None:
        bits, others = (rows.view(f"u{matrix.itemsize}") for rows in (matrix[block], distinct[positions[block]]))
        different[block] = (bits != others).any(axis=1)

    each_block(compare, len(matrix), BLOCK_ROWS)
    return not different.any()


def check_trials(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, NDArray[np.bool_]]:
    """Validate scores [trials] and labels [trials], and convert them to float64 and bool.

    Raises:
        TrialError: no trials, no target, no non-target, or scores that are not finite.
        ValueError: scores and labels differ in shape, or labels are not 0 and 1.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(
            f"scores of shape {values.shape} and labels of shape {truth.shape}: expected one each per trial"
        )
    if not len(values):
        raise TrialError("scores", "no trials", "at least one target and one non-target trial")
    targets = truth.astype(bool)
    if truth.dtype != bool and not np.array_equal(targets, truth):
        raise ValueError(f"labels hold {truth[targets != truth][0]!r}: expected True or 1 (target), False or 0")
    unusable = np.count_nonzero(~np.isfinite(values))
    if unusable:
        raise TrialError("scores", f"{unusable} of {len(values)} are NaN or infinite", "finite numbers")
    if targets.all() or not targets.any():
        found = "only target trials" if targets.all() else "only non-target trials"
        raise TrialError("labels", f"{found} ({len(values)})", "at least one of each kind")
    return values, targets
