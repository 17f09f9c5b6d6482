"""Embeddings of many recordings in one file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxnest.files import atomic_write, check_output, writing
from voxnest.inference.embedding import Embeddings, Progress, embed_files

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder


def embed_to_file(
    encoder: SpeakerEncoder,
    paths: str | Path | Iterable[str | Path],
    output: str | Path,
    *,
    dim: int | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """Embed recordings and write them to `output`, a NumPy archive that `numpy.load` reads.

    It holds `names` [n], `embeddings` [n, dim] float32, `model` (its name) and `dim`. Recordings that cannot
    be used are left out and listed in the result's `failures`; if that is all of them, nothing is written.

    Args:
        encoder: as the other arguments, see `embed_files`.
        paths: recordings.
        output: any name; "-" is the standard output.
        dim: keep the first `dim` numbers only; all if None.
        progress: see `embed_files`.

    Raises:
        ConfigError: the encoder was not trained for `dim`, or `output` cannot be written: this is found before the
            first recording is embedded.
        CheckpointError: the encoder gives no finite embeddings.
        VoxnestError: writing fails (a full disk, say).
    """
    if dim is None:
        dim = encoder.embedding_dim
    encoder.head.check_dim(dim)
    check_output(output)
    embeddings = embed_files(encoder, paths, progress=progress, on_error="skip")
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
