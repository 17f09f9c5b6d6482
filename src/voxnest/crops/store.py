"""Recordings by number: decoded once into memory that workers share, or read from disk piece by piece."""

import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from voxnest.audio import read_audio
from voxnest.errors import AudioError

INT16_SCALE = np.float32(1 / 32768)


class PathTable:
    """A million paths in two arrays, which forked workers share (a list of objects would be copied)."""

    def __init__(self, paths: Iterable[Path]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._ends = np.cumsum([0, *map(len, names)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(names), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Path:
        start, end = self._ends[index], self._ends[index + 1]
        return Path(os.fsdecode(self._bytes[start:end].tobytes()))


class AudioStore:
    """Read pieces of recordings, from memory when all of them fit there.

    A recording is decoded at its first use and kept as 16-bit samples in anonymous shared memory, so forked
    workers fill and use one cache together; its pages are taken as they are filled. A store that crosses to
    another process by pickling (a spawned worker) leaves the cache behind and reads from disk.

    Args:
        paths: the recordings.
        seconds: how much of each, from its start, can be asked for.
        cache_gb: the most memory to use, in 1e9 bytes. When not all recordings fit, only those in `favoured`
            are kept, as far as they fit, and of the others the asked piece is read from disk.
        favoured: numbers of recordings to keep in memory first.
        sample_rate: of what is read, in Hz.
    """

    def __init__(
        self,
        paths: Iterable[Path],
        seconds: Sequence[float] | np.ndarray,
        *,
        cache_gb: float,
        favoured: Sequence[int] | np.ndarray = (),
        sample_rate: int = 16000,
    ) -> None:
        self.sample_rate = sample_rate
        self.failures: dict[Path, str] = {}
        self._paths = PathTable(paths)
        lengths = np.ceil(np.asarray(seconds, np.float64) * sample_rate).astype(np.int64)
        budget = int(cache_gb * 1e9) // 2
        if lengths.sum() > budget:
            favoured = np.asarray(favoured, np.int64)
            kept = favoured[np.cumsum(lengths[favoured]) <= budget]
            lengths = np.where(np.isin(np.arange(len(lengths)), kept), lengths, 0)
        self._allocate(lengths)

    def _allocate(self, lengths: np.ndarray) -> None:
        """Lay out one slot per recording; a slot of no samples means: not kept in memory."""
        self._starts = np.concatenate([[0], np.cumsum(lengths)])
        self._samples = _shared_zeros(int(self._starts[-1]), np.int16)
        self._filled = _shared_zeros(len(lengths), np.int64)

    def __getstate__(self) -> dict[str, object]:
        return {name: self.__dict__[name] for name in ("sample_rate", "failures", "_paths")}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._allocate(np.zeros(len(self._paths), np.int64))

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def is_cached(self) -> bool:
        """Whether any recording is kept in memory."""
        return len(self._samples) > 0

    def read(self, recording: int, start: int, count: int) -> np.ndarray:
        """Samples `[start, start + count)` of a recording, fewer where it ends.

        Returns:
            `[1..count] float32` in [-1, 1], not to be written to.

        Raises:
            AudioError: it cannot be read or has no samples there; `failures` then holds its path and the
                reason.
        """
        try:
            if self._starts[recording] == self._starts[recording + 1]:
                samples = self._read_file(recording, start, count)
            else:
                samples = self._read_memory(recording, start, count)
            if not len(samples):
                raise AudioError(self._paths[recording], f"no samples after {start / self.sample_rate:.2f} s")
        except (AudioError, OSError) as error:
            path = self._paths[recording]
            if not isinstance(error, AudioError):
                error = AudioError(path, str(error))
            self.failures.setdefault(path, error.found)
            raise error from None
        return samples

    def _read_file(self, recording: int, start: int, count: int) -> np.ndarray:
        """Decode a piece. A failure is not held against other pieces: a crop depends on the files alone."""
        rate = self.sample_rate
        audio = read_audio(self._paths[recording], sample_rate=rate, offset=start / rate, duration=count / rate)
        return within_range(audio.samples[:count])

    def _read_memory(self, recording: int, start: int, count: int) -> np.ndarray:
        """Cut a piece from a kept recording, which is decoded first if it has not been."""
        slot = self._samples[self._starts[recording] : self._starts[recording + 1]]
        if not self._filled[recording]:
            path = self._paths[recording]
            if path in self.failures:
                raise AudioError(path, self.failures[path])
            samples = read_audio(path, sample_rate=self.sample_rate, duration=len(slot) / self.sample_rate).samples
            # Two workers may do this at once: both write the same, and the length only after the samples.
            slot[: len(samples)] = to_int16(within_range(samples[: len(slot)]))
            self._filled[recording] = min(len(samples), len(slot))
        piece = slot[start : min(start + count, self._filled[recording])]
        return np.multiply(piece, INT16_SCALE, dtype=np.float32)


def within_range(samples: np.ndarray) -> np.ndarray:
    """Scale down what goes beyond [-1, 1] (floating-point files may), instead of clipping it."""
    peak = np.abs(samples).max(initial=0)
    return samples / peak if peak > 1 else samples


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Quantise `[samples] float32` in [-1, 1] to 16 bits."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def fit_length(samples: np.ndarray, count: int) -> np.ndarray:
    """The first `count` samples; a shorter signal is repeated until it is long enough."""
    return samples[:count] if len(samples) >= count else np.resize(samples, count)


def _shared_zeros(count: int, dtype: type) -> np.ndarray:
    """An array that processes forked later share; anonymous memory, so a small /dev/shm is no limit."""
    size = count * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, size), dtype) if size else np.zeros(0, dtype)
