"""How much memory a training step takes, measured; and the batch that fits.

Bytes of a step are a line over the crops in a batch: what is always there (weights, gradients, the optimizer's state)
and what each crop adds (activations, kept for the backward pass). Two real steps of different sizes give the line.
What is counted are tensors on a GPU, by torch's allocator. On a CPU it is the memory of the process over some steps, by
the kernel: beside tensors there are the libraries' own buffers, and gaps in the heap, together two thirds more. Where
the kernel does not tell (only Linux does), it is tensors again, by torch's profiler.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.profiler import ProfilerActivity, profile

from voxnest.errors import ConfigError

if TYPE_CHECKING:
    from voxnest.training.bench import Bench

GB = 1e9
SHARE = 0.9
"""Of the memory that is planned with: allocators need room, and other programs are there."""
CUDA_CONTEXT = 0.7 * GB
"""Taken by CUDA itself and its libraries, which no tensor is."""
SIZES = (4, 12)
"""Crops of the two steps: enough for the activations to be more than what a step needs besides."""
_ROUNDS = 3
"""Steps until the heap of a CPU's process grows no more: what one step frees is not all of use to the next."""


@dataclass(frozen=True)
class MemoryModel:
    """Bytes of a step: `fixed + per_crop * batch`.

    Attributes:
        fixed: weights, gradients, state of the optimizer.
        per_crop: what each crop adds.
        beside: what the process takes besides the tensors of a step: the libraries, recordings that are kept.
    """

    fixed: float
    per_crop: float
    beside: float

    def at(self, batch: int) -> float:
        """Bytes of a step with so many crops."""
        return self.fixed + self.per_crop * batch

    def fitting(self, crops: int, gigabytes: float) -> int:
        """The largest batch that divides `crops`, so that some batches make a step of exactly these.

        Args:
            crops: of an optimizer step.
            gigabytes: of the device.

        Raises:
            ConfigError: none of two or more crops fits.
        """
        room = SHARE * gigabytes * GB - self.beside
        sizes = [size for size in range(crops, 1, -1) if crops % size == 0]
        for size in sizes:
            if self.at(size) <= room:
                return size
        least = (self.at(sizes[-1]) + self.beside) / SHARE / GB
        found = f"{gigabytes:g} GB, where a batch of {sizes[-1]} needs {least:.1f}"
        raise ConfigError("trainer.memory", found, "more, shorter crops or a smaller model")

    def to_dict(self) -> dict[str, float]:
        """For a file; `MemoryModel(**content)` reads it."""
        return asdict(self)


def measure(bench: Bench, beside: float, sizes: Sequence[int] = SIZES) -> MemoryModel:
    """Make real steps of two sizes, and draw the line through what they took.

    Args:
        bench: makes the steps; its weights change.
        beside: see `MemoryModel`.
        sizes: of the two batches.
    """
    batches = [bench.batch(size) for size in sizes]
    bench.step(batches[0])  # the optimizer makes its state in the first step
    taken = [peak(bench.device, partial(bench.step, batch)) for batch in batches]
    per_crop = max(0.0, (taken[1] - taken[0]) / (sizes[1] - sizes[0]))
    return MemoryModel(bench.state_bytes() + max(0.0, taken[0] - per_crop * sizes[0]), per_crop, beside)


def peak(device: torch.device, action: Callable[[], object]) -> float:
    """The most bytes that were there during an action, above those before it; see above for what is counted.

    By the kernel, during several of it one after another.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if _forget_peak():
        resident = resident_peak()
        for _ in range(_ROUNDS):
            action()
        return resident_peak() - resident
    with _without_stderr(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        action()
    return peak_of(record)


_PROCESS = Path("/proc/self")


def _forget_peak() -> bool:
    """Let the kernel note the most memory of this process anew, from what it needs now; False: it does not."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the heap keeps of earlier steps would be taken for what was needed
    try:
        (_PROCESS / "clear_refs").write_text("5")
        return resident_peak() > 0
    except OSError:
        return False


def resident_peak() -> float:
    """The most bytes that this process has held, since its start or since it was told to note them anew; 0: unknown."""
    try:
        status = (_PROCESS / "status").read_text()
    except OSError:
        return 0.0
    lines = [line.split() for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024.0 * int(lines[0][1]) if lines else 0.0


@contextmanager
def _without_stderr() -> Iterator[None]:
    """The profiler's libraries tell of themselves there, past Python: when they start, and of what was there before."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def peak_of(record: Any) -> float:
    """The most bytes that were allocated while torch's profiler recorded, above those before."""
    events = record.profiler.kineto_results.events()
    moves = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(itertools.accumulate((size for _, size in moves), initial=0))


def resident_bytes() -> float:
    """What this process holds in memory now."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return float(pages * resource.getpagesize())
    except (ImportError, OSError):  # no Linux
        return 0.5 * GB
