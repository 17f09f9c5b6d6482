"""What no recording has is refused before it costs memory or time; Ctrl-C is heard at once."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from voxnest.audio import audio_info, list_recordings, read_audio, reading
from voxnest.errors import AudioError
from voxnest.zoo.registry import create_encoder

TONE = (0.3 * np.sin(2 * np.pi * 440 / 16000 * np.arange(16000))).astype(np.float32)


def wav_of(rate: int, channels: int, samples: np.ndarray = TONE) -> bytes:
    data = (samples * 32767).astype("<i2").tobytes()
    head = struct.pack("<HHIIHH", 1, channels, rate, rate * 2 * channels & 0xFFFFFFFF, 2 * channels & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("rate", "channels", "message"),
    [
        (1, 1, r"a\.wav: has a sample rate of 1 Hz \(expected 1000 to 768000 Hz\)"),
        (2**31 - 1, 1, r"a\.wav: has a sample rate of \d+ Hz \(expected 1000 to 768000 Hz\)"),
        (16000, 65535, r"a\.wav: (has 65535 channels|has no sound track)"),
    ],
)
def test_a_header_of_no_recording_is_refused(tmp_path: Path, rate: int, channels: int, message: str) -> None:
    (tmp_path / "a.wav").write_bytes(wav_of(rate, channels))
    for attempt in (audio_info, read_audio):
        with pytest.raises(AudioError, match=message):
            attempt(tmp_path / "a.wav")


def test_rates_at_the_limits_are_read(tmp_path: Path) -> None:
    for rate in (reading.LOWEST_RATE, reading.HIGHEST_RATE):
        (tmp_path / "a.wav").write_bytes(wav_of(rate, 1))
        assert audio_info(tmp_path / "a.wav").sample_rate == rate
        assert len(read_audio(tmp_path / "a.wav").samples) == round(16000 * 16000 / rate)
    with pytest.raises(ValueError, match="sample_rate must be from 1000 to 768000, not 1"):
        read_audio(tmp_path / "a.wav", sample_rate=1)


def test_more_channels_than_stated_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", np.tile(TONE[:, None], 8), 16000)
    assert audio_info(tmp_path / "a.wav").channels == 8
    monkeypatch.setattr(reading, "MOST_CHANNELS", 7)
    with pytest.raises(AudioError, match=r"a\.wav: has 8 channels \(expected at most 7\)"):
        read_audio(tmp_path / "a.wav")


def test_a_header_that_promises_more_than_a_file_can_hold_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", TONE, 16000)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, *struct.pack(">I", 66 * 3600 * 16000)])  # STREAMINFO's number of samples
    (tmp_path / "a.flac").write_bytes(data)
    soundfile.write(tmp_path / "a.ogg", TONE, 16000)
    data = bytearray((tmp_path / "a.ogg").read_bytes())
    last = data.rindex(b"OggS")
    data[last + 6 : last + 14] = struct.pack("<q", 66 * 3600 * 16000)  # the granule position of the last page
    data[last + 22 : last + 26] = bytes(4)
    data[last + 22 : last + 26] = struct.pack("<I", ogg_checksum(data[last:]))
    (tmp_path / "a.ogg").write_bytes(data)
    for name in ("a.flac", "a.ogg"):
        found = (
            rf"{name}: is truncated or damaged: its header promises 2\.376e\+05 s in \d+ bytes \(expected at least 8 b"
        )
        for attempt in (audio_info, read_audio):
            with pytest.raises(AudioError, match=found):
                attempt(tmp_path / name)


def ogg_checksum(page: bytes) -> int:
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return value


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_what_is_too_long_to_be_read_at_once_is_read_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, rate: int
) -> None:
    soundfile.write(tmp_path / name, np.tile(TONE, 10), rate)
    monkeypatch.setattr(reading, "MOST_SAMPLES", 32000)
    with pytest.raises(AudioError, match=rf"{name}: is too long to be read at once at 16000 Hz \(expected parts of"):
        read_audio(tmp_path / name)
    assert len(read_audio(tmp_path / name, offset=0.5, duration=2.0).samples) == 32000


def test_what_tells_no_length_is_not_read_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with av.open(str(tmp_path / "a.aac"), "w", format="adts") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.tile(TONE, 10)[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert audio_info(tmp_path / "a.aac").duration > 9
    monkeypatch.setattr(reading, "MOST_SAMPLES", 32000)
    with pytest.raises(AudioError, match=r"a\.aac: is too long to be read at once"):
        read_audio(tmp_path / "a.aac")


@pytest.mark.parametrize(
    ("flags", "box", "fields"), [("", b"stsz", (1, 1 << 26)), ("empty_moov", b"trun", (1 << 26, 0))]
)
def test_an_index_of_more_samples_than_a_file_has_bytes_costs_no_memory(
    tmp_path: Path, flags: str, box: bytes, fields: tuple[int, int]
) -> None:
    with av.open(str(tmp_path / "a.m4a"), "w", options={"movflags": flags or "faststart"}) as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None], format="flt", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert audio_info(tmp_path / "a.m4a").duration == pytest.approx(1.0, abs=0.15)
    data = bytearray((tmp_path / "a.m4a").read_bytes())
    count = data.rindex(box) + 8
    data[count : count + 8] = struct.pack(">II", *fields)
    (tmp_path / "a.m4a").write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.m4a: is not audio, or its index is damaged"):
        audio_info(tmp_path / "a.m4a")


def test_a_sound_track_of_an_unknown_codec_is_refused(tmp_path: Path) -> None:
    data = bytearray(wav_of(16000, 1))
    data[20:22] = b"\xfe\x7f"  # a format tag that nobody has
    (tmp_path / "a.wav").write_bytes(data)
    with pytest.raises(AudioError, match=r"a\.wav: has no sound track that can be decoded"):
        read_audio(tmp_path / "a.wav")


@pytest.mark.timeout(20)
def test_a_playlist_of_files_on_the_disk_is_not_waited_for(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", TONE, 16000)
    (tmp_path / "a.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:1,\na.mp3\n")  # without an end: live
    (tmp_path / "b.wav").write_text("ffconcat version 1.0\nfile a.mp3\n")
    for name in ("a.m3u8", "b.wav"):
        with pytest.raises(AudioError, match="is not audio"):
            audio_info(tmp_path / name)


def test_tags_in_any_encoding_do_not_matter(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", TONE, 16000)
    text = b"\x03J\xfcrgen"  # says UTF-8, is Latin-1
    frame = b"TPE1" + struct.pack(">I", len(text)) + b"\0\0" + text
    tag = b"ID3\x03\0\0\0\0\0" + bytes([len(frame)]) + frame
    (tmp_path / "a.mp3").write_bytes(tag + (tmp_path / "a.mp3").read_bytes())
    assert read_audio(tmp_path / "a.mp3").duration == 1.0


# ---- loudness


@pytest.mark.parametrize(("peak", "rate"), [(1e30, 16000), (1e30, 44100), (-3e9, 16000)])
def test_samples_that_are_no_sound_are_refused(tmp_path: Path, peak: float, rate: int) -> None:
    samples = TONE.copy()
    samples[8000] = peak
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    with pytest.raises(
        AudioError, match=r"a\.wav: holds a sample of (1e\+30|3e\+09) \(expected none beyond 2\.15e\+09"
    ):
        read_audio(tmp_path / "a.wav")


@pytest.mark.parametrize("name", ["redimnet-tiny", "ecapa-tdnn-512", "resnet34"])
def test_the_loudest_sound_gives_a_finite_embedding(tmp_path: Path, name: str) -> None:
    loud = TONE / 0.3 * np.float32(reading.LOUDEST)
    soundfile.write(tmp_path / "a.wav", np.clip(loud, -reading.LOUDEST, reading.LOUDEST), 16000, subtype="FLOAT")
    encoder = create_encoder(name).eval()
    with torch.inference_mode():
        assert encoder(torch.from_numpy(read_audio(tmp_path / "a.wav").samples)[None]).isfinite().all()


# ---- memory and Ctrl-C


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hours of stereo at 44.1 kHz: silence, which takes no place on the disk, and MP3 without a length."""
    folder = tmp_path_factory.mktemp("long")
    soundfile.write(folder / "a.wav", np.zeros((1, 2), np.float32), 44100)
    data = bytearray((folder / "a.wav").read_bytes()[:-4])
    size = 3 * 3600 * 44100 * 4
    data[4:8], data[40:44] = struct.pack("<I", size + 36), struct.pack("<I", size)
    (folder / "a.wav").write_bytes(data)
    os.truncate(folder / "a.wav", len(data) + size)
    noise = np.random.default_rng(0).normal(0, 0.1, 44100 * 60).astype(np.float32)
    soundfile.write(folder / "minute.mp3", noise, 44100)
    minute = (folder / "minute.mp3").read_bytes()
    headless = minute[minute.index(b"\xff\xfb", 4) :]  # without the first frame, which tells the length
    (folder / "a.mp3").write_bytes(headless * 180)
    return folder


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def interrupted_after(process: subprocess.Popen[str]) -> float:
    """Seconds from Ctrl-C to the end of a process that says when it begins."""
    assert process.stdout
    assert process.stdout.readline() == "begin\n"
    time.sleep(0.4)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("function", "name"), [("read_audio", "a.wav"), ("read_audio", "a.mp3"), ("audio_info", "a.mp3")]
)
def test_ctrl_c_stops_the_reading_of_a_long_recording(long: Path, function: str, name: str) -> None:
    code = "import sys, soxr; from voxnest.audio import *; print('begin', flush=True); {}(sys.argv[1])"
    assert interrupted_after(python(code.format(function), long / name)) < 1


