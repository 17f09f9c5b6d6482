"""Probabilistic linear discriminant analysis: the two-covariance model (Brümmer and De Villiers 2010).

An embedding is its speaker's, y ~ N(0, B), plus what changes from recording to recording, e ~ N(0, W). Before, it is
centred, projected (by LDA or whitening) and scaled to one length (Garcia-Romero and Espy-Wilson 2011). In a basis where
W is the identity and B is diagonal the log-likelihood ratio of two embeddings is a sum over numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import CheckpointError, CorpusError
from voxnest.scoring.arrays import Array, Floats, unit_rows
from voxnest.scoring.cosine import inner_products


@dataclass(frozen=True)
class PLDA:
    """A trained model, as arrays in float64.

    Attributes:
        mean: [size], taken from every embedding.
        projection: [size, dim], applied then; the result is scaled to a length of sqrt(dim).
        centre: [dim], the mean of the scaled ones.
        basis: [dim, dim], applied then: the variance within speakers becomes one in all directions.
        between: [dim] variance between speakers in that basis.
    """

    mean: Floats
    projection: Floats
    centre: Floats
    basis: Floats
    between: Floats

    def transform(self, embeddings: ArrayLike) -> Floats:
        """Take embeddings [recordings, size] to the basis of the model [recordings, dim]."""
        centred = np.asarray(embeddings, dtype=np.float64) - self.mean
        return (_scaled(centred @ self.projection) - self.centre) @ self.basis

    def score(self, matrix: ArrayLike, trials: IndexedTrials) -> Floats:
        """Compute the log-likelihood ratio of every trial: of one speaker against two.

        Args:
            matrix: [recordings, size] embeddings, a row for each of `trials.names`.
            trials: what to compare.

        Returns:
            [trials], natural logarithms.
        """
        rows, total = self.transform(matrix), self.between + 1
        determinant = total**2 - self.between**2
        squares = rows**2 @ (1 / total - total / determinant) / 2
        products = inner_products(rows * (self.between / determinant), rows, trials, (rows.shape[1],))
        constant = np.sum(np.log(total) - np.log(determinant) / 2)
        return products[rows.shape[1]] + squares[trials.enrollment] + squares[trials.test] + constant

    def to_arrays(self) -> dict[str, Floats]:
        """Give the arrays by name, for a file."""
        return asdict(self)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> PLDA:
        """Take what `to_arrays` gave.

        Raises:
            CheckpointError: anything else.
        """
        names = ("mean", "projection", "centre", "basis", "between")
        if set(arrays) != set(names):
            raise CheckpointError("PLDA", f"arrays {', '.join(sorted(arrays))}", ", ".join(names))
        model = cls(*(np.asarray(arrays[name], dtype=np.float64) for name in names))
        size, dim = model.projection.shape if model.projection.ndim == 2 else (0, 0)
        shapes = [array.shape for array in (model.mean, model.centre, model.basis, model.between)]
        finite = all(np.isfinite(array).all() for array in asdict(model).values())
        if shapes != [(size,), (dim,), (dim, dim), (dim,)] or not finite or not dim or model.between.min() < 0:
            raise CheckpointError("PLDA", f"arrays of shapes {shapes}", "finite ones that fit the projection")
        return model


def fit_plda(
    embeddings: ArrayLike, speakers: ArrayLike, *, dim: int | None = None, lda: bool = True, iterations: int = 20
) -> PLDA:
    """Train the model by expectation maximisation.

    Args:
        embeddings: [utterances, size].
        speakers: [utterances], names or numbers.
        dim: directions kept before the model: the most discriminative ones, or with `lda=False` (whitening) those of
            the largest variance; all that the data determine if None.
        lda: project by linear discriminant analysis.
        iterations: of expectation maximisation.

    Raises:
        CorpusError: embeddings that are not finite, fewer than two speakers, or none with two utterances.
        ValueError: shapes that do not fit, or a `dim` that the data do not determine.
    """
    matrix = np.asarray(embeddings, dtype=np.float64)
    _, index, counts = np.unique(np.asarray(speakers), return_inverse=True, return_counts=True)
    if matrix.ndim != 2 or index.shape != matrix.shape[:1]:
        raise ValueError(f"embeddings of shape {matrix.shape} and speakers of shape {index.shape}")
    if not np.isfinite(matrix).all():
        raise CorpusError("embeddings", "some are NaN or infinite", "finite numbers")
    if len(counts) < 2 or counts.max() < 2:
        found = f"{len(counts)} speakers, the most frequent with {counts.max(initial=0)} utterances"
        raise CorpusError("embeddings", found, "two or more speakers, some with two utterances")
    mean = matrix.mean(axis=0)
    projection = _projection(matrix - mean, index, counts, lda)
    if not 1 <= (dim or 1) <= projection.shape[1]:
        raise ValueError(f"dim is {dim}: these embeddings determine {projection.shape[1]} directions")
    projection = projection[:, :dim]
    rows = _scaled((matrix - mean) @ projection)
    centre = rows.mean(axis=0)
    between, within = _maximise(rows - centre, index, counts, iterations)
    # W = C C': in the basis inv(C)' the variance within is one; the eigenvectors of B there leave it so.
    basis = np.linalg.inv(np.linalg.cholesky(within)).T
    variances, turn = np.linalg.eigh(basis.T @ between @ basis)
    return PLDA(mean, projection, centre, basis @ turn, np.maximum(variances, 0))


def _scaled(rows: Floats) -> Floats:
    return unit_rows(rows) * np.sqrt(rows.shape[1])


def _sums(rows: Floats, index: np.ndarray, counts: np.ndarray) -> Floats:
    """Add up the rows of each speaker [speakers, dim]."""
    return np.add.reduceat(rows[np.argsort(index, kind="stable")], np.cumsum(counts) - counts, axis=0)


def _projection(rows: Floats, index: np.ndarray, counts: np.ndarray, lda: bool) -> Floats:
    """Directions [size, dim], best first: they whiten all of the data, or (LDA) what is within speakers."""
    means = _sums(rows, index, counts) / counts[:, None]
    if not lda:
        return _whitening(rows.T @ rows / len(rows))
    spread, size = rows - means[index], rows.shape[1]
    within = spread.T @ spread
    # As if there had been `size` more recordings, alike in all directions: in those in which a small corpus does not
    # vary at all, LDA would see nothing, or nothing else.
    within += np.trace(within) / max(len(rows) - len(counts), 1) * np.eye(size)
    whitening = _whitening(within / (len(rows) + size))
    between = means.T @ (means * counts[:, None]) / len(rows)
    _, turn = np.linalg.eigh(whitening.T @ between @ whitening)
    return (whitening @ turn)[:, ::-1][:, : len(counts) - 1]


def _whitening(covariance: Floats) -> Floats:
    """Directions in which a covariance is one, the largest first, without those in which there is nothing."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > 1e-10 * values[-1]
    return (vectors[:, kept] / np.sqrt(values[kept]))[:, ::-1]


