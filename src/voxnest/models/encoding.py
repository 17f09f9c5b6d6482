"""Embed recordings one by one: files or samples, of any rate, length and number of channels.

This file needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import soxr

from voxnest.audio import audio_info, read_audio
from voxnest.errors import AudioError, ConfigError, one_of
from voxnest.models.blame import blame_recording, blaming
from voxnest.models.workers import Recording, embed_alone, workers

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder
    from voxnest.models.encoder import Recordings, Waveform

MAX_DURATION = 60.0
"""The longest part given to the network at once, in seconds: its memory grows with the length."""
Short = Literal["error", "repeat"]
"""What becomes of a recording that is shorter than the model takes."""


def encode(
    encoder: Embedder,
    recordings: Recordings,
    dim: int | None = None,
    *,
    batch: int | None = None,
    progress: bool | Callable[[int, int], object] = False,
    sample_rate: int | None = None,
    short: Short = "error",
) -> np.ndarray:
    """See `SpeakerEncoder.encode`."""
    if dim is not None:
        encoder.check_dim(dim)
        encoder = encoder.for_dim(dim)
    if batch is not None and batch < 1:
        raise ConfigError("batch", str(batch), "at least 1")
    if short not in ("error", "repeat"):
        raise ConfigError("short", repr(short), one_of(short, ("error", "repeat")))
    if sample_rate is not None:
        check_rate("sample_rate", sample_rate)
    several = isinstance(recordings, (list, tuple)) and not _is_pair(recordings)
    listed: Any = recordings if several else [recordings]
    names = [
        str(item) if isinstance(item, (str, Path)) else f"recordings[{index}]" if several else "recording"
        for index, item in enumerate(listed)
    ]
    coroutines = (
        _embeddings(encoder, item, name, sample_rate, short) for item, name in zip(listed, names, strict=True)
    )
    embeddings = np.zeros((len(listed), encoder.embedding_dim), np.float32)
    with _told(progress) as tell:
        if len(listed) == 1:  # the network's own threads are all there is to share the work
            with encoder.ready():
                embeddings[0] = checked(encoder, names[0], lambda: embed_alone(encoder, next(coroutines)))
            tell(1, 1)
        elif listed:
            with workers(encoder) as team:
                for index, done in enumerate(team.embed(coroutines, batch or encoder.batch_size)):
                    embeddings[index] = checked(encoder, names[index], done.result)
                    tell(index + 1, len(listed))
    return embeddings[:, :dim]


def _told(progress: bool | Callable[[int, int], object]) -> Any:
    if progress is True:
        from voxnest.progress import progress_bar

        return progress_bar("embedding")
    return nullcontext(progress or (lambda done, total: None))


def checked(encoder: Embedder, name: str, result: Callable[[], np.ndarray]) -> np.ndarray:
    """The embedding of a recording; whatever is wrong with it as an error that tells who is at fault."""
    with blaming(encoder, name):
        embedding = result()
    if not np.isfinite(embedding).all():
        raise blame_recording(encoder, name)
    return embedding


def _embeddings(
    encoder: Embedder, recording: Any, name: str, sample_rate: int | None, short: Short
) -> Recording[np.ndarray]:
    """A recording's embedding from those of its parts."""
    embeddings = []
    if isinstance(recording, (str, Path)):
        waveforms = _read(recording, encoder, short)
    else:
        samples, rate = recording if _is_pair(recording) else (recording, sample_rate)
        waveforms = _cut(_at_rate(samples, name, rate, encoder, short), encoder)
    for waveform in waveforms:
        embeddings.append((yield waveform))
    return mean_embedding(np.stack(embeddings))


def _is_pair(recording: Any) -> bool:
    """Whether it is samples and their rate."""
    return isinstance(recording, tuple) and len(recording) == 2 and isinstance(recording[1], (int, np.integer))


def check_rate(name: str, rate: int) -> None:
    """Raise an `AudioError` for what is no sample rate."""
    if rate <= 0:
        raise AudioError(name, str(rate), "a positive number of samples per second")


def lengthened(waveform: np.ndarray, min_samples: int) -> np.ndarray:
    """A recording that is too short, repeated until it is not; one without samples stays."""
    return np.resize(waveform, min_samples) if 0 < len(waveform) < min_samples else waveform


def parts(duration: float, max_duration: float = MAX_DURATION) -> list[tuple[float, float | None]]:
    """(offset, duration) of equal parts of a recording, no longer than `max_duration`, in seconds.

    The last one's duration is None: it goes up to the end, wherever that is to the sample.
    """
    count = max(1, math.ceil(duration / max_duration))
    length = duration / count
    return [(index * length, length if index < count - 1 else None) for index in range(count)]


def mean_embedding(embeddings: np.ndarray) -> np.ndarray:
    """The embedding `[d]` of a recording from those of its parts `[n, d]`; or several, `[ends, d]` of `[n, ends, d]`.

    It is the mean of the length-normalised ones, times their mean norm: a loud part weighs no more than a faint one.
    """
    if len(embeddings) == 1:
        return embeddings[0]
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=-1, keepdims=True)
    mean = (embeddings / np.maximum(norms, np.finfo(np.float32).tiny)).mean(axis=0)
    return (mean * norms.mean(axis=0)).astype(np.float32)


def _read(path: str | Path, encoder: Embedder, short: Short) -> Iterator[np.ndarray]:
    rate = encoder.sample_rate
    shortest = encoder.min_samples / rate if short == "error" else 0.0
    for offset, duration in parts(audio_info(path).duration):
        samples = read_audio(path, sample_rate=rate, offset=offset, duration=duration, min_duration=shortest).samples
        yield lengthened(samples, encoder.min_samples)


def _at_rate(samples: Waveform, name: str, sample_rate: int | None, encoder: Embedder, short: Short) -> np.ndarray:
    """Check samples; mono float32 at the rate of the encoder: `[samples]`."""
    try:
        waveform = as_array(samples)
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
        check_rate(name, sample_rate)
        waveform = soxr.resample(waveform, sample_rate, encoder.sample_rate)
    if short == "repeat":
        waveform = lengthened(waveform, encoder.min_samples)
    if len(waveform) < encoder.min_samples:
        found = f"{len(waveform)} samples at {encoder.sample_rate} Hz"
        raise AudioError(name, found, f"at least {encoder.min_samples}")
    return waveform


def _cut(waveform: np.ndarray, encoder: Embedder) -> Iterator[np.ndarray]:
    count = math.ceil(len(waveform) / (MAX_DURATION * encoder.sample_rate))
    yield from np.array_split(waveform, count)


def as_array(samples: Waveform) -> np.ndarray:
    """Samples of any shape as float32; full scale of whole numbers becomes 1.

    Raises:
        AudioError: for numbers of another kind.
    """
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
