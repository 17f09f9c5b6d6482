"""`read_audio` and `audio_info`: whole or partial recordings as mono float32 at any rate."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voxnest.audio.decoder import Decoder
from voxnest.audio.ffmpeg import FFmpegDecoder
from voxnest.audio.libsndfile import SoundFileDecoder, suits
from voxnest.errors import AudioError

SAMPLE_RATE = 16000
"""The rate of the speaker encoders, in Hz."""

SILENCE_PEAK = 1e-4
"""A recording whose peak is at most this (-80 dBFS, three steps of 16 bits) is silent."""

_PLAIN = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".sph")
_OTHER = (".mp3", ".m4a", ".aac", ".mp4", ".mov", ".webm", ".mka", ".mkv", ".wma", ".amr")
AUDIO_SUFFIXES = frozenset(_PLAIN + _OTHER)
"""How names of recordings end (lower case), for searching through a folder."""


def list_recordings(folder: Path) -> list[Path]:
    """The recordings in a folder, at all depths and in order, by how their names end; hidden files are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


# soxr's filter reaches less far than this on either side, so that a resampled slice is, to 3e-7, the slice of
# the resampled whole.
_FILTER_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording or a part of one.

    Attributes:
        samples: [samples] float32, mono, nominally in [-1, 1]; a float file that is louder is left as it is.
        sample_rate: in Hz.
        path: where it came from.
    """

    samples: np.ndarray
    sample_rate: int
    path: Path

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear: no sample is above -80 dBFS (`SILENCE_PEAK`)."""
        return float(np.abs(self.samples).max(initial=0.0)) <= SILENCE_PEAK


@dataclass(frozen=True)
class AudioInfo:
    """What a recording is before conversion.

    Attributes:
        duration: in seconds. To the sample, but to 10 ms in Matroska and WebM.
        sample_rate: in Hz.
        channels: how many.
        codec: such as "pcm_16", "flac", "opus", "aac".
    """

    duration: float
    sample_rate: int
    channels: int
    codec: str


def read_audio(
    path: str | Path,
    *,
    sample_rate: int = SAMPLE_RATE,
    offset: float = 0.0,
    duration: float | None = None,
    min_duration: float = 0.0,
) -> Audio:
    """Read a recording, or a part of it, as mono float32.

    Args:
        path: WAV, FLAC, Ogg Vorbis/Opus, MP3, M4A/AAC, MP4, WebM, ... of any rate and number of channels.
        sample_rate: what to resample to, in Hz.
        offset: where to begin, in seconds. The decoder seeks there; nothing before is decoded.
        duration: how much to read, in seconds; up to the end if None or if less is left. A part equals the
            same slice of the whole (to 3e-7 when resampled, to 1e-3 in lossy codecs), except that Matroska
            and WebM, whose time stamps are coarse, may shift it by 1 ms.
        min_duration: the least that must have been read, in seconds.

    Returns:
        The samples. Channels are averaged. Silence is not an error; see `Audio.is_silent`.

    Raises:
        AudioError: the file is missing, empty, truncated, damaged, not audio, without channels or samples,
            holds NaN or infinity, is shorter than `min_duration`, or `offset` lies beyond its end. A cut is
            noticed if the part asked for reaches it and the format tells its length: Ogg and raw AAC do not.
        ValueError: a negative `offset`, or a `duration` or `sample_rate` that is not positive.
    """
    path = Path(path)
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset must be a number of seconds >= 0, not {offset}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"duration must be a positive number of seconds or None, not {duration}")
    if sample_rate <= 0:
        raise ValueError(f"sample_rate must be positive, not {sample_rate}")
    first = round(offset * sample_rate)
    last = None if duration is None else first + round(duration * sample_rate)
    with _open(path) as decoder:
        samples = _read_slice(decoder, sample_rate, first, last)
        if not len(samples):
            beyond = offset > 0 and decoder.frames != 0
            raise AudioError(path, f"ends before {offset:g} s" if beyond else "holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError(path, "holds NaN or infinite samples")
    if len(samples) < round(min_duration * sample_rate):
        raise AudioError(path, f"lasts {len(samples) / sample_rate:.3g} s", f"at least {min_duration:.3g} s")
    return Audio(samples, sample_rate, path)


def audio_info(path: str | Path) -> AudioInfo:
    """Tell what a recording is, decoding it only where its container does not say how long it is.

    The end of WAV and FLAC is looked at, so that a truncated one is found here already.

    Raises:
        AudioError: the file is missing, empty, truncated, not audio, or without channels or samples.
    """
    path = Path(path)
    with _open(path) as decoder:
        frames = decoder.frames
        if frames is None:
            frames = sum(len(block) for block in decoder.blocks(0, None))
        else:
            decoder.check_end()
        if not frames:
            raise AudioError(path, "holds no samples")
        return AudioInfo(frames / decoder.sample_rate, decoder.sample_rate, decoder.channels, decoder.codec)


def _open(path: Path) -> Decoder:
    """Open `path` with the decoder that suits it."""
    try:
        if not path.exists():
            raise AudioError(path, "no such file")
        if not path.is_file():
            raise AudioError(path, "is a directory" if path.is_dir() else "is not a regular file")
        if path.stat().st_size == 0:
            raise AudioError(path, "is empty (0 bytes)")
        plain = suits(path)
    except OSError as error:
        raise AudioError(path, f"cannot be read: {error.strerror}") from error
    if plain:
        try:
            decoder = SoundFileDecoder(path)
        except (soundfile.SoundFileError, TypeError, UnicodeError):  # TypeError, UnicodeError: odd names
            return FFmpegDecoder(path)
        if decoder.frames:
            return decoder
        # What was written to a pipe may say 0 or nothing; FFmpeg then reads up to the end of the file.
        decoder.__exit__()
    return FFmpegDecoder(path)


def _read_slice(decoder: Decoder, sample_rate: int, first: int, last: int | None) -> np.ndarray:
    """The samples [first, last) of the whole recording at `sample_rate`."""
    rate = decoder.sample_rate
    if rate == sample_rate:
        return _collect(decoder, first, last)
    # Begin where a sample of the file and one of the result coincide: the filter then has the phase it has in
    # the whole.
    common = math.gcd(rate, sample_rate)
    step, result_step = rate // common, sample_rate // common
    context = math.ceil(_FILTER_SECONDS * rate)
    begin = max(0, first * rate // sample_rate - context) // step * step
    end = None if last is None else math.ceil(last * rate / sample_rate) + context
    resampled = soxr.resample(_collect(decoder, begin, end), rate, sample_rate)
    skipped = begin // step * result_step
    return resampled[first - skipped : None if last is None else last - skipped]


def _collect(decoder: Decoder, start: int, stop: int | None) -> np.ndarray:
    return np.concatenate([np.empty(0, np.float32), *decoder.blocks(start, stop)])
