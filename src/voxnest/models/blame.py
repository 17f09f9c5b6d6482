"""Tell whether a recording or the encoder is at fault when there is no embedding."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from voxnest.errors import AudioError, CheckpointError, VoxnestError
from voxnest.models.embedder import Embedder


def blame_recording(encoder: Embedder, path: str | Path, error: Exception | None = None) -> AudioError:
    """The error of a recording that the encoder, made ready, gives no usable embedding of.

    The encoder is tried on a second of quiet noise. If it embeds that, the recording is at fault: samples beyond all
    bounds, a length that does not fit into memory, a file that a decoder breaks at.

    Args:
        encoder: what was to embed it.
        path: the recording.
        error: what was raised; None if the embedding is NaN or infinite.

    Raises:
        CheckpointError: the embedding of the noise is not finite either.
        Exception: `error` itself, if nothing can be embedded.
    """
    length = max(encoder.sample_rate, encoder.min_samples)
    noise = np.random.default_rng(0).normal(0.0, 0.03, (1, length)).astype(np.float32)
    try:
        works = bool(np.isfinite(encoder.embed(noise)).all())
    except Exception:
        if error is None:
            raise
        raise error from None
    if not works:
        found = f"its embeddings are NaN or infinite, of {path} as of noise"
        raise CheckpointError(encoder.name, found, "a model whose training did not diverge")
    if error is None:
        return AudioError(path, "its embedding is NaN or infinite", "samples in [-1, 1]")
    return AudioError(path, one_line(error))


@contextmanager
def blaming(encoder: Embedder, path: str | Path) -> Iterator[None]:
    """Let what is raised within be a `VoxnestError`; see `blame_recording` for what is not."""
    try:
        yield
    except VoxnestError:
        raise
    except Exception as error:
        raise blame_recording(encoder, path, error) from error


def one_line(error: Exception) -> str:
    """What to say of a recording at which something broke that is not a `VoxnestError`."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "memory" in text.lower():
        return "needs more memory than there is"
    return f"cannot be used: {type(error).__name__}" + (f": {text}" if text else "")
