"""What those who use a model see of it, whatever computes it: `SpeakerEncoder` is one, and the engines of `runtimes`.

This file needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from voxnest.models.encoder import Recordings
    from voxnest.models.encoding import Short
    from voxnest.models.streaming import Stream
    from voxnest.scoring import Calibration


class Threads(NamedTuple):
    """How an embedder is best called by several threads at once.

    Attributes:
        number: of threads, where each embeds what it has by itself.
        start: what each of them calls first.
    """

    number: int
    start: Callable[[], None]


class Embedder(Protocol):
    """Maps waveforms to embeddings, and knows what is to be known of it. Its methods may be called by any thread."""

    @property
    def name(self) -> str:
        """A label."""

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes of embedding the model was trained for, ascending."""

    @property
    def embedding_dim(self) -> int:
        """The largest of them."""

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""

    @property
    def min_samples(self) -> int:
        """The shortest waveform."""

    @property
    def thresholds(self) -> Mapping[int, float]:
        """Cosine threshold at the equal error rate, per dimension, if known."""

    @property
    def calibration(self) -> Mapping[int, Calibration]:
        """What cosine scores mean, per dimension, if known."""

    @property
    def batch_size(self) -> int:
        """How many waveforms of one length are best embedded at once; 1 where that is no gain."""

    def check_dim(self, dim: int) -> int:
        """Give `dim` back if the model was trained for it.

        Raises:
            ConfigError: that lists the dimensions there are.
        """

    def for_dim(self, dim: int | None) -> Embedder:
        """What gives embeddings of `dim` numbers at least cost: itself, or its part up to an exit."""

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that the embeddings depend on."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """`[batch, samples]` float32 at `sample_rate` to full embeddings `[batch, embedding_dim]` float32.

        Only inside of `ready`.

        Raises:
            AudioError: fewer samples than `min_samples`, or such as are not finite.
        """

    def embed_windows(self, waveform: np.ndarray, window: float) -> np.ndarray:
        """`[1, samples]` to embeddings of windows of `window` seconds, each half over the last: `[windows, dim]`.

        Only inside of `ready`.

        Raises:
            AudioError: a window is shorter than the model needs.
            ConfigError: the engine cannot do that.
        """

    def ready(self) -> AbstractContextManager[Threads]:
        """Ready to embed: in eval mode, say. Afterwards all is as before."""


class LoadedEncoder(Embedder, Protocol):
    """What `load_encoder` gives, in any runtime: an `Embedder` with what users call of it."""

    def encode(
        self,
        recordings: Recordings,
        dim: int | None = None,
        *,
        batch: int | None = None,
        progress: bool | Callable[[int, int], object] = False,
        sample_rate: int | None = None,
        short: Short = "error",
    ) -> np.ndarray:
        """See `SpeakerEncoder.encode`."""

    def stream(
        self,
        hop: float = 1.0,
        *,
        window: float = 3.0,
        dim: int | None = None,
        sample_rate: int | None = None,
        history: float = 600.0,
    ) -> Stream:
        """Running embeddings of sound that is still coming in; see `Stream`."""
