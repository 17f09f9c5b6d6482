"""Every format that people have is read right, whole and in part; a bad file is one clear error."""

import io
import multiprocessing
import os
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from voxnest.audio import Audio, audio_info, ffmpeg, read_audio
from voxnest.errors import AudioError

RATE = 48000
SECONDS = 4.0


def chirp(rate: int = RATE, seconds: float = SECONDS) -> np.ndarray:
    """200 to 3000 Hz with a swelling loudness: no two places of it are alike."""
    t = np.arange(round(rate * seconds)) / rate
    phase = 2 * np.pi * (200 * t + 1400 / seconds * t**2)
    return (0.5 * np.sin(phase) * (0.6 + 0.4 * np.sin(6 * np.pi * t))).astype(np.float32)


def encode(
    target: Path | io.RawIOBase,
    codec: str | None,
    container: str | None = None,
    video: str | None = None,
    **options: str,
) -> None:
    """Write the chirp with FFmpeg."""
    output = str(target) if isinstance(target, Path) else target
    with av.open(output, "w", format=container, options=options) as file:
        if video:
            picture = file.add_stream(video, rate=25, width=64, height=64, pix_fmt="yuv420p")
        if codec:
            sound = file.add_stream(codec, rate=RATE, layout="mono", bit_rate=128_000)
        if video:
            for number in range(round(SECONDS * 25)):
                image = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number, np.uint8), format="rgb24")
                image.pts, image.time_base = number, Fraction(1, 25)
                file.mux(picture.encode(image))
            file.mux(picture.encode())
        if codec:
            frame = av.AudioFrame.from_ndarray(chirp()[None], format="flt", layout="mono")
            frame.sample_rate, frame.pts = RATE, 0
            file.mux(sound.encode(frame))
            file.mux(sound.encode())


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chirp in every format, named for it."""
    folder = tmp_path_factory.mktemp("recordings")
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"):
        soundfile.write(folder / f"{subtype.lower()}.wav", chirp(), RATE, subtype=subtype)
    soundfile.write(folder / "lossless.flac", chirp(), RATE)
    soundfile.write(folder / "vorbis.ogg", chirp(), RATE, format="OGG", subtype="VORBIS")
    soundfile.write(folder / "opus.opus", chirp(), RATE, format="OGG", subtype="OPUS")
    soundfile.write(folder / "vbr.mp3", chirp(), RATE, format="MP3")
    encode(folder / "cbr.mp3", "libmp3lame")
    encode(folder / "unsized.mp3", "libmp3lame", write_xing="0")
    encode(folder / "aac.m4a", "aac")
    encode(folder / "faststart.m4a", "aac", "mp4", movflags="faststart")
    encode(folder / "video.mp4", "aac", video="libx264")
    encode(folder / "raw.aac", "aac", "adts")
    encode(folder / "opus.webm", "libopus")
    encode(folder / "video.webm", "libopus", video="libvpx-vp9")
    return folder


# What the file loses, what its decoder may shift (samples at 16 kHz), and how it may differ in length.
LOSSLESS = ["pcm_16.wav", "pcm_24.wav", "pcm_32.wav", "float.wav", "double.wav", "lossless.flac"]
SAMPLE_EXACT = [*LOSSLESS, "pcm_u8.wav", "vorbis.ogg", "opus.opus", "vbr.mp3", "cbr.mp3"]
SAMPLE_EXACT += ["aac.m4a", "faststart.m4a", "video.mp4"]
TELLS_NO_DELAY = ["raw.aac", "unsized.mp3"]
COARSE_CLOCK = ["opus.webm", "video.webm"]


def delay(samples: np.ndarray, reference: np.ndarray) -> int:
    size = 1 << (len(samples) + len(reference)).bit_length()
    product = np.fft.rfft(samples, size) * np.conj(np.fft.rfft(reference, size))
    lag = int(np.argmax(np.fft.irfft(product)))
    return lag if lag < size // 2 else lag - size


def snr(samples: np.ndarray, reference: np.ndarray) -> float:
    return float(10 * np.log10((reference**2).sum() / ((samples - reference) ** 2).sum()))


@pytest.mark.parametrize("name", SAMPLE_EXACT + COARSE_CLOCK)
def test_every_format_gives_the_original_sound_in_its_place(recordings: Path, name: str) -> None:
    audio = read_audio(recordings / name)
    reference = chirp(16000)
    assert audio.samples.dtype == np.float32
    assert audio.samples.shape == (64000,)
    assert audio.sample_rate == 16000
    assert audio.duration == SECONDS
    assert not audio.is_silent
    inner = slice(400, -400)  # the chirp begins and ends abruptly
    least = 80 if name in LOSSLESS else 30 if name == "pcm_u8.wav" else 15
    assert delay(audio.samples, reference) == 0
    assert snr(audio.samples[inner], reference[inner]) > least


@pytest.mark.parametrize("name", TELLS_NO_DELAY)
def test_a_format_without_encoder_delay_begins_late_but_by_no_more_than_documented(recordings: Path, name: str) -> None:
    audio = read_audio(recordings / name, sample_rate=RATE)
    assert 0 < delay(audio.samples, chirp()) <= 2112
    assert 0 <= len(audio.samples) - len(chirp()) <= 4096


@pytest.mark.parametrize("name", SAMPLE_EXACT + TELLS_NO_DELAY)
@pytest.mark.parametrize("rate", [16000, 22050, RATE])
def test_a_part_is_the_slice_of_the_whole(recordings: Path, name: str, rate: int) -> None:
    whole = read_audio(recordings / name, sample_rate=rate).samples
    for offset, duration in ((0.0, 0.5), (0.3001, 0.7), (1.70007, 1.3), (3.5, 9.0)):
        part = read_audio(recordings / name, sample_rate=rate, offset=offset, duration=duration).samples
        first = round(offset * rate)
        expected = whole[first : first + round(duration * rate)]
        assert part.shape == expected.shape
        np.testing.assert_allclose(part, expected, atol=1e-6 if name in LOSSLESS else 1e-3)


@pytest.mark.parametrize("name", COARSE_CLOCK)
def test_a_part_of_webm_is_the_slice_of_the_whole_within_a_millisecond(recordings: Path, name: str) -> None:
    whole = read_audio(recordings / name, sample_rate=RATE).samples
    for offset in (0.3, 1.7, 3.0):
        part = read_audio(recordings / name, sample_rate=RATE, offset=offset, duration=0.5).samples
        first = round(offset * RATE)
        shift = delay(part, whole[first - 480 : first + len(part) + 480]) + 480
        assert abs(shift) <= 48
        moved = whole[first - shift : first - shift + len(part)]
        np.testing.assert_allclose(part, moved, atol=1e-3)


def test_a_part_far_into_a_recording_costs_no_more_than_one_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("long.flac", "long.mp3"):
        soundfile.write(tmp_path / name, np.tile(chirp(16000), 30), 16000)
    decoded = []

    def counted(frame: av.AudioFrame) -> np.ndarray:
        decoded.append(frame.samples)
        return as_float(frame)

    as_float = ffmpeg._as_float
    monkeypatch.setattr(ffmpeg, "_as_float", counted)
    monkeypatch.setattr(soundfile.SoundFile, "read", counting_read(soundfile.SoundFile.read, decoded))
    for name in ("long.flac", "long.mp3"):
        decoded.clear()
        part = read_audio(tmp_path / name, offset=110.0, duration=1.0)
        assert len(part.samples) == 16000
        assert 0 < sum(decoded) < 2 * 16000


def counting_read(read: Callable[..., np.ndarray], counts: list[int]) -> Callable[..., np.ndarray]:
    def counted(*args: object, **kwargs: object) -> np.ndarray:
        block = read(*args, **kwargs)
        counts.append(len(block))
        return block

    return counted


@pytest.mark.parametrize("name", [*SAMPLE_EXACT, *TELLS_NO_DELAY, *COARSE_CLOCK])
def test_info_agrees_with_what_is_read(recordings: Path, name: str) -> None:
    info = audio_info(recordings / name)
    read = read_audio(recordings / name, sample_rate=RATE)
    # libsndfile decodes Opus at the rate of the original, and that is the rate of its encoder here.
    assert (info.sample_rate, info.channels) == (RATE, 1)
    assert info.duration == pytest.approx(read.duration, abs=0.011 if name in COARSE_CLOCK else 1e-9)
    assert info.codec in ("flac", "vorbis", "opus", "mp3", "aac") or info.codec in Path(name).stem


def test_info_of_a_container_that_tells_its_length_decodes_nothing(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ffmpeg, "_as_float", refuse)
    for name in ("aac.m4a", "vbr.mp3", "opus.webm", "vorbis.ogg"):
        assert audio_info(recordings / name).duration == pytest.approx(SECONDS, abs=0.011)


@pytest.mark.parametrize(("name", "channels"), [("stereo.wav", 2), ("stereo.flac", 2), ("surround.wav", 6)])
def test_channels_are_averaged(tmp_path: Path, name: str, channels: int) -> None:
    gains = np.linspace(0.1, 1.0, channels)
    soundfile.write(tmp_path / name, chirp(16000)[:, None] * gains, 16000, subtype="PCM_24")
    samples = read_audio(tmp_path / name).samples
    np.testing.assert_allclose(samples, chirp(16000) * gains.mean(), atol=1e-5)


def test_interleaved_channels_of_ffmpeg_are_averaged(tmp_path: Path) -> None:
    path = tmp_path / "stereo.mka"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("pcm_s16le", rate=16000, layout="stereo")
        both = np.stack([chirp(16000), 0.5 * chirp(16000)], axis=1)
        frame = av.AudioFrame.from_ndarray((both * 32767).astype(np.int16).reshape(1, -1), "s16", "stereo")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    np.testing.assert_allclose(read_audio(path).samples, 0.75 * chirp(16000), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 96000])
def test_any_rate_becomes_the_one_asked_for(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", chirp(rate), rate, subtype="FLOAT")
    audio = read_audio(tmp_path / "a.wav")
    assert abs(len(audio.samples) - 64000) <= 1
    inner = slice(1000, 63000)
    assert snr(audio.samples[inner], chirp(16000)[inner]) > 70


def test_real_speech_is_the_same_in_every_container(speech: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(speech, dtype="float32")
    np.testing.assert_array_equal(read_audio(speech).samples, samples)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav").samples, samples)
    soundfile.write(tmp_path / "a.mp3", samples, rate)
    lossy = read_audio(tmp_path / "a.mp3").samples
    assert len(lossy) == len(samples)
    assert np.corrcoef(lossy, samples)[0, 1] > 0.99


def test_a_float_file_beyond_full_scale_is_left_as_it_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", 4 * chirp(16000), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "loud.wav").samples, 4 * chirp(16000))


@pytest.mark.parametrize(("peak", "silent"), [(0.0, True), (9e-5, True), (3e-4, False)])
def test_silence_is_read_and_flagged(tmp_path: Path, peak: float, silent: bool) -> None:
    soundfile.write(tmp_path / "a.wav", 2 * peak * chirp(16000), 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav").is_silent is silent


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFF0])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(recordings: Path, tmp_path: Path, size: int) -> None:
    data = bytearray((recordings / "pcm_16.wav").read_bytes())
    where = data.find(b"data")
    data[where + 4 : where + 8] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", size)
    (tmp_path / "piped.wav").write_bytes(data)
    whole = read_audio(recordings / "pcm_16.wav").samples
    np.testing.assert_allclose(read_audio(tmp_path / "piped.wav").samples, whole, atol=1e-6)
    assert audio_info(tmp_path / "piped.wav").duration == SECONDS


@pytest.mark.parametrize(("codec", "container"), [("flac", "flac"), ("aac", "mp4"), ("libopus", "webm")])
def test_a_file_written_to_a_pipe_is_read_to_its_end(tmp_path: Path, codec: str, container: str) -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.data += data
            return len(data)

    pipe = Pipe()
    options = {"movflags": "frag_every_frame+empty_moov"} if container == "mp4" else {}
    encode(pipe, codec, container, **options)
    (tmp_path / "piped").write_bytes(pipe.data)
    assert audio_info(tmp_path / "piped").duration == pytest.approx(SECONDS, abs=0.05)
    assert 0 <= delay(read_audio(tmp_path / "piped").samples, chirp(16000)) <= 704  # 2112 at 48 kHz


def error_of(path: Path, **arguments: float) -> str:
    """The one line that a user sees."""
    with pytest.raises(AudioError) as caught:
        read_audio(path, **arguments)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.wav") == "no such file"
    assert error_of(tmp_path) == "is a directory"
    assert error_of(Path("/dev/null")) == "is not a regular file"
    (tmp_path / "empty.wav").touch()
    assert error_of(tmp_path / "empty.wav") == "is empty (0 bytes)"
    assert "cannot be read" in error_of(tmp_path / ("x" * 300 + ".wav"))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3", ".m4a", ".txt", ".raw", ".m3u8", ""])
@pytest.mark.parametrize("content", [b"hello\n" * 100, b"#EXTM3U\nhttp://[::1]/a.aac\n", b"RIFF", b"fLaC"])
def test_what_is_not_audio_is_refused(
    tmp_path: Path, suffix: str, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    assert "is not audio" in error_of(path) or "no sound track" in error_of(path)
    with pytest.raises(AudioError):
        audio_info(path)
    assert capfd.readouterr() == ("", "")


def test_random_bytes_never_give_anything_but_an_audio_error(
    recordings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for name in (*LOSSLESS[:1], "lossless.flac", "opus.opus", "vbr.mp3", "aac.m4a", "opus.webm", "raw.aac"):
        data = np.frombuffer((recordings / name).read_bytes(), np.uint8)
        for _ in range(8):
            broken = data.copy()
            where = rng.integers(0, len(broken), 30)
            broken[where] = rng.integers(0, 256, 30)
            broken[: rng.integers(0, 64)] ^= rng.integers(0, 256, dtype=np.uint8)
            (tmp_path / name).write_bytes(broken.tobytes())
            for attempt in (read_audio, audio_info, partial(read_audio, offset=2.0, duration=0.5)):
                with suppress(AudioError):
                    attempt(tmp_path / name)
    assert capfd.readouterr().err == ""


def test_a_video_without_sound_is_refused(tmp_path: Path) -> None:
    encode(tmp_path / "mute.mp4", None, video="libx264")
    assert "has no sound track" in error_of(tmp_path / "mute.mp4")


@pytest.mark.parametrize(
    "name", ["pcm_16.wav", "lossless.flac", "vbr.mp3", "cbr.mp3", "aac.m4a", "faststart.m4a", "opus.webm"]
)
def test_a_cut_recording_is_refused(
    recordings: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    data = (recordings / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 6 // 10])
    assert "truncated" in error_of(path) or "cut off" in error_of(path)
    assert "truncated" in error_of(path, offset=3.0, duration=0.5) or "cut off" in error_of(path)
    assert capfd.readouterr().err == ""
    path.write_bytes(data[:20])
    error_of(path)


@pytest.mark.parametrize("name", ["lossless.flac", "faststart.m4a", "cbr.mp3"])
def test_what_comes_before_a_cut_can_still_be_read(recordings: Path, tmp_path: Path, name: str) -> None:
    data = (recordings / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 6 // 10])
    part = read_audio(tmp_path / name, offset=0.5, duration=0.5)
    whole = read_audio(recordings / name)
    np.testing.assert_allclose(part.samples, whole.samples[8000:16000], atol=1e-3)


@pytest.mark.parametrize("name", ["pcm_16.wav", "lossless.flac"])
def test_info_finds_a_cut_recording_without_decoding_it(recordings: Path, tmp_path: Path, name: str) -> None:
    data = (recordings / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) - 3000])
    with pytest.raises(AudioError, match="truncated"):
        audio_info(tmp_path / name)


def test_a_wav_with_zero_channels_is_refused(recordings: Path, tmp_path: Path) -> None:
    data = bytearray((recordings / "pcm_16.wav").read_bytes())
    data[22:24] = b"\0\0"
    (tmp_path / "a.wav").write_bytes(data)
    assert error_of(tmp_path / "a.wav") == "has zero channels"


@pytest.mark.parametrize("name", ["a.wav", "a.ogg"])
def test_a_recording_without_samples_is_refused(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, np.zeros(0, np.float32), 16000)
    assert error_of(tmp_path / name) == "holds no samples"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, value: float, rate: int) -> None:
    samples = chirp(rate)
    samples[5000] = value
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    assert error_of(tmp_path / "a.wav") == "holds NaN or infinite samples"
    assert len(read_audio(tmp_path / "a.wav", offset=2.0).samples) == 32000


def test_a_recording_that_is_too_short_is_refused(recordings: Path) -> None:
    path = recordings / "aac.m4a"
    assert error_of(path, min_duration=5.0) == "lasts 4 s (expected at least 5 s)"
    assert error_of(path, offset=3.5, min_duration=1.0) == "lasts 0.5 s (expected at least 1 s)"
    assert read_audio(path, min_duration=4.0).duration == 4.0


@pytest.mark.parametrize("name", ["pcm_16.wav", "lossless.flac", "vbr.mp3", "aac.m4a", "opus.webm", "raw.aac"])
@pytest.mark.parametrize("offset", [4.1, 100.0])
def test_an_offset_beyond_the_end_is_refused(recordings: Path, name: str, offset: float) -> None:
    assert error_of(recordings / name, offset=offset) == f"ends before {offset:g} s"


@pytest.mark.parametrize("arguments", [{"offset": -1.0}, {"duration": 0.0}, {"duration": np.nan}, {"sample_rate": 0}])
def test_an_impossible_argument_is_a_value_error(recordings: Path, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        read_audio(recordings / "pcm_16.wav", **arguments)


def test_a_name_of_any_characters_is_read(recordings: Path, tmp_path: Path) -> None:
    for source in ("aac.m4a", "pcm_16.wav"):
        for name in ("ünï cödé [1] %d", "http:x", os.fsdecode(b"\xff\xfe")):
            path = tmp_path / f"{name}{Path(source).suffix}"
            path.write_bytes((recordings / source).read_bytes())
            assert read_audio(path).duration == SECONDS


MIXED = ["pcm_16.wav", "lossless.flac", "opus.opus", "vbr.mp3", "aac.m4a", "opus.webm"]


def read_sum(path: Path) -> float:
    return float(np.abs(read_audio(path, offset=1.0, duration=1.0).samples).sum())


def test_threads_and_forked_workers_read_the_same(recordings: Path) -> None:
    paths = [recordings / name for name in MIXED * 4]
    alone = [read_sum(path) for path in paths]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(read_sum, paths)) == alone
    with multiprocessing.get_context("fork").Pool(2) as workers:
        assert workers.map(read_sum, paths) == alone


def test_audio_is_what_it_says(recordings: Path) -> None:
    audio = read_audio(str(recordings / "pcm_16.wav"), sample_rate=8000)
    assert isinstance(audio, Audio)
    assert (audio.sample_rate, audio.path) == (8000, recordings / "pcm_16.wav")
    with pytest.raises(AttributeError):
        audio.sample_rate = 1  # type: ignore[misc]
