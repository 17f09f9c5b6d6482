"""Batches of training crops, the same for any number of workers and ranks, resumable inside an epoch."""

import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from voxnest.crops.dataset import CropDataset, CropRequest
from voxnest.errors import ConfigError, CorpusError

_AHEAD = 2  # batches that are made before they are asked for, per worker


def make_loader(
    dataset: CropDataset,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    drop_last: bool = True,
    prefetch: bool = False,
    pin_memory: bool = False,
) -> "CropLoader":
    """A `DataLoader` of crops that gives the same crops whatever the number of workers and ranks.

    Args:
        dataset: the crops. Its epoch and duration are looked at when a pass begins, so they can be set
            between passes, persistent workers or not.
        batch_size: crops per batch and rank.
        workers: processes that make batches; with 0 the calling process does.
        rank: of this process. Batch `b` of all ranks together is crops `b * batch_size * world_size` and
            following.
        world_size: number of ranks.
        start_batch: of the first pass, which resumes an epoch; later passes begin at 0. The loader's length
            is that of a whole epoch, as Lightning counts.
        drop_last: leave out the last, smaller batch. If it is kept, up to `world_size - 1` crops are taken
            twice, so that all ranks take the same number of steps.
        prefetch: without workers, make the next batches in a thread (numpy and soxr run beside the network).
        pin_memory: put batches where a GPU copies them from faster.

    Returns:
        A loader of `{"waveform": [batch, samples] float32, "label": [batch] int64, "utterance": [batch]
        int64}`. It has `state_dict` and `load_state_dict`, with which Lightning resumes in the middle of an
        epoch by itself.

    Raises:
        ConfigError: an argument is out of its range, or an epoch has less than one batch.
        CorpusError: while iterating, when no utterance can be read.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1), ("workers", workers, 0), ("start_batch", start_batch, 0),
        ("world_size", world_size, 1), ("rank", rank, 0),
    ):  # fmt: skip
        if value < least:
            raise ConfigError(name, f"{value}", f"{least} or more")
    if rank >= world_size:
        raise ConfigError("rank", f"{rank} of {world_size}", "a rank below world_size")
    sampler = CropSampler(dataset, batch_size, rank=rank, world_size=world_size, drop_last=drop_last)
    options: dict[str, Any] = {}
    if workers:
        # Forked workers share the cache of decoded audio. Other systems start workers afresh.
        context = "fork" if sys.platform == "linux" else None
        options = {"persistent_workers": True, "prefetch_factor": _AHEAD, "multiprocessing_context": context}
    return CropLoader(
        _BatchReader(dataset),
        sampler=sampler,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        start_batch=start_batch,
        prefetch=prefetch and not workers,
        **options,
    )


class CropSampler(DistributedSampler[CropRequest]):
    """The requests of one rank for one epoch, from batch `start` on.

    It is a `DistributedSampler` so that Lightning sees that ranks are taken care of, and it gets `set_epoch`
    called.
    """

    def __init__(
        self,
        dataset: CropDataset,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, seed=dataset.seed, drop_last=drop_last)
        self.crops, self.batch_size = dataset, batch_size
        self.start = 0
        if not len(self):
            found = f"an epoch of {len(dataset)} crops is less than a batch of {batch_size} on {world_size} ranks"
            raise ConfigError("batch_size", found, "more crops per epoch or smaller batches")

    def __len__(self) -> int:
        together = self.batch_size * self.num_replicas
        return len(self.crops) // together if self.drop_last else -(-len(self.crops) // together)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass."""
        self.crops.set_epoch(epoch)

    def __iter__(self) -> Iterator[CropRequest]:
        dataset, world_size = self.crops, self.num_replicas
        epoch, durations, plan = dataset.epoch, dataset.durations_of(len(self)), dataset.plan()
        together = self.batch_size * world_size
        for batch in range(self.start, len(self)):
            first = batch * together
            end = min(first + together, -(-len(dataset) // world_size) * world_size)
            positions = np.arange(first + self.rank, end, world_size) % len(dataset)
            yield CropRequest(epoch, durations[batch], positions, plan[positions])


class CropLoader(DataLoader[dict[str, Any]]):
    """The loader that `make_loader` makes; its arguments are a `DataLoader`'s."""

    def __init__(
        self, dataset: "_BatchReader", *, start_batch: int = 0, prefetch: bool = False, **options: Any
    ) -> None:
        super().__init__(dataset, **options)
        self.prefetch = prefetch
        self._resume: tuple[int | None, int] = None, start_batch
        self._epoch, self._next_batch = 0, start_batch

    def __iter__(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        # A generator: the pass begins with the first batch, when Lightning has set the epoch.
        assert isinstance(self.dataset, _BatchReader)
        assert isinstance(self.sampler, CropSampler)
        crops = self.dataset.crops
        (epoch, batch), self._resume = self._resume, (None, 0)
        self._epoch, self._next_batch = crops.epoch, batch if epoch in (None, crops.epoch) else 0
        self.sampler.start = self._next_batch
        source: Iterator[dict[str, Any]] = super().__iter__()
        if self.prefetch:
            source = _in_thread(source)
        for item in source:
            if "error" in item:
                raise item.pop("error")  # kept in `item` it would be a cycle, and the workers end 5 s late
            crops.note_failures(item.pop("failures"))
            self._next_batch += 1
            yield item

    def close(self) -> None:
        """End the workers, if there are any; the next pass starts others.

        Left to the end of the process, torch before 2.13 waits five seconds for each of them; it has no public name for
        what ends them.
        """
        iterator, self._iterator = self._iterator, None
        if iterator is not None:
            iterator._shutdown_workers()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the first of its batches that was not yet handed out."""
        return {"epoch": self._epoch, "batch": self._next_batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass, if it is through the same epoch, begin where the state was saved."""
        self._resume = state["epoch"], state["batch"]


class _BatchReader(Dataset[dict[str, Any]]):
    """What workers run: it answers requests, and hands failures and errors to the parent as data."""

    def __init__(self, crops: CropDataset) -> None:
        self.crops = crops
        self._reported: set[Path] = set()

    def __getitem__(self, request: CropRequest) -> dict[str, Any]:
        try:
            batch: dict[str, Any] = dict(self.crops.read(request))
        except CorpusError as error:  # torch cannot make an error with several arguments again in the parent
            return {"error": error}
        failures = self.crops.failures
        batch["failures"] = {path: failures[path] for path in failures.keys() - self._reported}
        self._reported.update(failures)
        return batch


def _as_it_is(batch: dict[str, Any]) -> dict[str, Any]:
    return batch


def _in_thread(source: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The items of `source`, made ahead in one thread; torch's kernels and numpy's run side by side."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="crops") as thread:
        waiting = deque(thread.submit(next, source, None) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, source, None))
            yield item
