"""Embed recordings one by one: files or samples, of any rate, length and number of channels.

This file needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr

from voxnest.audio import audio_info, read_audio
from voxnest.errors import AudioError, CheckpointError

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder
    from voxnest.models.encoder import Recordings, Waveform

MAX_DURATION = 60.0
"""The longest part given to the network at once, in seconds: its memory grows with the length."""


def encode(
    encoder: Embedder, recordings: Recordings, dim: int | None = None, sample_rate: int | None = None
) -> np.ndarray:
    """See `SpeakerEncoder.encode`."""
    if dim is not None:
        encoder.check_dim(dim)
        encoder = encoder.for_dim(dim)
    if sample_rate is not None and sample_rate <= 0:
        raise AudioError("sample_rate", str(sample_rate), "a positive number of samples per second")
    several = isinstance(recordings, (list, tuple))
    listed: Any = recordings if several else [recordings]
    embeddings = np.zeros((len(listed), encoder.embedding_dim), np.float32)
    with encoder.ready():
        for index, recording in enumerate(listed):
            if isinstance(recording, (str, Path)):
                name, waveforms = str(recording), _read(recording, encoder)
            else:
                name = f"recordings[{index}]" if several else "recording"
                waveforms = _cut(_at_rate(recording, name, sample_rate, encoder), encoder)
            embeddings[index] = _embed(encoder, waveforms, name)
    return embeddings[:, :dim]


def parts(duration: float, max_duration: float = MAX_DURATION) -> list[tuple[float, float | None]]:
    """(offset, duration) of equal parts of a recording, no longer than `max_duration`, in seconds.

    The last one's duration is None: it goes up to the end, wherever that is to the sample.
    """
    count = max(1, math.ceil(duration / max_duration))
    length = duration / count
    return [(index * length, length if index < count - 1 else None) for index in range(count)]


def mean_embedding(embeddings: np.ndarray) -> np.ndarray:
    """The embedding `[d]` of a recording from those of its parts `[n, d]`.

    It is the mean of the length-normalised ones, times their mean norm: a loud part weighs no more than a faint one.
    """
    if len(embeddings) == 1:
        return embeddings[0]
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    mean = (embeddings / np.maximum(norms, np.finfo(np.float32).tiny)).mean(axis=0)
    return (mean * norms.mean()).astype(np.float32)


def _read(path: str | Path, encoder: Embedder) -> Iterator[np.ndarray]:
    rate = encoder.sample_rate
    shortest = encoder.min_samples / rate
    for offset, duration in parts(audio_info(path).duration):
        yield read_audio(path, sample_rate=rate, offset=offset, duration=duration, min_duration=shortest).samples


def _at_rate(samples: Waveform, name: str, sample_rate: int | None, encoder: Embedder) -> np.ndarray:
    """Check samples; mono float32 at the rate of the encoder: `[samples]`."""
    try:
        waveform = _as_array(samples)
    except AudioError as error:
        raise AudioError(name, error.found, error.expected) from None
    if waveform.ndim == 2 and waveform.shape[1] <= waveform.shape[0]:
        waveform = waveform.mean(axis=1)
    if waveform.ndim != 1:
        expected = "[samples] or [samples, channels]; a list for several recordings"
        raise AudioError(name, f"shape {list(waveform.shape)}", expected)
    if not np.isfinite(waveform).all():
        raise AudioError(name, "holds NaN or infinite samples")
    if sample_rate not in (None, encoder.sample_rate):
        waveform = soxr.resample(waveform, sample_rate, encoder.sample_rate)
    if len(waveform) < encoder.min_samples:
        found = f"{len(waveform)} samples at {encoder.sample_rate} Hz"
        raise AudioError(name, found, f"at least {encoder.min_samples}")
    return waveform


def _cut(waveform: np.ndarray, encoder: Embedder) -> Iterator[np.ndarray]:
    count = math.ceil(len(waveform) / (MAX_DURATION * encoder.sample_rate))
    yield from np.array_split(waveform, count)


def _as_array(samples: Waveform) -> np.ndarray:
    if not isinstance(samples, np.ndarray):
        from voxnest.models.encoder import as_waveform

        return as_waveform(samples).detach().float().cpu().numpy()
    check_numbers(samples)
    scale = 1.0 if samples.dtype.kind == "f" else -float(np.iinfo(samples.dtype).min)
    return samples.astype(np.float32) / np.float32(scale)


def check_numbers(samples: np.ndarray) -> None:
    """Raise what is wrong with the kind of an array's numbers.

    Raises:
        AudioError: neither floating point nor whole numbers of 16 or 32 bits.
    """
    if samples.dtype.name not in ("float16", "float32", "float64", "int16", "int32"):
        raise AudioError("waveform", f"an array of {samples.dtype}", NUMBERS)


NUMBERS = "floating point, or whole numbers of 16 or 32 bits"


def _embed(encoder: Embedder, waveforms: Iterator[np.ndarray], name: str) -> np.ndarray:
    embedding = mean_embedding(np.stack([encoder.embed(part[None])[0] for part in waveforms]))
    if not np.isfinite(embedding).all():
        found = f"the embedding of {name} is NaN or infinite"
        raise CheckpointError(encoder.name, found, "a model whose training did not diverge")
    return embedding
