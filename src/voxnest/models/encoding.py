"""Embed recordings one by one: files or samples, of any rate, length and number of channels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
import torch

from voxnest.audio import audio_info, read_audio
from voxnest.errors import AudioError, CheckpointError
from voxnest.models.encoder import as_waveform

if TYPE_CHECKING:
    from voxnest.models.encoder import Recordings, SpeakerEncoder, Waveform

_WINDOWS_AT_ONCE = 16
MAX_DURATION = 60.0
"""The longest part given to the network at once, in seconds: its memory grows with the length."""


def encode(
    encoder: SpeakerEncoder, recordings: Recordings, dim: int | None = None, sample_rate: int | None = None
) -> np.ndarray:
    """See `SpeakerEncoder.encode`."""
    if dim is not None:
        encoder.head.check_dim(dim)
    if sample_rate is not None and sample_rate <= 0:
        raise AudioError("sample_rate", str(sample_rate), "a positive number of samples per second")
    several = isinstance(recordings, (list, tuple))
    listed: Any = recordings if several else [recordings]
    embeddings = np.zeros((len(listed), encoder.embedding_dim), np.float32)
    with eval_mode(encoder):
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


def window_embeddings(encoder: SpeakerEncoder, waveform: torch.Tensor, window: float) -> torch.Tensor:
    """Embeddings of windows that slide over a recording by half their length, `[windows, embedding_dim]` float32.

    The windows are cut from the features of the whole recording, and what is left at its end is shorter than half a
    window; a recording shorter than a window is repeated.

    Args:
        encoder: in eval mode.
        waveform: `[1, samples]`, on its device.
        window: in seconds.

    Raises:
        AudioError: a window is shorter than the encoder needs.

    Source: the tests of AutoSpeech (arXiv 2005.03215), which stretches recordings that are too short.
    """
    frontend: Any = encoder.frontend
    samples = round(window * encoder.sample_rate)
    if samples < encoder.min_samples:
        least = encoder.min_samples / encoder.sample_rate
        raise AudioError("window", f"{window:g} s", f"{least:g} s or more, which {encoder.name} needs")
    if waveform.shape[1] < samples:
        waveform = waveform.repeat(1, -(-samples // waveform.shape[1]))[:, :samples]
    raw = frontend.raw_features(waveform)
    frames = min(max(round(samples / frontend.hop_length), frontend.min_frames), raw.shape[2])
    windows = raw[0].unfold(1, frames, max(1, frames // 2)).transpose(0, 1)
    blocks: list[Any] = [encoder.embed_features(frontend.finish(part)) for part in windows.split(_WINDOWS_AT_ONCE)]
    return torch.cat(blocks).float()


def _read(path: str | Path, encoder: SpeakerEncoder) -> Iterator[np.ndarray]:
    rate = encoder.sample_rate
    shortest = encoder.min_samples / rate
    for offset, duration in parts(audio_info(path).duration):
        yield read_audio(path, sample_rate=rate, offset=offset, duration=duration, min_duration=shortest).samples


def _at_rate(samples: Waveform, name: str, sample_rate: int | None, encoder: SpeakerEncoder) -> np.ndarray:
    """Check samples; mono float32 at the rate of the encoder: `[samples]`."""
    try:
        waveform = as_waveform(samples).detach().float().cpu().numpy()
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


def _cut(waveform: np.ndarray, encoder: SpeakerEncoder) -> Iterator[np.ndarray]:
    count = math.ceil(len(waveform) / (MAX_DURATION * encoder.sample_rate))
    yield from np.array_split(waveform, count)


def _embed(encoder: SpeakerEncoder, waveforms: Iterator[np.ndarray], name: str) -> np.ndarray:
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        embedded = [encoder(torch.from_numpy(part)[None].to(device))[0].float().cpu().numpy() for part in waveforms]
    embedding = mean_embedding(np.stack(embedded))
    if not np.isfinite(embedding).all():
        found = f"the embedding of {name} is NaN or infinite"
        raise CheckpointError(encoder.name, found, "a model whose training did not diverge")
    return embedding


@contextmanager
def eval_mode(encoder: SpeakerEncoder) -> Iterator[None]:
    """Put every module in eval mode, then back as each was: a frozen part may have been in eval mode all along."""
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
