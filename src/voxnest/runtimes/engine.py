"""What the engines of exported models share: all of an `Embedder` but the computing. This file needs no torch."""

from __future__ import annotations

import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from voxnest.errors import AudioError, ConfigError, VoxnestError
from voxnest.models.embedder import Threads
from voxnest.models.encoding import encode
from voxnest.models.streaming import stream
from voxnest.runtimes.description import read_description

MOST_THREADS = 8
"""Each holds the activations of a whole recording."""


class Engine(ABC):
    """An exported model, as an `Embedder`.

    A thread that was started as `ready` says computes by itself, beside others. Any other call has all processors for
    itself, so that a single recording is done soonest.

    Args:
        path: of an ONNX file of `voxnest export`.
        precision: that it computes in.

    Raises:
        CheckpointError: the file is missing or damaged, or voxnest did not write it.
        ConfigError: the file's weights are of another precision.
    """

    runtime: str
    batch_size = 1

    def __init__(self, path: str | Path, precision: str) -> None:
        self.path, self.precision = Path(path), precision
        self.description = read_description(path)
        stored = self.description.precision
        if (stored == "int8") != (precision == "int8"):
            raise ConfigError("precision", f"{precision}, of a file in {stored}", stored)
        self.name, self.dims = self.description.name, self.description.dims
        self.embedding_dim, self.sample_rate = self.dims[-1], self.description.sample_rate
        self.min_samples = self.description.min_samples
        self.thresholds, self.calibration = self.description.thresholds, self.description.calibration
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._started = threading.local()
        self._digest: str | None = None

    @abstractmethod
    def run(self, waveform: np.ndarray, *, alone: bool) -> np.ndarray:
        """`[batch, samples]` to `[batch, embedding_dim]`, both float32.

        Args:
            waveform: that was checked.
            alone: with all processors; else in one thread, beside other calls.
        """

    def check_dim(self, dim: int) -> int:
        """See `Embedder`, as the methods below."""
        if dim not in self.dims:
            raise ConfigError("dim", f"{dim}", "one the model was exported with: " + ", ".join(map(str, self.dims)))
        return dim

    def digest(self) -> str:
        """Of the file, and of what computes."""
        if self._digest is None:
            with self.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
            digest.update(f"{self.runtime} {self.precision}".encode())
            self._digest = digest.hexdigest()
        return self._digest

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Full embeddings."""
        if waveform.ndim != 2:
            raise AudioError("waveform", f"shape {list(waveform.shape)}", "[batch, samples]; waveform[None] for one")
        if waveform.shape[1] < self.min_samples:
            raise AudioError("waveform", f"{waveform.shape[1]} samples", f"at least {self.min_samples}")
        if not np.isfinite(waveform).all():
            raise AudioError("waveform", "NaN or infinite samples", "samples that are finite")
        started = getattr(self._started, "value", False)
        return self.run(np.ascontiguousarray(waveform, np.float32), alone=not started)

    def embed_windows(self, waveform: np.ndarray, window: float) -> np.ndarray:
        """Only of PyTorch, which can cut windows from the features inside of a model."""
        expected = "whole recordings, or --runtime torch"
        raise ConfigError("window", f"{window:g} s, in the runtime {self.runtime}", expected)

    encode, stream = encode, stream

    def for_dim(self, dim: int | None) -> Engine:
        """Itself: a file holds one graph."""
        return self

    @contextmanager
    def ready(self) -> Iterator[Threads]:
        """As many threads as processors."""

        def start() -> None:
            self._started.value = True

        yield Threads(min(self.threads, MOST_THREADS), start)


def import_extra(module: str, extra: str) -> Any:
    """A module that an optional dependency brings.

    Raises:
        ConfigError: it is not installed; it says how to.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise missing_extra(module.partition(".")[0], extra) from error


def missing_extra(package: str, extra: str) -> VoxnestError:
    """What to say where an optional dependency is not there."""
    return ConfigError(package, "is not installed", f"pip install 'voxnest[{extra}]'")
