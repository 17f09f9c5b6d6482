"""Embeddings of many recordings in one file."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxnest.errors import CorpusError
from voxnest.files import atomic_write, check_output, writing
from voxnest.inference.embedding import Embeddings, embed_spans
from voxnest.inference.pipeline import Progress, Span
from voxnest.inference.recordings import recording_names

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

_ARCHIVE = "names and embeddings, as voxnest embed writes them"


def embed_to_file(
    encoder: Embedder,
    paths: str | Path | Iterable[str | Path] | Mapping[str, Span],
    output: str | Path,
    *,
    dim: int | None = None,
    progress: Progress | None = None,
    jobs: int | None = None,
) -> Embeddings:
    """Embed recordings and write them to `output`, a NumPy archive that `numpy.load` reads.

    It holds `names` [n], `embeddings` [n, dim] float32, `model` (its name) and `dim`. Recordings that cannot
    be used are left out and listed in the result's `failures`; if that is all of them, nothing is written.

    Args:
        encoder: as the other arguments, see `embed_files`.
        paths: recordings, or by their names where they are.
        output: any name; "-" is the standard output.
        dim: keep the first `dim` numbers only; all if None.
        progress: see `embed_files`.
        jobs: threads; as many as the encoder has if None.

    Raises:
        ConfigError: the encoder was not trained for `dim`, or `output` cannot be written: this is found before the
            first recording is embedded.
        CheckpointError: the encoder gives no finite embeddings.
        VoxnestError: writing fails (a full disk, say).
    """
    if dim is None:
        dim = encoder.embedding_dim
    encoder.check_dim(dim)
    encoder = encoder.for_dim(dim)
    check_output(output)
    spans = paths if isinstance(paths, Mapping) else {name: Span(Path(name)) for name in recording_names(paths)}
    embeddings = embed_spans(encoder, spans, progress=progress, on_error="skip", jobs=jobs)
    if not embeddings:
        return embeddings  # an older `output` keeps what it held
    with writing(output), atomic_write(output) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            names=np.array(list(embeddings)),
            embeddings=np.stack(list(embeddings.values()))[:, :dim],
            model=np.array(encoder.name),
            dim=np.array(dim),
        )
    return embeddings


def read_embeddings(*paths: str | Path) -> tuple[list[str], np.ndarray]:
    """Read what `voxnest embed` wrote: archives and folders of shards, one or several of one model and size.

    Returns:
        The names of all recordings, and their embeddings [n, dim] float32.

    Raises:
        CorpusError: a file that is missing or something else, embeddings that are not finite or of different models or
            sizes, or two of one name.
    """
    names: list[str] = []
    matrices, kinds = [], {}
    for path in paths:
        from voxnest.inference.bulk.formats import read_shards  # with databases and locks: not to verify

        found, matrix, model = read_shards(Path(path)) if Path(path).is_dir() else _read_archive(path)
        kinds[str(path)] = model, matrix.shape[1]
        if matrix.dtype.kind != "f" or not np.isfinite(matrix).all():
            raise CorpusError(path, "embeddings that are not finite numbers", _ARCHIVE)
        names += found
        matrices.append(matrix.astype(np.float32, copy=False))
    first, (model, size) = next(iter(kinds.items()))
    for other, (name, count) in kinds.items():
        if count != size or (name and model and name != model):  # Kaldi's format does not keep it
            expected = f"{model}, {size} numbers, as in {first}"
            raise CorpusError(other, f"embeddings of {name}, {count} numbers", expected)
    if len(set(names)) < len(names):
        again = next(first for first, second in itertools.pairwise(sorted(names)) if first == second)
        raise CorpusError(", ".join(map(str, paths)), f"two embeddings of {again}", "one of each recording")
    return names, np.concatenate(matrices)


def _read_archive(path: str | Path) -> tuple[list[str], np.ndarray, str]:
    """Names, embeddings and the name of the model."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            found, matrix, model = archive["names"], archive["embeddings"], str(archive["model"])
    except OSError as error:
        raise CorpusError(path, f"cannot be read: {error.strerror or error}", _ARCHIVE) from error
    except (KeyError, IndexError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise CorpusError(path, "no archive of embeddings", _ARCHIVE) from error
    if found.ndim != 1 or found.dtype.kind != "U" or matrix.ndim != 2 or len(found) != len(matrix):
        raise CorpusError(path, f"names {found.shape} and embeddings {matrix.shape}", _ARCHIVE)
    return found.tolist(), matrix, model
