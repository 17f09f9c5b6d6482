"""What each size of embedding, after each exit, costs and gives: time, bytes, comparisons per second, errors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from voxnest.evaluation.evaluating import evaluate
from voxnest.evaluation.trial_sets import TrialSet
from voxnest.inference.cache import EmbeddingCache
from voxnest.inference.embedding import Progress
from voxnest.zoo.counting import count_macs

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

_ENROLLED = 20_000
_ASKED = 200
_BYTES = 4  # of a number in float32


@dataclass(frozen=True)
class Cost:
    """Of one size of embedding after one exit.

    Attributes:
        exit: the stage; None for the end.
        dim: how many numbers.
        seconds: to embed one utterance, the median.
        ratio: of that to the time of the whole network.
        gmacs: thousand million multiply-accumulates for that utterance.
        size: bytes of an embedding in float32.
        comparisons: cosine similarities a second, of embeddings in memory.
        eer: on trials, if there are any.
    """

    exit: int | None
    dim: int
    seconds: float
    ratio: float
    gmacs: float
    size: int
    comparisons: float
    eer: float | None = None


def measure_costs(
    encoder: SpeakerEncoder,
    trials: TrialSet | None = None,
    *,
    duration: float = 3.0,
    rounds: int = 15,
    progress: Progress | None = None,
) -> list[Cost]:
    """Measure every size of embedding after every exit and at the end.

    The parts of a model up to its exits are timed in turns, on noise, one utterance at a time with all threads that
    torch has: on a busy machine the ratios are better than the times.

    Args:
        encoder: on the device where it shall be measured.
        trials: to find equal error rates on.
        duration: of the utterance, in seconds.
        rounds: how often each is timed.
        progress: of the embedding of trials.

    Raises:
        AudioError: the duration is shorter than the encoder needs, or a recording of the trials cannot be used.
    """
    parts = encoder.parts()
    noise = np.random.default_rng(0).normal(0, 0.05, (1, round(duration * encoder.sample_rate))).astype(np.float32)
    seconds = dict(zip(parts, _time([_embedding(part, noise) for part in parts.values()], rounds), strict=True))
    rates = {
        stage: evaluate(part, trials, cache=EmbeddingCache(part), progress=progress).dims if trials else {}
        for stage, part in parts.items()
    }
    speeds = {dim: _comparisons(dim) for dim in encoder.dims}
    return [
        Cost(
            *(stage, dim, seconds[stage], seconds[stage] / seconds[None]),
            *(count_macs(part, duration) / 1e9, _BYTES * dim, speeds[dim]),
            rates[stage][dim].eer if trials else None,
        )
        for stage, part in parts.items()
        for dim in encoder.dims
    ]


def _embedding(encoder: SpeakerEncoder, waveform: np.ndarray) -> Callable[[], object]:
    def embed() -> object:
        with encoder.ready():
            return encoder.embed(waveform)

    return embed


def _time(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The median of each, all of them in turns."""
    for call in calls:
        call()
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for times, call in zip(found, calls, strict=True):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in found]


def _comparisons(dim: int) -> float:
    random = np.random.default_rng(0)
    enrolled = random.standard_normal((dim, _ENROLLED), dtype=np.float32)
    asked = random.standard_normal((_ASKED, dim), dtype=np.float32)
    return _ENROLLED * _ASKED / _time([lambda: asked @ enrolled], 5)[0]
