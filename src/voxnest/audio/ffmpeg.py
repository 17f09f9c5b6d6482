"""Everything else with FFmpeg, through PyAV: MP3, Ogg Vorbis, M4A/AAC, the sound track of MP4 and WebM, ...

Encoder delay is dropped where the file tells it: MP3 with a LAME header, MP4/M4A, Matroska/WebM. Raw AAC
(ADTS) and fragmented MP4 do not tell it, so their sound begins 1024 to 2112 samples late, as in any player.
Where a recorder has dropped packets, a whole read joins what is there; the offset of a partial read counts on
the container's clock.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import av
import numpy as np

from voxnest.audio.decoder import incomplete, mono
from voxnest.errors import AudioError

_BOXES_OF_BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
_COUNTS = {b"stsz": 8, b"trun": 4}  # where these boxes have their number of samples
_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"
# Nothing that a playlist names may be fetched from a network, nor be read or waited for on the disk. Text is no sound.
_OTHERS = {"hls", "dash", "webm_dash_manifest", "concat", "imf", "sdp", "rtsp", "sap", "image2", "sbg", "tty"}
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(sorted(av.formats_available - _OTHERS))}
# Tags of any encoding must not matter: PyAV 19 takes them all, the versions before have to be told.
_TAGS: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
# Demuxers whose time stamps after a seek are those of the whole file. Others decode from the beginning.
_SEEKABLE = (_MP4, _MATROSKA, "mp3", "ogg", "aac", "flac")
# Decoded and dropped before the goal of a seek: more than the 80 ms that Opus needs, the overlap of AAC (two
# frames with SBR), and the ten frames that an MP3's bit reservoir may reach back.
_PRE_ROLL_SECONDS = 0.5
# The duration that a sound container tells and its packets differ by up to a few codec frames.
_TOLERANCE_SECONDS = 0.1


class FFmpegDecoder:
    """See `Decoder`. Seeks are exact to the sample, in Matroska and WebM to 1 ms.

    Raises:
        AudioError: FFmpeg does not know the format, or there is no sound in it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        _check_mp4_index(path)
        try:
            self._container = av.open(f"file:{path}", options=_OPTIONS, **_TAGS)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise AudioError(path, "is not audio, or its header is damaged or cut off") from error
        stream: Any = self._container.streams.best("audio")  # Any: PyAV's stub does not say AudioStream
        if stream is None or not (stream.codec_context and stream.rate and stream.channels):
            self._container.close()
            raise AudioError(path, "has no sound track that can be decoded")
        self._stream = stream
        self._kind = self._container.format.name
        self._origin: int = stream.start_time or 0
        self.sample_rate: int = stream.rate
        self.channels: int = stream.channels
        self.codec: str = stream.codec_context.codec.canonical_name
        seconds = self._promised_seconds()
        self.frames = None if seconds is None else round(seconds * self.sample_rate)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """See `Decoder.blocks`.

        A packet that cannot be decoded is an error, but for the last one where no length is told: that is how
        recordings of a stream end.
        """
        seekable = self._kind in _SEEKABLE
        position: int | None = 0  # of the next frame; None: its time stamp tells
        if seekable and start > _PRE_ROLL_SECONDS * self.sample_rate:
            self._seek(start / self.sample_rate - _PRE_ROLL_SECONDS)
            position = None
        # MP4 tells the length to the sample; what comes after it is the padding of the last codec frame.
        ends = [end for end in (stop, self.frames if self._kind == _MP4 else None) if end is not None]
        reached, damaged = start, False
        for frame in self._frames():
            if frame is None:
                damaged = True
                position = None if seekable else position
                continue
            if position is None:
                if frame.pts is None:
                    continue
                position = self._position(frame.pts)
            begin, position = position, position + frame.samples
            if position <= start:
                damaged = damaged and not seekable  # a seek may well land between packets
                continue
            if damaged or frame.sample_rate != self.sample_rate:
                raise incomplete(self._path, reached, self)
            reached = min([position, *ends])
            yield mono(_as_float(frame))[max(0, start - begin) : max(0, reached - begin)]
            if reached < position:
                return
        promised = min([self.frames, *ends]) if self.frames is not None else start
        short = reached < promised - _TOLERANCE_SECONDS * self.sample_rate
        if short or (damaged and reached == start):
            raise incomplete(self._path, reached, self)

    def check_end(self) -> None:
        """See `Decoder.check_end`: FFmpeg finds out by decoding only."""

    def _promised_seconds(self) -> float | None:
        """How long the container says the sound is; None where FFmpeg would guess it from the bit rate."""
        stream = self._stream
        if self._kind == _MATROSKA:
            end = _clock_seconds(stream.metadata.get("DURATION", ""))
            if end is None and len(self._container.streams) == 1 and self._container.duration:
                end = self._container.duration / av.time_base
            return None if end is None else end - float(self._origin * stream.time_base)
        told = (
            self._kind in ("flac", "wav")
            or (self._kind == "ogg" and self.codec != "opus")  # with it, encoder delay is counted
            or (self._kind == _MP4 and stream.frames > 0)  # 0: fragmented, the length is a guess
            or (self._kind == "mp3" and _tells_mp3_length(self._path))
        )
        return float(stream.duration * stream.time_base) if told and stream.duration else None

    def _frames(self) -> Iterator[av.AudioFrame | None]:
        """Every decoded frame; None in place of a packet that cannot be decoded."""
        left = 2 * self._path.stat().st_size  # a container may leave out what all packets begin with
        try:
            for packet in self._container.demux(self._stream):
                left -= packet.size
                if left < 0:  # a damaged index leads to the same bytes again and again
                    yield None
                    return
                try:
                    frames: list[Any] = packet.decode()
                except av.EOFError:
                    return
                except av.FFmpegError:
                    yield None
                else:
                    yield from (frame for frame in frames if frame.samples)
        except (av.FFmpegError, OSError):
            yield None

    def _position(self, pts: int) -> int:
        return round((pts - self._origin) * self._stream.time_base * self.sample_rate)

    def _seek(self, seconds: float) -> None:
        timestamp = round(seconds / self._stream.time_base) + self._origin
        try:
            self._container.seek(timestamp, stream=self._stream)
        except (av.FFmpegError, OSError, OverflowError) as error:
            found = f"is truncated or damaged: there is no way to {seconds:.6g} s"
            raise AudioError(self._path, found) from error


