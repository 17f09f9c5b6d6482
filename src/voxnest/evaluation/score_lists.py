"""Score a trial list from embeddings that are there already, a block of lines at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.score_files import Order, write_scores
from voxnest.corpora.trials import IndexedTrials, shorten, stream_trials
from voxnest.errors import ConfigError, TrialError
from voxnest.evaluation.plda_models import load_plda
from voxnest.files import check_output, writing
from voxnest.inference.archive import read_embeddings
from voxnest.scoring import score_indexed

Row = tuple[str, str, float, bool | None]
LINES = 1 << 17
"""Of a trial list in memory at once."""


def score_list(
    embeddings: str | Path | Sequence[str | Path],
    trials: str | Path,
    output: str | Path,
    *,
    root: str | Path | None = None,
    dim: int | None = None,
    order: Order = "plain",
    plda: str | Path | None = None,
) -> int:
    """Write the score of every line of a trial list, which is read and written as a stream.

    Memory: the embeddings, and a block of `LINES` lines however long the list is.

    Args:
        embeddings: one or several files, or folders of shards, that `voxnest embed` wrote.
        trials: VoxCeleb's or Kaldi's list, or pairs `enrollment test`; may be a pipe.
        output: of the score file; "-" is the standard output.
        root: the folder that the list's names are relative to, if the embeddings' names begin with it.
        dim: compare the first `dim` numbers only; all if None.
        order: of what is on a line; see `Order`.
        plda: a file of `save_plda`, whose log-likelihood ratios are written instead of cosines.

    Returns:
        The number of trials.

    Raises:
        TrialError: a malformed list, or a name without embedding (with its line).
        CorpusError: embeddings that cannot be read.
        ConfigError: `dim` is more than they have, or the output cannot be written.
        VoxnestError: writing fails (a full disk, say).
    """
    check_output(output)
    files = [embeddings] if isinstance(embeddings, str | Path) else list(embeddings)
    names, matrix = read_embeddings(*files)
    size = matrix.shape[1] if dim is None else dim
    if not 1 <= size <= matrix.shape[1]:
        raise ConfigError("--dim", str(dim), f"1 to {matrix.shape[1]}, the size of these embeddings")
    if plda is not None and dim is not None:
        raise ConfigError("--plda", "given with --dim", "one of them: PLDA is of whole embeddings")
    model = None if plda is None else load_plda(plda, size=size)
    rows = {name: row for row, name in enumerate(names)}
    if root is not None:  # a name may be given with or without the folder
        inside = {name: row for name, row in rows.items() if Path(name).is_relative_to(root)}
        rows = {str(Path(name).relative_to(root)): row for name, row in inside.items()} | rows

    def scored() -> Iterator[Row]:
        stream = stream_trials(trials, pairs=True)
        while block := list(islice(stream, LINES)):
            numbers, labels, *sides = zip(*block, strict=True)
            first, second = (_find(rows, side, numbers, trials, names) for side in sides)
            indexed = IndexedTrials(names, first, second, np.zeros(len(block), dtype=bool))
            scores = model.score(matrix, indexed) if model else score_indexed(matrix, indexed, (size,))[size]
            yield from zip(*sides, scores.tolist(), labels, strict=True)

    with writing(output):
        count = write_scores(_not_empty(scored(), trials), output, order)
    return count


def _not_empty(rows: Iterator[Row], trials: str | Path) -> Iterator[Row]:
    """The same rows, but for none at all: then the output keeps what it held."""
    first = next(rows, None)
    if first is None:
        raise TrialError(trials, "no trials", "a line for each")
    yield first
    yield from rows


def _find(
    rows: dict[str, int], side: Sequence[str], numbers: Sequence[int], trials: str | Path, names: Sequence[str]
) -> NDArray[np.int64]:
    """The row of each name of a block's lines."""
    try:
        return np.fromiter(map(rows.__getitem__, side), dtype=np.int64, count=len(side))
    except KeyError:
        number, name = next((number, name) for number, name in zip(numbers, side, strict=True) if name not in rows)
        expected = f"names as in the embeddings, such as {shorten(names[0])!r}; --root gives the folder before them"
        raise TrialError(f"{trials}:{number}", f"no embedding of {shorten(name)!r}", expected) from None
