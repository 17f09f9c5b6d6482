"""Lightning callbacks: schedules and the end of a run, checkpoints and exports, weight averaging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from voxnest.errors import CheckpointError, TrainingError
from voxnest.files import atomic_write, writing
from voxnest.hub.checkpoint import save_encoder
from voxnest.models.exits import set_thresholds
from voxnest.training.adapters import adapter_file
from voxnest.training.interruption import StoppedAtOnce, StopSignals, TrainingInterruptedError
from voxnest.training.schedules import Clock, Limits, lr_factor, margin_at

if TYPE_CHECKING:
    from voxnest.training.config import TrainingConfig
    from voxnest.training.data import SpeakerData
    from voxnest.training.module import TrainingModule


class RunControl(L.Callback):
    """Sets learning rate, margin and freezing before each step; ends the run; stops for signals, bad losses.

    Args:
        config: of the run.
        clock: what counts the time.

    Attributes:
        fraction: how much of the training is done.
        save_due: it is time for a checkpoint, the same on all processes.
        interrupted: the signal that asks to stop, the same on all processes; 0 if none.
        stop: this process's signals.
    """

    def __init__(self, config: TrainingConfig, clock: Clock | None = None) -> None:
        self.config = config
        self.clock = clock or Clock()
        self.limits = Limits(config.trainer.max_steps, None)
        self.fraction = 0.0
        self.save_due = False
        self.interrupted = 0
        self.stop = StopSignals()
        self._elapsed = 0.0
        self._saved_at = 0.0
        self._step = -1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"elapsed": self.clock.elapsed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the time of the earlier part of the run."""
        self._elapsed = state_dict["elapsed"]

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out how many steps the run has."""
        data: SpeakerData = trainer.datamodule  # type: ignore[attr-defined]
        self.limits = data.limits()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock and take over Ctrl-C and SIGTERM."""
        self.clock.start(self._elapsed)
        self._saved_at = self._elapsed
        self._step = trainer.global_step
        self._update_fraction(trainer)
        self.stop.training = True
        self.stop.install()  # Lightning has set its own for SIGTERM

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Apply the schedules; make the randomness of the step depend on seed, process and batch alone."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        config = self.config
        lr = config.optimizer.lr * lr_factor(self.fraction, config.schedule)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = lr * group["lr_scale"]
        assert module.criterion is not None
        module.fraction = self.fraction
        module.criterion.base_loss.margin = margin_at(self.fraction, config.loss)  # type: ignore[assignment]
        if hasattr(module.encoder.backbone, "progress"):  # drop-path grows with it
            module.encoder.backbone.progress = self.fraction  # type: ignore[assignment]
        frozen = config.stages.projection_only or trainer.global_step < config.stages.frozen_steps
        if frozen != module.frozen:
            module.set_frozen(frozen)
        number = trainer.fit_loop.total_batch_idx
        torch.manual_seed(int(np.random.SeedSequence((config.seed, trainer.global_rank, number)).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After an optimizer step, agree among the processes on the time and on what to do next."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        options = self.config.trainer
        elapsed = self.clock.elapsed
        self.save_due = elapsed - self._saved_at >= options.save_every_minutes * 60
        look = trainer.world_size > 1 or module.device.type == "cpu" or self._step % options.log_every_steps == 0
        look |= self.save_due or self.validation_due or self.limits.fraction(self._step, elapsed) >= 1
        bad_step = int(module.bad_step) if look else -1  # waits for the device
        votes = [elapsed, float(self.save_due), float(self.stop.received), float(bad_step)]
        if trainer.world_size > 1:
            ballot = torch.tensor(votes, dtype=torch.float64, device=module.device)
            votes = trainer.strategy.reduce(ballot, reduce_op="max").tolist()
        self._elapsed, self.save_due, self.interrupted = votes[0], bool(votes[1]), int(votes[2])
        if self.save_due:
            self._saved_at = self._elapsed
        if votes[3] >= 0:
            raise TrainingError(
                self.config.output,
                f"the loss or its gradient is not finite at step {int(votes[3])}; training stopped, "
                "the checkpoints are from before it",
                "a lower optimizer.lr, a longer schedule.warmup, or precision 32",
            )
        self._update_fraction(trainer)

    @property
    def validation_due(self) -> bool:
        """There is a validation after this step."""
        return self._step % self.config.trainer.val_every_steps == 0 or self.fraction >= 1

    def _update_fraction(self, trainer: L.Trainer) -> None:
        self.fraction = self.limits.fraction(trainer.global_step, self._elapsed)
        if self.fraction >= 1:
            trainer.should_stop = True  # Lightning validates once more, then stops


class RunCheckpoints(Checkpoint):
    """Keeps `checkpoints/last.ckpt` and `best.ckpt`, and the encoder alone as `last.` and `best.safetensors`.

    Checkpoints are written after each validation, every few minutes, and when the run is interrupted. A validation that
    was cut short, or was due when the run was interrupted, is made when the run continues.

    Args:
        config: of the run.
        control: decides when.

    Attributes:
        best: step and error rates of the best validation so far.
        last: of the last one.
        saved_step: of the last checkpoint that was written.
        unreadable: at the end, the training files that were skipped, and why.
    """

    def __init__(self, config: TrainingConfig, control: RunControl) -> None:
        assert config.output is not None
        self.folder = config.output
        self.config, self.control = config, control
        self._improved = False
        self.best: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self.saved_step: int | None = None
        self.unreadable: dict[Path, str] = {}

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"best": self.best, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was found before."""
        self.best, self.last = (
            found
            and {**found, "error": {str(size): rate for size, rate in (found.get("error") or found["eer"]).items()}}
            for found in (state_dict["best"], state_dict["last"])
        )  # older ones know but one error, and sizes by numbers

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate first if the run was interrupted before it could."""
        step = trainer.global_step
        self.saved_step = step or None
        if step and self.control.validation_due and (self.last is None or self.last["step"] != step):
            loop = trainer.fit_loop.epoch_loop.val_loop
            trainer.validating, loop.restarting = True, False
            loop.run()
            trainer.training = True

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Export the encoder, while the averaged weights are in place."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        found = module.validation
        if found is None:
            return
        size = str(self.config.best_dim or module.encoder.embedding_dim)
        self.last = {"step": found.step, "error": found.error, "threshold": found.threshold}
        self._improved = self.best is None or found.error[size] < self.best["error"][size]
        if self._improved:
            self.best = self.last
        if trainer.is_global_zero:
            encoder = module.adapting.merged() if module.adapting else module.encoder
            set_thresholds(encoder, found.threshold)
            metadata = {
                "step": found.step,
                self.config.measure: found.error,
                "threshold": found.threshold,
                "ema": self.config.ema,
                "seed": self.config.seed,
            }
            for name in ("last", "best") if self._improved else ("last",):
                save_encoder(encoder, self.folder / f"{name}.safetensors", metadata, module.classifier())
                if module.adapting:
                    module.adapting.adapter(encoder, metadata).save(adapter_file(self.folder, name))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the checkpoints; stop if the validation was cut short."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if module.interrupted:
            self._stop(trainer, module.interrupted)
        self._save(trainer, "last")
        if self._improved:
            self._save(trainer, "best")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write a checkpoint if it is time, and stop if that was asked for."""
        control = self.control
        if control.interrupted:
            self._stop(trainer, control.interrupted)
        if control.save_due and not control.validation_due:
            self._save(trainer, "last")
            control.save_due = False

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was trained if a wait for data was interrupted."""
        if isinstance(exception, StoppedAtOnce) and self.control.stop.training:
            self._save_new(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Collect what could not be read."""
        data: SpeakerData = trainer.datamodule  # type: ignore[attr-defined]
        self.unreadable = data.failures()

    def _stop(self, trainer: L.Trainer, number: int) -> NoReturn:
        self._save_new(trainer)
        raise TrainingInterruptedError(self.saved_step, 128 + number)

    def _save_new(self, trainer: L.Trainer) -> None:
        if trainer.global_step != (self.saved_step or 0):
            self._save(trainer, "last")

    def _save(self, trainer: L.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / "checkpoints" / f"{name}.ckpt")
        self.saved_step = trainer.global_step


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the old checkpoint and renames, so that a full disk or a kill leaves the old one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            CheckpointError: it cannot be written; what was there before is kept.
        """
        expected = "room on the disk, then the same command continues the run from the previous checkpoint"
        with writing(path, CheckpointError, expected), atomic_write(path) as temporary:
            try:
                torch.save(checkpoint, temporary)
            except RuntimeError as error:  # as which torch reports a full disk
                reason = str(error).splitlines()[0]
                full = "unexpected pos" in reason  # torch's word for it
                raise OSError("not all of it could be written, the disk may be full" if full else reason) from error


class MovingAverage(WeightAveraging):
    """Exponential moving average of the weights and batch-norm statistics, over optimizer steps.

    The decay grows from 0.1 to its full value over the first steps, (1 + n) / (10 + n), so that the random
    weights of the start are forgotten.

    Args:
        decay: of the average, per step.
    """

    def __init__(self, decay: float) -> None:
        def average(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
            if averaged[0].is_floating_point():
                weight = 1 - min(decay, (1 + float(count)) / (10 + float(count)))
                torch._foreach_lerp_(list(averaged), list(current), weight)
            else:  # counters of batch norms
                torch._foreach_copy_(list(averaged), list(current))

        super().__init__(use_buffers=True, multi_avg_fn=average)