@pytest.mark.parametrize("rate", [8000, 44100])
def test_resampling_in_pieces_so_that_ctrl_c_is_heard_gives_what_it_gives_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 20 * rate).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    at_once = soxr.resample(samples, rate, 16000)
    sizes = []

    class Watched(soxr.ResampleStream):
        def resample_chunk(self, x: np.ndarray, last: bool = False) -> np.ndarray:
            sizes.append(len(x))
            return super().resample_chunk(x, last)

    monkeypatch.setattr(soxr, "ResampleStream", Watched)
    monkeypatch.delattr(soxr, "resample")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, at_once, atol=1e-6)
    assert max(sizes) <= 1 << 14


def test_ctrl_c_stops_the_preparation_of_a_corpus(long: Path, tmp_path: Path) -> None:
    for speaker in "ab":
        (tmp_path / "corpus" / speaker).mkdir(parents=True)
        (tmp_path / "corpus" / speaker / "long.mp3").symlink_to(long / "a.mp3")
    code = "import sys; from voxnest.corpora.prepare import prepare; print('begin', flush=True); prepare(*sys.argv[1:])"
    assert interrupted_after(python(code, tmp_path / "corpus", tmp_path / "manifest")) < 1


def test_a_long_recording_takes_little_more_memory_than_its_samples(long: Path) -> None:
    code = """
import resource, sys, soxr
from voxnest.audio import read_audio
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
read_audio(sys.argv[1], duration=1.0); start = peak()
for minute in range(3): read_audio(sys.argv[1], offset=1200.0 * minute, duration=60.0)
parts = peak() - start
size = read_audio(sys.argv[1], duration=2400.0).samples.nbytes
print(parts, size, peak() - start)
"""
    output, errors = python(code, long / "a.wav").communicate()
    assert errors == ""
    parts, size, whole = map(int, output.split())
    assert size == 4 * 16000 * 2400
    assert parts < 30e6
    assert whole < 1.3 * size + 30e6


