"""Embeddings of sound that is still coming in, in bounded memory and time. This file needs no torch."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soxr

from voxnest.audio import SILENCE_PEAK
from voxnest.errors import AudioError, ConfigError
from voxnest.models.encoding import MAX_DURATION, as_array, check_rate, checked, encode, mean_embedding

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder
    from voxnest.models.encoder import Waveform


class Heard(NamedTuple):
    """What a stream knows at one time.

    Attributes:
        seconds: of sound heard since the beginning.
        embedding: `[dim]` of all that was heard, or of the last `history` seconds.
        window: `[dim]` of the last `window` seconds alone: who is speaking now.
    """

    seconds: float
    embedding: np.ndarray
    window: np.ndarray


class Stream:
    """Running embeddings of one voice, from chunks of any size.

    With every `hop` seconds of sound the last `window` seconds are embedded, so what a hop costs does not depend on how
    much was heard: in all it is `window / hop` times what the sound would cost once. Up to the length of a window, the
    running embedding is that of all that was heard; later it is the mean of the windows, as `mean_embedding` has it.
    Windows in which there is nothing to hear (no sample above -80 dBFS: a muted microphone) do not count, unless there
    are no others. `finish` embeds all that was heard as a recording: what it gives is what `encode` gives of it.

    All of it is about the last `history` seconds. What is older is forgotten.

    Args:
        embedder: a `SpeakerEncoder` or another `Embedder`.
        hop: seconds of sound between two running embeddings.
        window: seconds of sound in each window, up to 60; rounded up to whole hops.
        dim: give the first `dim` numbers only; all if None.
        sample_rate: of the chunks, in Hz; that of the model if None.
        history: the most that is kept, in seconds; rounded up to whole hops. At 16 kHz ten minutes are 38 MB.

    Raises:
        ConfigError: the embedder was not trained for `dim`; a `hop` that is not positive; a window beyond 60 s, shorter
            than the embedder needs, or longer than the history.
        AudioError: a rate that is not positive.

    Examples:
        >>> stream = encoder.stream(hop=1.0)
        >>> for chunk in microphone:
        ...     for heard in stream.feed(chunk):
        ...         print(heard.seconds, similarity(heard.embedding, enrolled))
        >>> final = stream.finish().embedding
    """

    def __init__(
        self,
        embedder: Embedder,
        hop: float = 1.0,
        *,
        window: float = 3.0,
        dim: int | None = None,
        sample_rate: int | None = None,
        history: float = 600.0,
    ) -> None:
        rate = embedder.sample_rate
        if dim is not None:
            embedder.check_dim(dim)
            embedder = embedder.for_dim(dim)
        if not 1 <= hop * rate < math.inf:
            raise ConfigError("hop", f"{hop:g} s", "a sample or more")
        least = embedder.min_samples / rate
        if not least <= window <= min(history, MAX_DURATION):
            expected = f"{least:g} s, which {embedder.name} needs, to {min(history, MAX_DURATION):g} s"
            raise ConfigError("window", f"{window:g} s", expected)
        if sample_rate is not None:
            check_rate("sample_rate", sample_rate)
        self.embedder, self.dim = embedder, dim
        self.sample_rate = sample_rate or rate
        self._hop = round(hop * rate)
        self._hops_in_window = math.ceil(window * rate / self._hop)
        self._hops_kept = max(math.ceil(history * rate / self._hop), self._hops_in_window)
        self.reset()

    def reset(self) -> None:
        """Forget all that was heard: the next chunk begins at 0 s. After `finish` too."""
        self._samples = 0  # heard, at the embedder's rate
        self._blocks: deque[np.ndarray] = deque(maxlen=self._hops_kept)  # the last of them, a hop each
        self._rest: list[np.ndarray] = []  # of a block that is not whole yet
        # None for one in which there is nothing to hear.
        self._windows: deque[np.ndarray | None] = deque(maxlen=self._hops_kept - self._hops_in_window + 1)
        self._finished = False
        # What it gives depends on the sound alone, not on its chunks, and is what encode hears.
        self._resampler = soxr.ResampleStream(self.sample_rate, self.embedder.sample_rate, 1, dtype="float32")

    @property
    def seconds(self) -> float:
        """Of sound heard since the beginning."""
        return self._samples / self.embedder.sample_rate

    def feed(self, chunk: Waveform) -> list[Heard]:
        """Hear more: what is known after each hop that ends with it, often nothing.

        Args:
            chunk: `[samples]`, floating point or whole numbers of 16 or 32 bits; it may be empty.

        Raises:
            AudioError: a chunk of another shape or kind, or not finite; the stream is as before. Or an embedding that
                is not finite.
            CheckpointError: the model gives none that is finite.
            ConfigError: the stream was finished.
        """
        self._check_open()
        samples = as_array(chunk)
        if samples.ndim != 1:
            raise AudioError("chunk", f"shape {list(samples.shape)}", "[samples]")
        if not np.isfinite(samples).all():
            raise AudioError("chunk", "holds NaN or infinite samples")
        found = []
        for _ in self._blocks_of(samples):
            if (heard := self._heard()) is not None:
                found.append(heard)
        return found

    def finish(self) -> Heard:
        """What was heard, embedded as `encode` embeds a recording, with the end that fills no hop. It takes as long.

        Raises:
            AudioError: less was heard than the model takes.
            CheckpointError: the model gives an embedding that is not finite.
            ConfigError: the stream was finished.
        """
        self._check_open()
        self._finished = True
        for _ in self._blocks_of(np.empty(0, np.float32), last=True):
            pass
        kept = np.concatenate([np.empty(0, np.float32), *self._blocks, *self._rest])[-self._hops_kept * self._hop :]
        window = kept[-self._hops_in_window * self._hop :]
        embedding = encode(self.embedder, kept, self.dim)[0]
        last = embedding if len(window) == len(kept) else encode(self.embedder, window, self.dim)[0]
        return Heard(self.seconds, embedding, last)

    def _check_open(self) -> None:
        if self._finished:
            raise ConfigError("stream", "it was finished", "reset() before it is used again")

    def _blocks_of(self, samples: np.ndarray, last: bool = False) -> Iterator[None]:
        """Take sound in; give way whenever a block has become whole."""
        if self.sample_rate != self.embedder.sample_rate:
            samples = self._resampler.resample_chunk(samples, last=last)
        while len(samples):
            missing = self._hop - self._samples % self._hop
            self._rest.append(samples[:missing].copy())  # not a view, which would keep the whole chunk
            self._samples += len(self._rest[-1])
            samples = samples[missing:]
            if self._samples % self._hop == 0:
                self._blocks.append(np.concatenate(self._rest))
                self._rest = []
                yield

    def _heard(self) -> Heard | None:
        """What is known at the end of a block; None if that is too little to embed."""
        window = np.concatenate([*self._blocks][-self._hops_in_window :])
        if len(window) < self.embedder.min_samples:
            return None
        with self.embedder.ready():
            latest = checked(self.embedder, "stream", lambda: self.embedder.embed(window[None])[0])
        if self._samples >= self._hops_in_window * self._hop:
            self._windows.append(latest if np.abs(window).max() > SILENCE_PEAK else None)
        counting = [embedding for embedding in self._windows if embedding is not None]
        running = mean_embedding(np.stack(counting)) if counting else latest
        return Heard(self.seconds, running[: self.dim], latest[: self.dim])


def stream(
    embedder: Embedder,
    hop: float = 1.0,
    *,
    window: float = 3.0,
    dim: int | None = None,
    sample_rate: int | None = None,
    history: float = 600.0,
) -> Stream:
    """Running embeddings of sound that is still coming in; see `Stream`."""
    return Stream(embedder, hop, window=window, dim=dim, sample_rate=sample_rate, history=history)