def _maximise(rows: Floats, index: np.ndarray, counts: np.ndarray, iterations: int) -> tuple[Floats, Floats]:
    """Covariances between and within speakers of rows [utterances, dim], by expectation maximisation.

    Speakers with as many utterances share the covariance of what is known of them, so it is computed once.
    """
    sums, scatter = _sums(rows, index, counts), rows.T @ rows
    means = sums / counts[:, None]
    between, within = np.cov(means.T, bias=True).reshape(len(scatter), -1), scatter / len(rows)
    within = within + 1e-6 * np.trace(within) / len(within) * np.eye(len(within))
    between = between + 1e-6 * np.trace(between) / len(between) * np.eye(len(between))
    for _ in range(iterations):
        second, weighted, guesses = np.zeros_like(between), np.zeros_like(between), np.empty_like(sums)
        precision, prior = np.linalg.inv(within), np.linalg.inv(between)
        for count in np.unique(counts):
            chosen = counts == count
            uncertain = np.linalg.inv(prior + count * precision)
            guesses[chosen] = sums[chosen] @ precision @ uncertain
            moments = chosen.sum() * uncertain + guesses[chosen].T @ guesses[chosen]
            second, weighted = second + moments, weighted + count * moments
        between = second / len(counts)
        crossed = sums.T @ guesses
        within = (scatter - crossed - crossed.T + weighted) / len(rows)
        within = (within + within.T) / 2
    return between, within
