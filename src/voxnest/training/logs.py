"""What a run tells of itself: its values, a progress bar, a summary."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

if TYPE_CHECKING:
    from voxnest.training.callbacks import RunControl
    from voxnest.training.config import TrainingConfig
    from voxnest.training.data import SpeakerData
    from voxnest.training.module import TrainingModule


MEASURES = {"eer": "Equal error rate", "top1_error": "Top-1 error"}
SHORT = {"eer": "EER", "top1_error": "Top-1 error"}
WIDE = 100
"""Columns of a terminal from which on everything finds room."""


class MetricsLog(L.Callback):
    """Logs loss, learning rate, margin and speed every few steps, and error rates after each validation.

    `data_wait` is the share of the time in which a step waited for its batch. The loss is that of one batch
    of the first process.

    Args:
        config: of the run.
        control: knows the time.

    Attributes:
        latest: the values that were logged last.
        logged: the step whose training values they are.
    """

    def __init__(self, config: TrainingConfig, control: RunControl) -> None:
        self.config, self.control = config, control
        self.latest: dict[str, float] = {}
        self.logged = 0
        self._step = -1
        self._crops = 0
        self._waited = 0.0
        self._restart()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to measure."""
        self._step = trainer.global_step
        self._restart()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note how long the batch was waited for."""
        self._waited += time.perf_counter() - self._ended

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log, every few optimizer steps."""
        self._crops += len(batch["label"]) * trainer.world_size
        if trainer.global_step != self._step:
            self._step = trainer.global_step
            if self._step % self.config.trainer.log_every_steps == 0 and trainer.is_global_zero:
                self._log(trainer, pl_module)  # type: ignore[arg-type]
        self._ended = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the error rates, and leave the time of the validation out of the speed."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if module.validation is not None and trainer.is_global_zero:
            rates = {f"{self.config.measure}/{size}": rate for size, rate in module.validation.error.items()}
            self._write(trainer, rates)
        self._restart()

    def _log(self, trainer: L.Trainer, module: TrainingModule) -> None:
        now = time.perf_counter()
        assert module.loss is not None
        assert module.criterion is not None
        values = {"loss": float(module.loss)}
        if len(module.losses) > 1:
            values |= {f"loss/{dim}": float(loss) for dim, loss in module.losses.items()}
        for stage, losses in module.exit_losses.items():
            values |= {f"loss/{dim}@{stage}": float(loss) for dim, loss in losses.items()}
        values |= {f"loss/{name}": float(loss) for name, loss in module.further.items()}
        values["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        values["margin"] = float(module.criterion.base_loss.margin)  # type: ignore[arg-type]
        if module.grad_norm is not None:
            values["grad_norm"] = float(module.grad_norm)
        if module.auxiliary is not None:
            values |= module.auxiliary.accuracies()
        values["crops_per_second"] = self._crops / (now - self._started)
        values["data_wait"] = self._waited / (now - self._started)
        self._write(trainer, values)
        self.logged = self._step
        self._restart()

    def _write(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        data: SpeakerData = trainer.datamodule  # type: ignore[attr-defined]
        batches = trainer.fit_loop.total_batch_idx + 1
        common = {"epoch": batches / len(data.loader), "minutes": self.control.clock.elapsed / 60}
        self.latest |= values
        for logger in trainer.loggers:
            logger.log_metrics(common | values, step=trainer.global_step)

    def _restart(self) -> None:
        self._started = self._ended = time.perf_counter()
        self._waited, self._crops = 0.0, 0


class Display(ProgressBar):
    """Shows a run: a summary at the start, then a bar on a terminal, or a line for each log elsewhere.

    Args:
        config: of the run.
        control: knows how far it is.
        log: knows the values.
        console: where to.
    """

    def __init__(self, config: TrainingConfig, control: RunControl, log: MetricsLog, console: Console) -> None:
        super().__init__()
        self.config, self.control, self.log_values, self.console = config, control, log, console
        self._enabled = True
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._printed = 0

    def disable(self) -> None:
        """Show nothing: on all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show again."""
        self._enabled = True

    def preparing(self, done: int, total: int) -> None:
        """Show how many files of a corpus were looked at."""
        self._move(done / max(total, 1), f"preparing the corpus: {done:,} of {total:,} files")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the summary and start the bar."""
        self._stop()
        if not self._enabled:
            return
        for name, text in self._summary(trainer, pl_module).items():  # type: ignore[arg-type]
            self.console.print(f"[bold]{escape(name):<11}[/] {escape(text)}", highlight=False, soft_wrap=True)
        if trainer.global_step:
            self.console.print(f"continues after step {trainer.global_step}")
        self._move(self.control.fraction, "first batch")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        self._show(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say that it validates."""
        self._move(self.control.fraction, f"step {trainer.global_step} · validating")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the error rates, to stay above the bar."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if self._enabled and module.validation is not None:
            rates = "  ".join(f"{size}: {rate:.2%}" for size, rate in module.validation.error.items())
            self.console.print(f"step {trainer.global_step}  {SHORT[self.config.measure]}  {rates}", highlight=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the bar away."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Take the bar away before anything is said about the error."""
        self._stop()

    def _move(self, fraction: float, text: str) -> None:
        if self._progress is None and self._enabled and self.console.is_terminal:
            bar = BarColumn(24 if self.console.width >= WIDE else 8)
            share = TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4))
            spent = TimeElapsedColumn(table_column=Column(min_width=7))
            what = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1))
            self._progress = Progress(SpinnerColumn(), bar, share, spent, what, console=self.console)
            self._task = self._progress.add_task(text, total=1.0)
            self._progress.start()
        if self._progress is not None:
            self._progress.update(self._task, completed=fraction, description=text)

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show(self, trainer: L.Trainer) -> None:
        values = self.log_values.latest
        if not self._enabled or (self._progress is None and self.log_values.logged == self._printed):
            return
        measure = self.config.measure
        total = f"/{self.control.limits.steps}" if self.control.limits.steps else ""
        parts = [f"step {trainer.global_step}{total}"]
        if "loss" in values:
            parts.append(f"loss {values['loss']:.3f}")
        module: TrainingModule = trainer.lightning_module  # type: ignore[assignment]
        full = f"{measure}/{module.encoder.embedding_dim}"
        if full in values:
            parts.append(f"{SHORT[measure]} {values[full]:.2%}")
        if "loss" in values:
            parts.append(f"{values['crops_per_second']:.0f} crops/s")
            if self._progress is None or self.console.width >= WIDE:
                parts.append(f"lr {values['lr']:.1e}")
        if self._progress is not None:
            self._move(self.control.fraction, " · ".join(parts))
        else:
            self.console.print(f"{self.control.fraction:4.0%}  " + " · ".join(parts), highlight=False)
            self._printed = self.log_values.logged

    def _summary(self, trainer: L.Trainer, module: TrainingModule) -> dict[str, str]:
        data: SpeakerData = trainer.datamodule  # type: ignore[attr-defined]
        config, limits = self.config, self.control.limits
        encoder = module.encoder
        overrides = " with overrides" if config.model.overrides else ""
        parameters = sum(parameter.numel() for parameter in encoder.parameters())
        learning = sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)
        trained = f", {learning:,} of them trained ({learning / parameters:.1%})" if module.adapting else ""
        dims = ", ".join(map(str, encoder.dims))
        classes = f" · {data.num_classes:,} classes" if len(config.crops.speeds) > 1 else ""
        ends = [f"{limits.steps:,} steps"] if limits.steps else []
        ends += [f"{limits.seconds / 60:g} min"] if limits.seconds else []
        batch = config.crops.batch_size * trainer.world_size * config.trainer.accumulate
        processes = f" · {trainer.world_size} processes" if trainer.world_size > 1 else ""
        name = config.model.name or encoder.name
        rows = {
            "model": f"{name}{overrides} · {parameters / 1e6:.2f} M parameters{trained} · {dims}-D",
            "corpus": f"{len(data.crops.speakers):,} speakers · {data.utterances:,} utterances · "
            f"{data.hours:.1f} h{classes}",
            **{f"  {name}": text for name, text in data.described.items()},
            **({"known": f"{len(data.known):,} recordings"} if data.known else {"trials": f"{len(data.trials):,}"}),
            "training": f"{' or '.join(ends)} · {batch} crops of {config.crops.mean_duration:g} s a step · "
            f"{len(data.loader):,} batches an epoch",
            "device": f"{module.device.type.upper()}{processes} · precision {trainer.precision.removesuffix('-true')}",
            "run folder": str(config.output),
        }
        if data.left_out:
            count, listed = data.left_out
            rows["left out"] = f"{count:,} that cannot be read: {listed}"
        return rows
