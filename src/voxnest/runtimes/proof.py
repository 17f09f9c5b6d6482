"""Whether an engine gives the embeddings of another: compared on speech, before anybody relies on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from voxnest.audio import read_audio
from voxnest.errors import CheckpointError

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder, Threads

LEAST = {"float32": 0.99999, "bfloat16": 0.9999, "int8": 0.9}
"""The least cosine similarity to the embedding in float32. What int8 costs is measured in errors, not here."""
LENGTHS = (0.9, 2.0, 3.37, 7.1)
"""Seconds of speech that engines are compared on, besides the shortest waveform."""


class Proof(NamedTuple):
    """What a comparison found.

    Attributes:
        cosine: the least, over all waveforms, items of batches and prefixes.
        waveforms: how many were compared.
    """

    cosine: float
    waveforms: int


class Comparable(Protocol):
    """What of an engine is compared; see `Embedder`."""

    @property
    def dims(self) -> tuple[int, ...]:
        """Sizes of its embeddings."""

    @property
    def sample_rate(self) -> int:
        """Of waveforms."""

    @property
    def min_samples(self) -> int:
        """Of the shortest."""

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """`[batch, samples]` to embeddings."""

    def ready(self) -> AbstractContextManager[Threads]:
        """Around `embed`."""


def compare(
    engine: Comparable, reference: Embedder, precision: str, files: Sequence[str | Path] = (), *, subject: str | Path
) -> Proof:
    """Compare the embeddings of two engines at every prefix that the first one gives: of the files, or of `speech`.

    Args:
        engine: to be proven.
        reference: what it has to equal.
        precision: of the engine.
        files: recordings.
        subject: what to call the engine in an error.

    Raises:
        AudioError: a file cannot be used.
        CheckpointError: they differ by more than `LEAST` allows.
    """
    worst, count = 1.0, 0
    with engine.ready(), reference.ready():
        for name, waveform in _waveforms(engine, files):
            found, expected = engine.embed(waveform), reference.embed(waveform)
            for dim in engine.dims:
                cosine = float(_cosines(found[:, :dim], expected[:, :dim]).min())
                if not cosine >= LEAST[precision]:  # or NaN
                    text = f"embeddings of {dim} numbers whose cosine to those of PyTorch is {cosine:.6f}, of {name}"
                    raise CheckpointError(subject, text, f"at least {LEAST[precision]}")
                worst = min(worst, cosine)
            count += 1
    return Proof(worst, count)


def speech(seconds: float, rate: int, voice: int = 0) -> np.ndarray:
    """What sounds like a voice to a network, `[samples]`: syllables of harmonics under formants, pauses, noise."""
    random = np.random.default_rng(voice)
    time = np.arange(round(seconds * rate)) / rate
    pitch = random.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * random.uniform(0.4, 1.2) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    vowel = np.repeat(random.integers(0, 3, time.size // (rate // 5) + 1), rate // 5)[: time.size]
    formants = random.uniform((300, 900, 2300), (800, 2200, 3500), (3, 3))[vowel]
    voiced = np.zeros_like(time)
    for harmonic in range(1, 24):
        distance = (harmonic * pitch[:, None] - formants) / 120
        voiced += np.sin(harmonic * phase) * (1 / (1 + distance**2)).sum(axis=1)
    syllables = np.clip(np.sin(2 * np.pi * random.uniform(2, 4) * time) + 0.6, 0, None)
    return (0.05 * voiced * syllables + 0.002 * random.standard_normal(time.size)).astype(np.float32)


def _waveforms(embedder: Comparable, files: Sequence[str | Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Name and `[batch, samples]` of each waveform; parts of files, so that lengths differ."""
    rate, shortest = embedder.sample_rate, embedder.min_samples
    if files:
        for path in files:
            samples = read_audio(path, sample_rate=rate, duration=60.0, min_duration=shortest / rate).samples
            yield str(path), samples[None]
        return
    for voice, length in enumerate([shortest, *(round(seconds * rate) for seconds in LENGTHS)]):
        length = max(length, shortest + voice)
        yield f"{length} samples", speech(length / rate, rate, voice)[None]
    batch = [speech(max(1.5, shortest / rate), rate, voice) for voice in range(3)]
    yield "a batch of three", np.stack(batch)


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    one, other = first.astype(np.float64), second.astype(np.float64)
    result: np.ndarray = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return result
