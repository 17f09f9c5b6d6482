"""Plain formats with libsndfile: WAV, FLAC, Ogg Opus, AIFF, AU, CAF, NIST Sphere.

Of what libsndfile 1.2.2 reads, two formats are left to FFmpeg because seeks in them go astray: MP3 with a
variable bit rate (by thousands of samples; its mpg123 also prints warnings on stderr) and Ogg Vorbis (by 64
samples after the first page of some files).
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import soundfile

from voxnest.audio.decoder import incomplete, mono
from voxnest.errors import AudioError

_MAGIC = (b"FORM", b".snd", b"caff", b"NIST", b"fLaC")
_WAV_MAGIC = (b"RIFF", b"RIFX", b"RF64")
_BLOCK = 1 << 14
# Programs that write to a pipe cannot know the size of the data; they promise 2 or 4 GiB, or a little less.
_STREAMED_SIZE = 0x7FFF0000
# Some writers count the header among the data.
_HEADER_SIZE = 44


def suits(path: Path) -> bool:
    """Whether a file begins as those that are read here do.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(36)
    is_wav = head.startswith(_WAV_MAGIC) and head[8:12] == b"WAVE"
    is_opus = head.startswith(b"OggS") and head.endswith(b"OpusHead")
    return len(head) == 36 and (head.startswith(_MAGIC) or is_wav or is_opus)


class SoundFileDecoder:
    """See `Decoder`. Seeks are exact to the sample in every format that is read here.

    Raises:
        AudioError: a WAV without channels, or one cut off.
        soundfile.SoundFileError: libsndfile does not read it.
    """

    def __init__(self, path: Path) -> None:
        check_wav_header(path)
        self._path = path
        self._file = soundfile.SoundFile(path)
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.codec: str = "flac" if self._file.format == "FLAC" else self._file.subtype.lower()
        frames: int = self._file.frames
        self.frames = frames if frames < 1 << 60 else None  # "unknown" is 2^63 - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """See `Decoder.blocks`."""
        frames = self.frames or 0
        at, stop = start, frames if stop is None else min(frames, stop)
        if start >= stop:
            return
        try:
            if start:
                self._file.seek(start)
            while at < stop:
                block = self._file.read(min(_BLOCK, stop - at), dtype="float32", always_2d=True)
                if not len(block):
                    raise incomplete(self._path, at, self)
                at += len(block)
                yield mono(block)
        except soundfile.SoundFileError as error:
            raise incomplete(self._path, at, self) from error

    def check_end(self) -> None:
        """See `Decoder.check_end`: the last sample is sought and read."""
        try:
            self._file.seek((self.frames or 1) - 1)
            found = len(self._file.read(1))
        except soundfile.SoundFileError:
            found = 0
        if not found:
            raise AudioError(self._path, "is truncated or damaged: its end cannot be decoded")


def check_wav_header(path: Path) -> None:
    """Find in a WAV what libsndfile passes over in silence: a `data` chunk longer than the file, no channels.

    Raises:
        AudioError: if so. Files that are not RIFF WAVE pass.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        begin = file.read(12)
        if begin[:4] != b"RIFF" or begin[8:] != b"WAVE":
            return
        bytes_per_second = 0
        while len(header := file.read(8)) == 8:
            kind, length = struct.unpack("<4sI", header)
            here = size - file.tell()
            if kind == b"data":
                if here + _HEADER_SIZE < length < _STREAMED_SIZE:
                    unit, scale = ("s", bytes_per_second) if bytes_per_second else ("bytes", 1)
                    found = f"{here / scale:.2f} of {length / scale:.2f} {unit} are there"
                    raise AudioError(path, f"is truncated: {found}")
                return
            if kind == b"fmt " and here >= 16:
                _, channels, _, bytes_per_second = struct.unpack("<HHII", file.read(12))
                if channels == 0:
                    raise AudioError(path, "has zero channels")
                length -= 12
            file.seek(length + length % 2, os.SEEK_CUR)
