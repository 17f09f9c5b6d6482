"""Decide whether two recordings are of one speaker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.errors import ConfigError
from voxnest.inference.embedding import Progress, embed_files
from voxnest.scoring import cosine_similarity

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

DEFAULT_THRESHOLD = 0.5
"""Used where an encoder carries no threshold of its own. It is not calibrated for any model."""


@dataclass(frozen=True)
class Verification:
    """The answer of `verify`.

    Attributes:
        score: cosine similarity of the two embeddings, in [-1, 1].
        same: whether the score reaches the threshold.
        threshold: the one used.
        dim: the size of the embeddings compared.
        calibrated: False if the threshold is the generic `DEFAULT_THRESHOLD`; True if the caller gave it or
            the encoder carries it.
        silent: those of the two recordings in which there is nothing to hear; the answer then means nothing.
        warnings: (recording, what is wrong) of those that the answer is not to be relied on for: silent ones, and
            what else `voxnest.inference.quality` finds.
    """

    score: float
    same: bool
    threshold: float
    dim: int
    calibrated: bool
    silent: tuple[str, ...]
    warnings: tuple[tuple[str, str], ...]


def verify(
    encoder: SpeakerEncoder,
    a: str | Path,
    b: str | Path,
    dim: int | None = None,
    threshold: float | None = None,
    *,
    progress: Progress | None = None,
) -> Verification:
    """Compare the speakers of two recordings by the cosine similarity of their embeddings.

    Args:
        encoder: see `load_encoder`.
        a: a recording.
        b: another.
        dim: compare the first `dim` numbers only; all if None.
        threshold: the least score of one speaker. If None: the encoder's own for that `dim`
            (`encoder.thresholds`), or `DEFAULT_THRESHOLD` if it carries none. `voxnest evaluate` tells one.
        progress: see `embed_files`.

    Raises:
        AudioError: a recording cannot be used.
        ConfigError: the encoder was not trained for `dim`, or the threshold is not in [-1, 1].
        CheckpointError: the encoder gives embeddings that are not finite.

    Examples:
        >>> verify(load_encoder("model.safetensors"), "monday.wav", "friday.m4a").same
        True
    """
    if dim is None:
        dim = encoder.embedding_dim
    encoder.head.check_dim(dim)
    own = encoder.thresholds.get(dim)
    calibrated = threshold is not None or own is not None
    if threshold is None:
        threshold = DEFAULT_THRESHOLD if own is None else own
    if not -1 <= threshold <= 1:
        raise ConfigError("threshold", f"{threshold:g}", "a cosine similarity, in [-1, 1]")
    embeddings = embed_files(encoder, [a, b], progress=progress)
    score = cosine_similarity(embeddings[str(a)][:dim], embeddings[str(b)][:dim])
    silent, warnings = tuple(embeddings.silent), tuple(embeddings.warnings)
    return Verification(score, score >= threshold, threshold, dim, calibrated, silent, warnings)
