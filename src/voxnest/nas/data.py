"""The data module of a search: crops of one half of the speech for the weights, of the other for the architecture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxnest.corpora.manifest import Utterance, read_manifest
from voxnest.crops.augmentation import Augmentation
from voxnest.crops.dataset import CropDataset
from voxnest.crops.loading import CropLoader, make_loader
from voxnest.training.data import BatchStream, SpeakerData
from voxnest.training.held_out import check_speakers
from voxnest.training.interruption import WorkerStart

if TYPE_CHECKING:
    from voxnest.nas.config import SearchConfig

HALVES = ("weights", "architecture")


def split_halves(utterances: Sequence[Utterance], seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Divide the speech of every speaker into two halves: by utterances, or the only utterance in the middle.

    An odd utterance goes to the first half, which trains the weights.
    """
    rng = np.random.default_rng(seed)
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    halves: tuple[list[Utterance], list[Utterance]] = [], []
    for _, own in sorted(by_speaker.items()):
        if len(own) == 1:
            middle = own[0].duration / 2
            halves[0].append(replace(own[0], duration=middle))
            halves[1].append(replace(own[0], duration=middle, offset=own[0].offset + middle))
        for place, number in enumerate(rng.permutation(len(own)) if len(own) > 1 else []):
            halves[place % 2].append(own[number])
    return halves


class SearchData(SpeakerData):
    """Batches of two: `{"weights": batch, "architecture": batch}`; see `SpeakerData`, which is of a training."""

    config: SearchConfig  # type: ignore[assignment]

    def prepare_data(self) -> None:
        """Describe a corpus that has no manifest, and find the statistics that the front end wants."""
        self._find_statistics(self._prepare_corpus(), self.progress)

    def setup(self, stage: str) -> None:
        """Read the manifest, divide it, and make the crops.

        Raises:
            CorpusError: an empty corpus or one of one speaker.
            ConfigError: an epoch of less than one batch.
        """
        assert self.trainer is not None
        utterances = read_manifest(self.manifest)
        check_speakers(self.config.data.train, {utterance.speaker for utterance in utterances})
        self._find_statistics(utterances)
        self.utterances = len(utterances)
        self.hours = sum(utterance.duration for utterance in utterances) / 3600
        self.halves = [
            self._make(half, number) for number, half in enumerate(split_halves(utterances, self.config.seed))
        ]
        self.crops, self.loader = self.halves[0]

    def train_dataloader(self) -> Iterable[dict[str, Any]]:  # type: ignore[override]
        """The endless pairs of batches, from the first that was not trained on."""
        options, done = self.config.crops, self.batches_done
        return _Pairs([BatchStream(crops, loader, options, done, self._wait) for crops, loader in self.halves])

    def failures_here(self) -> dict[Path, str]:
        """Files that were skipped, and why."""
        found = dict(self.unreadable)
        for crops, _ in getattr(self, "halves", ()):
            found |= crops.failures
        return found

    def close(self) -> None:
        """End the reading processes of both halves, if any have begun."""
        for _, loader in getattr(self, "halves", ()):
            loader.close()

    def _wait(self) -> AbstractContextManager[None]:
        """Around a wait for a batch: no step is half done, so a signal ends it."""
        return self.stop.at_once() if self.stop.training else nullcontext()

    def _make(self, utterances: list[Utterance], half: int) -> tuple[CropDataset, CropLoader]:
        config = self.config
        seed = 2 * config.seed + half
        crops = CropDataset(
            utterances,
            duration=config.crops.duration,
            speeds=config.crops.speeds,
            augmentation=Augmentation(**dict(config.augmentation), seed=seed),
            crops_per_epoch=config.crops.per_epoch,
            balance=config.crops.balance,
            cache_gb=config.data.cache_gb,
            seed=seed,
        )
        assert self.trainer is not None
        device = self.trainer.strategy.root_device.type
        loader = make_loader(
            crops,
            batch_size=config.crops.batch_size,
            workers=self._workers(device),
            prefetch=True,
            pin_memory=device == "cuda",
        )
        loader.worker_init_fn = WorkerStart()
        return crops, loader


class _Pairs:
    """Of several streams, a batch of each."""

    def __init__(self, streams: list[BatchStream]) -> None:
        self.streams = streams

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for pair in zip(*self.streams, strict=True):
            yield dict(zip(HALVES, pair, strict=True))
