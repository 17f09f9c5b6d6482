"""`read_audio` and `audio_info`: whole or partial recordings as mono float32 at any rate."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from voxnest.audio.decoder import Decoder
from voxnest.audio.libsndfile import SoundFileDecoder, suits
from voxnest.errors import AudioError

SAMPLE_RATE = 16000
"""The rate of the speaker encoders, in Hz."""

SILENCE_PEAK = 1e-4
"""A recording whose peak is at most this (-80 dBFS, three steps of 16 bits) is silent."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 768_000
"""Sample rates that are read and made, in Hz: half of what any telephone has, and four times a studio's highest."""

MOST_CHANNELS = 1024
"""As libsndfile has it. A block of so many is 64 MiB."""

LEAST_BYTES_PER_SECOND = 8
"""What a file must have for each second that it promises. No codec spends less: FLAC and Opus need 15 for silence."""

MOST_SAMPLES = 1 << 28
"""What `read_audio` gives at once: 1 GiB, 4 h 39 min at 16 kHz. A longer recording is read in parts."""

LOUDEST = 2.0**31
"""The largest sample that is sound: a float file whose samples are the integers of 32 bits, not scaled to [-1, 1].

Encoders still give finite embeddings of it; the squares of much larger ones are infinite in float32.
"""

# soxr's filter reaches less far than this on either side, so that a resampled slice is, to 3e-7, the slice of
# the resampled whole.
_FILTER_SECONDS = 0.05


