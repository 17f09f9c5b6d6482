"""A PLDA model of an encoder: trained on a corpus, kept in a file, and used where its embeddings are scored."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxnest.corpora.utterances import read_corpus
from voxnest.errors import CheckpointError, ConfigError, CorpusError
from voxnest.files import atomic_write, writing
from voxnest.inference.cache import EmbeddingCache, embed_kept
from voxnest.inference.embedding import Progress, utterance_spans
from voxnest.scoring import PLDA, fit_plda

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

_EXPECTED = "what voxnest plda writes (.npz)"


def train_plda(
    encoder: Embedder,
    corpus: str | Path,
    *,
    dim: int | None = None,
    lda: bool = True,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> PLDA:
    """Train PLDA on the full embeddings of a corpus.

    Args:
        encoder: whose embeddings shall be scored.
        corpus: a manifest folder or a corpus that names its speakers, several recordings of each.
        dim: as of `fit_plda`.
        lda: as of `fit_plda`.
        cache: of this encoder's embeddings.
        progress: as of `embed_files`.

    Raises:
        CorpusError: it cannot be read, or does not tell which recordings are of one speaker.
        ConfigError: a `dim` that the corpus does not determine.
        AudioError: a recording cannot be used.
    """
    utterances = read_corpus(corpus)
    if not all(utterance.speaker for utterance in utterances):
        raise CorpusError(corpus, "recordings of nobody", "a corpus that names its speakers")
    found = embed_kept(encoder, utterance_spans(utterances), cache, progress=progress)
    try:
        return fit_plda(np.stack(list(found.values())), [item.speaker for item in utterances], dim=dim, lda=lda)
    except CorpusError as error:
        raise CorpusError(corpus, error.found, error.expected) from error
    except ValueError as error:
        raise ConfigError("--dim", str(error), "fewer directions, or more speakers") from error


def save_plda(plda: PLDA, encoder: Embedder, path: str | Path) -> None:
    """Write a model, and of which encoder's embeddings it is.

    Raises:
        VoxnestError: writing fails (a full disk, say).
    """
    with writing(path), atomic_write(path) as temporary, temporary.open("wb") as file:
        arrays: dict[str, Any] = {**plda.to_arrays(), "model": np.array(encoder.name)}
        np.savez(file, digest=np.array(encoder.digest()), **arrays)


def load_plda(path: str | Path, encoder: Embedder | None = None, size: int | None = None) -> PLDA:
    """Read what `save_plda` wrote.

    Args:
        path: of the file.
        encoder: that it must be of; None for any.
        size: of the embeddings that it must be for; None for any.

    Raises:
        CheckpointError: a file that is missing or something else.
        ConfigError: PLDA of another encoder, or for embeddings of another size.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        model, digest = (str(arrays.pop(name)) for name in ("model", "digest"))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", _EXPECTED) from error
    except (KeyError, TypeError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise CheckpointError(path, "no PLDA model", _EXPECTED) from error
    try:
        plda = PLDA.from_arrays(arrays)
    except (CheckpointError, ValueError) as error:
        raise CheckpointError(path, "no PLDA model that fits together", _EXPECTED) from error
    if encoder is not None and digest != encoder.digest():
        raise ConfigError(path, f"PLDA of {model} with other weights", f"of {encoder.name}: voxnest plda")
    if size is not None and len(plda.mean) != size:
        raise ConfigError(path, f"PLDA for embeddings of {len(plda.mean)} numbers", f"for {size}")
    return plda
