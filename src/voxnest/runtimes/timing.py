"""What embedders take for a waveform, side by side. This file needs no torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

TURNS = 7
SECONDS = 3.0
"""Of the waveform that engines are timed on."""


def time_each(
    embedders: Mapping[str, Embedder], waveform: np.ndarray, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds that each takes, with all processors for itself: the middle of `TURNS`, after one to warm up.

    They take turns, so that what else the machine does meets all alike.

    Args:
        embedders: by name.
        waveform: `[batch, samples]`, see `Embedder.embed`.
        clock: gives seconds.
    """
    took: dict[str, list[float]] = {name: [] for name in embedders}
    with ExitStack() as stack:
        for embedder in embedders.values():
            stack.enter_context(embedder.ready())
        for turn in range(TURNS + 1):
            for name, embedder in embedders.items():
                start = clock()
                embedder.embed(waveform)
                if turn:
                    took[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in took.items()}