def test_limits_are_stated_so_that_a_read_stays_below_two_gib() -> None:
    assert 4 * 1.25 * reading.MOST_SAMPLES + 4 * (1 << 14) * reading.MOST_CHANNELS < 2 << 30


# ---- folders


def test_a_folder_is_searched_in_spite_of_loops(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("a/x.wav", "a/.y.wav", ".hidden/z.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "self").symlink_to(".")
    (tmp_path / "b").symlink_to("c")
    (tmp_path / "c").symlink_to("b")
    (tmp_path / "also-a").symlink_to("a")
    unlisted: dict[Path, str] = {}
    repeated: dict[Path, str] = {}
    assert list_recordings(tmp_path, unlisted.__setitem__, repeated.__setitem__) == [tmp_path / "a" / "x.wav"]
    assert repeated == {
        tmp_path / "a" / "self": f"is a link to {tmp_path / 'a'}, which is searched already",
        tmp_path / "also-a": f"is a link to {tmp_path / 'a'}, which is searched already",
    }
    assert unlisted == {
        tmp_path / "b": "cannot be followed: Too many levels of symbolic links",
        tmp_path / "c": "cannot be followed: Too many levels of symbolic links",
    }


def test_a_folder_is_searched_in_spite_of_one_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.wav").write_bytes(b"x")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if Path(place).name == "a":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    told: dict[Path, str] = {}
    assert list_recordings(tmp_path, told.__setitem__) == [tmp_path / "b" / "x.wav"]
    assert told == {tmp_path / "a": "cannot be listed: Permission denied"}