def _as_float(frame: av.AudioFrame) -> np.ndarray:
    """One decoded frame, planar or interleaved, of any sample type -> [frames, channels] float32."""
    array: np.ndarray = frame.to_ndarray()
    array = array.T if frame.format.is_planar else array.reshape(-1, frame.layout.nb_channels)
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    full_scale = 2.0 ** (8 * array.dtype.itemsize - 1)
    middle = full_scale if array.dtype.kind == "u" else 0.0
    return ((array - middle) / full_scale).astype(np.float32)


def _clock_seconds(text: str) -> float | None:
    """ "00:01:02.5" -> 62.5; None if it is not a time."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None


def _check_mp4_index(path: Path) -> None:
    """Find in an MP4 what FFmpeg would allocate gigabytes for: an index of more samples than the file has bytes.

    Raises:
        AudioError: if so. Other files pass.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while len(header := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", header)
            if kind in _COUNTS:
                table = file.read(12)
                if int.from_bytes(table[_COUNTS[kind] :][:4], "big") > size:
                    raise AudioError(path, "is not audio, or its index is damaged")
                file.seek(-len(table), os.SEEK_CUR)
            if kind not in _BOXES_OF_BOXES:
                if length == 1:  # the true one follows, in eight bytes
                    length = int.from_bytes(file.read(8), "big") - 8
                if not 8 <= length <= size:
                    return
                file.seek(length - 8, os.SEEK_CUR)


def _tells_mp3_length(path: Path) -> bool:
    """Whether an MP3 tells its number of frames: a Xing, Info or VBRI header in its first frame."""
    with path.open("rb") as file:
        tag = file.read(10)
        # An ID3 tag comes before it; its size is four times seven bits.
        size = sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)) + 10
        file.seek(size if tag.startswith(b"ID3") else 0)
        first = file.read(64)
    is_frame = first[:1] == b"\xff" and first[1] >= 0xE0
    return is_frame and any(name in first for name in (b"Xing", b"Info", b"VBRI"))
