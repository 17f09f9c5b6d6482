"""What the two decoders, `libsndfile` and `ffmpeg`, have in common."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from voxnest.errors import AudioError


class Decoder(Protocol):
    """An open recording, to be used as a context manager.

    Attributes:
        sample_rate: in Hz.
        channels: how many.
        codec: such as "pcm_16", "flac", "aac".
        frames: samples per channel that the file promises; None if it does not tell.
    """

    sample_rate: int
    channels: int
    codec: str
    frames: int | None

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def blocks(self, start: int, stop: int | None) -> Iterator[np.ndarray]:
        """Yield the samples [start, stop) as mono float32 blocks; up to the end if stop is None.

        May be called once per open recording.

        Raises:
            AudioError: the recording is cut or damaged in that part.
        """
        ...

    def check_end(self) -> None:
        """Raise `AudioError` if the end is missing, as far as that is known without decoding all."""
        ...


def mono(block: np.ndarray) -> np.ndarray:
    """[frames, channels] -> [frames]: the mean of the channels."""
    return block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)


def incomplete(path: Path, at: int, decoder: Decoder) -> AudioError:
    """Make the error for a recording that cannot be decoded beyond sample `at`."""
    promised = "" if decoder.frames is None else f" of {decoder.frames / decoder.sample_rate:.2f} s"
    seconds = at / decoder.sample_rate
    return AudioError(path, f"is truncated or damaged: decoding stops at {seconds:.2f} s{promised}")
