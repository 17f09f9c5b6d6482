"""The LightningDataModule: training crops of a manifest, and the trials that a validation scores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import torch
from torch.utils.data import DataLoader

from voxnest.corpora.manifest import Utterance, check_files, missing_files, read_manifest
from voxnest.corpora.prepare import UNREADABLE, prepare
from voxnest.corpora.trials import Trial, check_recordings, find_root, read_trials
from voxnest.crops.augmentation import Augmentation
from voxnest.crops.corpus_statistics import corpus_statistics
from voxnest.crops.dataset import CropDataset
from voxnest.crops.features import FeatureCache, FeatureCrops
from voxnest.crops.loading import CropLoader, make_loader
from voxnest.errors import CorpusError
from voxnest.frontends import Frontend
from voxnest.training.config import DEFAULT_EPOCHS, TrainingConfig
from voxnest.training.crop_config import Crops
from voxnest.training.held_out import check_speakers, split_recordings, split_speakers, write_segments
from voxnest.training.interruption import StopSignals, WorkerStart
from voxnest.training.mixing import Part, describe, emphasis, find_parts, place_of
from voxnest.training.schedules import Limits, duration_at

MOST_WORKERS = 12
TOLERATED = 0.01
"""Share of the recordings of a manifest that may be missing: more, and it is the corpus that is not there."""


class SpeakerData(L.LightningDataModule):
    """Training crops, and trials for validation.

    The training data is an endless stream of batches, one epoch after the other, of which batch number n
    depends on nothing but the seed and n. So a run that was interrupted anywhere continues with the batch it
    would have had next.

    Args:
        config: of the run.
        progress: called with the files looked at and their total while a corpus is prepared.
        stop: the signals that end a wait for the next batch.
        frontend: of the encoder; one that normalises by a corpus is told the mean and deviation of the training
            utterances, unless it came with them.

    Attributes:
        crops: the training crops; from `setup` on, as the others.
        loader: of the crops.
        trials: what a validation of verification scores.
        training: the utterances that crops are of, in the order of their numbers.
        known: the recordings that a validation of identification names the speakers of.
        trials_root: the folder that their paths are relative to.
        utterances: number of training utterances.
        hours: of training speech.
        described: each of several corpora in numbers.
        left_out: recordings that could not be read when the corpus was prepared, and where they are listed; None if
            all could, or the manifest was there.
        unreadable: recordings found missing or damaged before training, and why.
    """

    crops: CropDataset
    loader: CropLoader
    trials: Sequence[Trial]
    training: Sequence[Utterance]
    known: Sequence[Utterance]
    trials_root: Path

    def __init__(
        self,
        config: TrainingConfig,
        progress: Callable[[int, int], None] | None = None,
        stop: StopSignals | None = None,
        frontend: Frontend | None = None,
    ) -> None:
        super().__init__()
        self.stop, self.frontend = stop or StopSignals(), frontend
        assert config.output is not None
        self.config, self.folder, self.progress = config, config.output, progress
        self.prepare_data_per_node = False
        self.batches_done = 0
        self.utterances, self.hours = 0, 0.0
        self.trials, self.known = [], []
        self.described: dict[str, str] = {}
        self.left_out: tuple[int, Path] | None = None
        self.unreadable: dict[Path, str] = {}

    @property
    def num_classes(self) -> int:
        """Speakers times speeds."""
        return self.crops.num_classes

    def state_dict(self) -> dict[str, Any]:
        """How many batches were trained on."""
        assert self.trainer is not None
        return {"batches_done": self.trainer.fit_loop.total_batch_idx + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after so many batches."""
        self.batches_done = state_dict["batches_done"]

    @property
    def manifest(self) -> Path:
        """The manifest folder (the first of several): the one of the configuration, or one in the run folder."""
        return self.parts[0].manifest

    @property
    def parts(self) -> list[Part]:
        """The corpora that are trained on."""
        return find_parts(self.config.data.train, self.folder)

    def read(self) -> list[Utterance]:
        """All their utterances."""
        return [utterance for part in self.parts for utterance in part.read()]

    def prepare_data(self) -> None:
        """On the first process: describe a corpus that has no manifest, cut the held-out recordings."""
        utterances = self._prepare_corpus()
        training, held_out = self._divided(utterances)
        if self._holds_out_speakers and not self._held_out_trials.exists():
            self.unreadable |= write_segments(held_out, self._held_out_trials, self.config)
        self._find_statistics(training, self.progress)
        if (cache := self._feature_cache(training)) is not None:
            cache.build(progress=self.progress)

    def _prepare_corpus(self) -> list[Utterance]:
        utterances: list[Utterance] = []
        for part in self.parts:
            if not part.source.exists():
                expected = "a manifest of `voxnest prepare` or a folder of recordings"
                raise CorpusError(part.source, "no such folder", expected)
            if part.manifest != part.source:
                report = prepare(part.source, part.manifest, progress=self.progress)
                if report.statistics.unreadable:
                    before = self.left_out[0] if self.left_out else 0
                    self.left_out = before + report.statistics.unreadable, part.manifest / UNREADABLE
            found = part.read()
            if part.manifest == part.source:
                self._check_files(found, part.manifest)
            utterances += found
        return utterances

    def _find_statistics(
        self, utterances: Sequence[Utterance], progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Tell a front end that asks for them the statistics of the training utterances; found once for a run."""
        if self.frontend is not None and self.frontend.wants_statistics:
            found = corpus_statistics(
                self.frontend, utterances, self.folder / "feature-statistics.json", progress=progress
            )
            self.frontend.set_statistics(*map(torch.from_numpy, found))

    def _feature_cache(self, utterances: Sequence[Utterance]) -> FeatureCache | None:
        folder = self.config.data.features
        return None if folder is None or self.frontend is None else FeatureCache(folder, self.frontend, utterances)

    @property
    def _holds_out_speakers(self) -> bool:
        return self.config.task == "verification" and self.config.data.validation.trials is None

    def _divided(self, utterances: list[Utterance]) -> tuple[list[Utterance], list[Utterance]]:
        """The utterances that are trained on, and those that a validation is made of."""
        validation = self.config.data.validation
        if self.config.task == "verification":
            return (utterances, []) if validation.trials else split_speakers(utterances, self.config)
        if validation.utterances is None:
            return split_recordings(utterances, self.config)
        known, speakers = read_manifest(validation.utterances), {utterance.speaker for utterance in utterances}
        if strangers := sorted({utterance.speaker for utterance in known} - speakers):
            found = f"{len(strangers)} speakers that are not trained on, such as {strangers[0]!r}"
            raise CorpusError(validation.utterances, found, f"other recordings of the speakers of {self.manifest}")
        check_files(known, validation.utterances)
        return utterances, known

    def setup(self, stage: str) -> None:
        """Read manifest and trials, and make the crops.

        Raises:
            CorpusError: an empty corpus or one of one speaker.
            TrialError: a malformed trial list, or one that names a recording that is not there.
            ConfigError: an epoch of less than one batch, an augmentation out of its range.
        """
        assert self.trainer is not None
        config, validation = self.config, self.config.data.validation
        utterances = self.read()
        check_speakers(place_of(config.data.train), {utterance.speaker for utterance in utterances})
        utterances, held_out = self._divided(utterances)
        if config.task == "identification":
            self.known = held_out
        else:
            listed = validation.trials or self._held_out_trials
            self.trials = read_trials(listed)
            if validation.trials is None:
                self.trials_root = listed.parent
            else:
                self.trials_root = validation.root or find_root(listed, self.trials)
            if self.trainer.is_global_zero:
                check_recordings(self.trials, self.trials_root, listed)
        self._find_statistics(utterances)
        self.training, self.utterances = utterances, len(utterances)
        self.hours = sum(utterance.duration for utterance in utterances) / 3600
        self.described = describe(self.parts, utterances) if len(self.parts) > 1 else {}
        self.crops = self._make_crops(utterances)
        device = self.trainer.strategy.root_device.type
        self.loader = make_loader(
            self.crops,
            batch_size=config.crops.batch_size,
            workers=self._workers(device),
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            prefetch=True,
            pin_memory=device == "cuda",
        )
        self.loader.worker_init_fn = WorkerStart()

    def _make_crops(self, utterances: Sequence[Utterance]) -> CropDataset:
        config = self.config
        options: dict[str, Any] = {
            "duration": config.crops.mean_duration,
            "crops_per_epoch": config.crops.per_epoch,
            "balance": config.crops.balance,
            "emphasis": emphasis(self.parts, utterances, config.crops.balance),
            "seed": config.seed,
        }
        if (cache := self._feature_cache(utterances)) is not None:
            return FeatureCrops(
                cache, utterances, reverse_probability=config.augmentation.reverse_probability, **options
            )
        augmentation = Augmentation(**dict(config.augmentation), seed=config.seed)
        return CropDataset(
            utterances,
            speeds=config.crops.speeds,
            augmentation=augmentation,
            cache_gb=config.data.cache_gb,
            **options,
        )

    def train_dataloader(self) -> BatchStream:
        """The endless batches, from the first that was not trained on."""
        return BatchStream(self.crops, self.loader, self.config.crops, self.batches_done, self._wait)

    def val_dataloader(self) -> DataLoader[Any]:
        """One batch, which stands for all trials: `evaluate` reads and batches the recordings itself."""
        return DataLoader(torch.zeros(1))  # type: ignore[arg-type]

    def limits(self) -> Limits:
        """When the run ends."""
        options = self.config.trainer
        epochs = options.max_epochs
        if (options.max_steps, epochs, options.max_minutes) == (None, None, None):
            epochs = DEFAULT_EPOCHS
        steps = [options.max_steps] if options.max_steps else []
        if epochs:
            steps.append(math.ceil(epochs * len(self.loader.sampler) / options.accumulate))  # type: ignore[arg-type]
        return Limits(min(steps, default=None), options.max_minutes and options.max_minutes * 60)

    def failures_here(self) -> dict[Path, str]:
        """Files that this process skipped, and why."""
        return self.unreadable | (self.crops.failures if hasattr(self, "crops") else {})

    def failures(self) -> dict[Path, str]:
        """Files that any process skipped, and why; to be called on all processes."""
        found = [self.failures_here()]
        if self.trainer is not None and self.trainer.world_size > 1:
            found = found * self.trainer.world_size
            torch.distributed.all_gather_object(found, self.failures_here())
        return {path: reason for each in found for path, reason in each.items()}

    def close(self) -> None:
        """End the reading processes, if any have begun."""
        if hasattr(self, "loader"):
            self.loader.close()

    def _check_files(self, utterances: Sequence[Utterance], manifest: Path) -> None:
        """Refuse a manifest whose corpus is gone; note the files that are missing if they are few."""
        missing = missing_files(utterances)
        if len(missing) > TOLERATED * len({utterance.path for utterance in utterances}):
            check_files(utterances, manifest)
        self.unreadable |= dict.fromkeys(missing, "is not there")

    def _workers(self, device: str) -> int:
        """Reading processes: by default none (a thread) on a CPU, a share of the cores for a GPU."""
        if self.config.data.workers is not None or device == "cpu":
            return self.config.data.workers or 0
        assert self.trainer is not None
        return max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // self.trainer.num_devices))

    def _wait(self) -> AbstractContextManager[None]:
        """Around a wait for a batch: a signal ends it if no step is half done, and no other process is in one."""
        assert self.trainer is not None
        done = self.trainer.fit_loop.total_batch_idx + 1
        alone = self.trainer.world_size == 1 and done % self.config.trainer.accumulate == 0
        return self.stop.at_once() if alone and self.stop.training else nullcontext()

    @property
    def _held_out_trials(self) -> Path:
        return self.folder / "validation" / "trials.txt"


class BatchStream:
    """All batches of a run, one epoch after the other, without end; each knows the `seconds` of its crops.

    Args:
        crops: of which epoch and duration are set.
        loader: of the crops.
        options: say how long crops are in which epoch.
        start: number of the first batch.
        wait: entered around the wait for each batch.
    """

    def __init__(
        self,
        crops: CropDataset,
        loader: CropLoader,
        options: Crops,
        start: int = 0,
        wait: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.crops, self.loader, self.options, self.start, self.wait = crops, loader, options, start, wait

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, batch = divmod(self.start, len(self.loader))
        self.loader.load_state_dict({"epoch": epoch, "batch": batch})
        while True:
            self._set_epoch(epoch)
            batches, seconds = iter(self.loader), iter(self.crops.durations_of(len(self.loader))[batch:])
            while True:
                with self.wait():
                    item = next(batches, None)
                if item is None:
                    break
                yield {**item, "seconds": next(seconds)}
            epoch, batch = epoch + 1, 0

    def _set_epoch(self, epoch: int) -> None:
        self.crops.set_epoch(epoch)
        self.crops.duration, self.crops.durations = duration_at(epoch, self.options), self.options.durations