@dataclass(frozen=True, eq=False)
class Audio:
    """A recording or a part of one.

    Attributes:
        samples: [samples] float32, mono, nominally in [-1, 1]; a float file that is louder is left as it is, up to
            `LOUDEST`.
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
        sample_rate: what to resample to, in Hz, from `LOWEST_RATE` to `HIGHEST_RATE`.
        offset: where to begin, in seconds. The decoder seeks there; nothing before is decoded.
        duration: how much to read, in seconds; up to the end if None or if less is left. A part equals the
            same slice of the whole (to 3e-7 when resampled, to 1e-3 in lossy codecs), except that Matroska
            and WebM, whose time stamps are coarse, may shift it by 1 ms.
        min_duration: the least that must have been read, in seconds.

    Returns:
        The samples. Channels are averaged. Silence is not an error; see `Audio.is_silent`.

    Raises:
        AudioError: the file is missing, empty, truncated, damaged, not audio, without channels or samples,
            holds NaN, infinity or what is beyond `LOUDEST`, is shorter than `min_duration`, or `offset` lies beyond
            its end; its rate, its channels or the length that it promises are beyond the limits above; or more than
            `MOST_SAMPLES` are asked for. A cut is noticed if the part asked for reaches it and the format tells its
            length: Ogg and raw AAC do not.
        ValueError: a negative `offset`, a `duration` that is not positive, or a `sample_rate` out of range.
    """
    path = Path(path)
    if not 0 <= offset < math.inf:
        raise ValueError(f"offset must be a number of seconds >= 0, not {offset}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"duration must be a positive number of seconds or None, not {duration}")
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise ValueError(f"sample_rate must be from {LOWEST_RATE} to {HIGHEST_RATE}, not {sample_rate}")
    first = round(offset * sample_rate)
    last = None if duration is None else first + round(duration * sample_rate)
    with _open(path) as decoder:
        samples = _read_slice(path, decoder, sample_rate, first, last)
        if not len(samples):
            beyond = offset > 0 and decoder.frames != 0
            raise AudioError(path, f"ends before {offset:g} s" if beyond else "holds no samples")
    if len(samples) < round(min_duration * sample_rate):
        raise AudioError(path, f"lasts {len(samples) / sample_rate:.3g} s", f"at least {min_duration:.3g} s")
    return Audio(samples, sample_rate, path)


def audio_info(path: str | Path) -> AudioInfo:
    """Tell what a recording is, decoding it only where its container does not say how long it is.

    The end of WAV and FLAC is looked at, so that a truncated one is found here already.

    Raises:
        AudioError: the file is missing, empty, truncated, not audio, without channels or samples, or beyond the
            limits above.
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
    decoder = _suited(path, plain)
    try:
        _check_header(path, decoder)
    except AudioError:
        decoder.__exit__()
        raise
    return decoder


def _suited(path: Path, plain: bool) -> Decoder:
    if plain:
        try:
            decoder = SoundFileDecoder(path)
        except (soundfile.SoundFileError, TypeError, UnicodeError):  # TypeError, UnicodeError: odd names
            return _by_ffmpeg(path)
        if decoder.frames:
            return decoder
        # What was written to a pipe may say 0 or nothing; FFmpeg then reads up to the end of the file.
        decoder.__exit__()
    return _by_ffmpeg(path)


def _by_ffmpeg(path: Path) -> Decoder:
    from voxnest.audio.ffmpeg import FFmpegDecoder  # 0.1 s, that WAV and FLAC need not wait

    return FFmpegDecoder(path)


def _check_header(path: Path, decoder: Decoder) -> None:
    """Refuse a header whose figures no recording has: they would cost memory and time without bounds."""
    if not LOWEST_RATE <= decoder.sample_rate <= HIGHEST_RATE:
        found = f"has a sample rate of {decoder.sample_rate} Hz"
        raise AudioError(path, found, f"{LOWEST_RATE} to {HIGHEST_RATE} Hz")
    if decoder.channels > MOST_CHANNELS:
        raise AudioError(path, f"has {decoder.channels} channels", f"at most {MOST_CHANNELS}")
    seconds, size = (decoder.frames or 0) / decoder.sample_rate, path.stat().st_size
    if seconds > size / LEAST_BYTES_PER_SECOND:
        found = f"is truncated or damaged: its header promises {seconds:.4g} s in {size} bytes"
        raise AudioError(path, found, f"at least {LEAST_BYTES_PER_SECOND} bytes for each second")


def _read_slice(path: Path, decoder: Decoder, sample_rate: int, first: int, last: int | None) -> np.ndarray:
    """The samples [first, last) of the whole recording at `sample_rate`."""
    rate = decoder.sample_rate
    if decoder.frames is not None:  # what is too much is refused before the work
        length = decoder.frames * sample_rate // rate
        _check_count(path, min(length, length if last is None else last) - first, sample_rate)
    if rate == sample_rate:
        return _gather(path, _sound(path, decoder, first, last), sample_rate)
    # Begin where a sample of the file and one of the result coincide: the filter then has the phase it has in
    # the whole.
    common = math.gcd(rate, sample_rate)
    step, result_step = rate // common, sample_rate // common
    context = math.ceil(_FILTER_SECONDS * rate)
    begin = max(0, first * rate // sample_rate - context) // step * step
    end = None if last is None else math.ceil(last * rate / sample_rate) + context
    resampled = _resampled(_sound(path, decoder, begin, end), rate, sample_rate)
    skipped = begin // step * result_step
    return _gather(path, _cut(resampled, first - skipped, None if last is None else last - skipped), sample_rate)


def _sound(path: Path, decoder: Decoder, start: int, stop: int | None) -> Iterator[np.ndarray]:
    """The blocks of a decoder, seen to hold sound."""
    for block in decoder.blocks(start, stop):
        peak = float(np.abs(block).max(initial=0.0))
        if not math.isfinite(peak):
            raise AudioError(path, "holds NaN or infinite samples")
        if peak > LOUDEST:
            raise AudioError(path, f"holds a sample of {peak:.3g}", f"none beyond {LOUDEST:.3g}; full scale is 1")
        yield block


def _resampled(blocks: Iterable[np.ndarray], rate: int, sample_rate: int) -> Iterator[np.ndarray]:
    # Block by block, since soxr would hold up Ctrl-C for as long as it works on one.
    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _cut(blocks: Iterable[np.ndarray], start: int, stop: int | None) -> Iterator[np.ndarray]:
    """The samples [start, stop) of a series of blocks."""
    at = 0
    for block in blocks:
        yield block[max(0, start - at) : None if stop is None else max(0, stop - at)]
        at += len(block)


def _gather(path: Path, blocks: Iterable[np.ndarray], sample_rate: int) -> np.ndarray:
    """One array of all blocks. Memory: a quarter more than it, not twice as `np.concatenate` takes."""
    samples, count = np.empty(1 << 14, np.float32), 0
    for block in blocks:
        end = count + len(block)
        if end > len(samples):
            _check_count(path, end, sample_rate)
            samples.resize(max(end, 5 * len(samples) // 4), refcheck=False)
        samples[count:end] = block
        count = end
    samples.resize(count, refcheck=False)
    return samples


def _check_count(path: Path, count: int, sample_rate: int) -> None:
    if count > MOST_SAMPLES:
        hours = MOST_SAMPLES / sample_rate / 3600
        raise AudioError(path, f"is too long to be read at once at {sample_rate} Hz", f"parts of {hours:.1f} h at most")
