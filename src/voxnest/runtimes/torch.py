"""PyTorch in bfloat16. In float32 a `SpeakerEncoder` is an `Embedder` itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np
import torch

from voxnest.models.encoding import encode
from voxnest.models.streaming import stream

if TYPE_CHECKING:
    from voxnest.models.embedder import Threads
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.scoring import Calibration


class BFloat16Encoder:
    """An encoder whose network computes in bfloat16; front end, statistics and embeddings are float32.

    Args:
        encoder: on its device; it stays as it is.
    """

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder
        self.name, self.dims = encoder.name, encoder.dims
        self.embedding_dim, self.sample_rate = encoder.embedding_dim, encoder.sample_rate
        self.min_samples, self.batch_size = encoder.min_samples, encoder.batch_size
        self.thresholds: Mapping[int, float] = encoder.thresholds
        self.calibration: Mapping[int, Calibration] = encoder.calibration

    def check_dim(self, dim: int) -> int:
        """See `Embedder`, as the methods below."""
        return self.encoder.check_dim(dim)

    def digest(self) -> str:
        """Another than that of the encoder in float32."""
        return hashlib.sha256(f"{self.encoder.digest()} bfloat16".encode()).hexdigest()

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """See `Embedder`."""
        with self._autocast():
            return self.encoder.embed(waveform)

    def embed_windows(self, waveform: np.ndarray, window: float) -> np.ndarray:
        """See `Embedder`."""
        with self._autocast():
            return self.encoder.embed_windows(waveform, window)

    encode, stream = encode, stream

    def for_dim(self, dim: int | None) -> BFloat16Encoder:
        """Of the encoder's part that is named for that size."""
        return BFloat16Encoder(self.encoder.for_dim(dim))

    def ready(self) -> AbstractContextManager[Threads]:
        """See `Embedder`."""
        return self.encoder.ready()

    def _autocast(self) -> torch.autocast:
        # Entered by each call: PyTorch has one such mode per thread.
        return torch.autocast(next(self.encoder.parameters()).device.type, torch.bfloat16)
