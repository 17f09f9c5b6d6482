"""What goes on around the steps of a search: schedules, the record of every epoch, checkpoints, the end."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import lightning.pytorch as L
import numpy as np
import torch

from voxnest.errors import TrainingError
from voxnest.files import atomic_write
from voxnest.nas.cost import expected_gmacs, genotype_gmacs
from voxnest.nas.derivation import derive
from voxnest.training.folder import writing
from voxnest.training.interruption import StoppedAtOnce, StopSignals, TrainingInterruptedError
from voxnest.training.schedules import Clock, Limits

if TYPE_CHECKING:
    from voxnest.nas.config import SearchConfig
    from voxnest.nas.data import SearchData
    from voxnest.nas.module import SearchModule

GENOTYPES = "genotypes.jsonl"


def settled(records: list[dict[str, Any]], epochs: int, change: float) -> bool:
    """Whether for so many epochs no genotype changed and no entropy moved by more than `change` nats."""
    last = records[-epochs - 1 :]
    if not epochs or len(last) <= epochs:
        return False
    for search in range(len(last[0]["searches"])):
        rows = [record["searches"][search] for record in last]
        entropies = np.array([row["entropy"] for row in rows])
        if any(row["genotype"] != rows[0]["genotype"] for row in rows) or np.ptp(entropies, axis=0).max() > change:
            return False
    return True


class SearchControl(L.Callback):
    """Sets schedules before each step; keeps the genotypes of each epoch; writes checkpoints; ends the search.

    Args:
        config: of the search.

    Attributes:
        stop: this process's signals.
        clock: counts the time of the search.
        limits: when it ends at the latest.
        fraction: how much of it is done.
        records: of every epoch, what `genotypes.jsonl` has.
        latest: the values that were logged last.
        logged: the step whose values they are.
        saved_step: of the last checkpoint.
    """

    def __init__(self, config: SearchConfig) -> None:
        assert config.output is not None
        self.config, self.folder = config, config.output
        self.stop, self.clock = StopSignals(), Clock()
        self.limits = Limits(None, None)
        self.fraction, self._elapsed, self._saved_at = 0.0, 0.0, 0.0
        self.records: list[dict[str, Any]] = []
        self.latest: dict[str, float] = {}
        self.logged, self._batches = 0, 1
        self.saved_step: int | None = None
        self._sums = self._nothing()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed search has to know."""
        return {"elapsed": self.clock.elapsed, "records": self.records, "sums": self._sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what the earlier part found."""
        self._elapsed, self.records, self._sums = (state_dict[key] for key in ("elapsed", "records", "sums"))

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find out how many steps the search has."""
        data: SearchData = trainer.datamodule  # type: ignore[attr-defined]
        options, self._batches = self.config.trainer, min(len(loader) for _, loader in data.halves)
        minutes = options.max_minutes
        self.limits = Limits(options.max_epochs * self._batches, minutes and minutes * 60)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock and take over Ctrl-C and SIGTERM."""
        self.clock.start(self._elapsed)
        self._saved_at, self.saved_step = self._elapsed, trainer.global_step or None
        self.fraction = self.limits.fraction(trainer.global_step, self._elapsed)
        self.stop.training = True
        self.stop.install()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Apply the schedules; make the randomness of the step depend on the seed and its number alone."""
        module: SearchModule = pl_module  # type: ignore[assignment]
        config, number = self.config, trainer.fit_loop.total_batch_idx
        weights, (start, end) = config.weights, config.architecture.temperature
        cosine = 0.5 * (1 + math.cos(math.pi * self.fraction))
        trainer.optimizers[0].param_groups[0]["lr"] = weights.final_lr + (weights.lr - weights.final_lr) * cosine
        module.temperature = start * (end / start) ** self.fraction
        module.drop_path = config.model.drop_path * self.fraction
        module.search = number % len(config.cost.weights)
        torch.manual_seed(int(np.random.SeedSequence((config.seed, number)).generate_state(1)[0]))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log; at the end of an epoch derive; save if it is time; stop if that was asked for."""
        module: SearchModule = pl_module  # type: ignore[assignment]
        step = trainer.global_step
        found = {name: float(value) for name, value in module.found.items()}
        if not all(map(math.isfinite, found.values())):
            raise TrainingError(self.folder, f"the loss is not finite at step {step}", "a lower weights.lr")
        sums = self._sums[module.search]
        for name, value in {**found, "steps": 1.0}.items():
            sums[name] += value
        self.fraction = self.limits.fraction(step, self.clock.elapsed)
        ended = step % self._batches == 0
        if ended or self.fraction >= 1:
            self._keep(trainer, module)
            options = self.config.settle
            if self.fraction >= 1 or settled(self.records, options.epochs, options.change):
                trainer.should_stop = True
        if step % self.config.trainer.log_every_steps == 0:
            self._log(trainer, module, found)
        if self.stop.received:
            self._save(trainer)
            self._leave()
        late = self.clock.elapsed - self._saved_at >= self.config.trainer.save_every_minutes * 60
        if ended or late or trainer.should_stop:
            self._save(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keep what was found if a wait for data was interrupted."""
        if isinstance(exception, StoppedAtOnce) and self.stop.training and trainer.global_step != self.saved_step:
            self._save(trainer)

    def _nothing(self) -> list[dict[str, float]]:
        return [dict.fromkeys(("loss", "accuracy", "weight_loss", "steps"), 0.0) for _ in self.config.cost.weights]

    @torch.no_grad()
    def _keep(self, trainer: L.Trainer, module: SearchModule) -> None:
        """Derive the genotypes, and write those of all epochs."""
        supernet, searches = module.supernet, []
        for search, weight in enumerate(self.config.cost.weights):
            genotype = derive(supernet.space, *supernet.logits(search))
            sums = self._sums[search]
            steps = sums["steps"] or math.nan
            searches.append(
                {
                    "cost_weight": weight,
                    "genotype": str(genotype),
                    "entropy": [round(value, 6) for value in supernet.entropy(search).tolist()],
                    **{name: round(sums[name] / steps, 6) for name in ("loss", "accuracy", "weight_loss")},
                    "expected_gmacs": round(float(expected_gmacs(supernet, module.costs, search)), 6),
                    "gmacs": round(genotype_gmacs(supernet, module.costs, genotype), 6),
                }
            )
        epoch = round(trainer.global_step / self._batches, 3)
        self.records.append({"epoch": epoch, "step": trainer.global_step, "searches": searches})
        self._sums = self._nothing()
        path = self.folder / GENOTYPES
        with writing(path), atomic_write(path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in self.records), encoding="utf-8")

    @torch.no_grad()
    def _log(self, trainer: L.Trainer, module: SearchModule, found: dict[str, float]) -> None:
        values = {"epoch": trainer.global_step / self._batches, "minutes": self.clock.elapsed / 60, **found}
        values |= {"lr": trainer.optimizers[0].param_groups[0]["lr"], "temperature": module.temperature}
        values["drop_path"] = module.drop_path
        for search in range(len(self.config.cost.weights)):
            normal, reduce = module.supernet.entropy(search).tolist()
            last = f"/{search + 1}" if len(self.config.cost.weights) > 1 else ""
            values |= {f"entropy_normal{last}": normal, f"entropy_reduce{last}": reduce}
            values[f"gmacs{last}"] = float(expected_gmacs(module.supernet, module.costs, search))
        self.latest, self.logged = values, trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def _save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(checkpoint_of(self.folder))
        self.saved_step, self._saved_at = trainer.global_step, self.clock.elapsed

    def _leave(self) -> NoReturn:
        raise TrainingInterruptedError(self.saved_step, 128 + self.stop.received)


def checkpoint_of(folder: Path) -> Path:
    """The checkpoint that a search continues from."""
    return folder / "checkpoints" / "last.ckpt"


def metric_names(searches: int) -> list[str]:
    """The columns of `metrics.csv`."""
    names = ["step", "epoch", "minutes", "loss", "accuracy", "weight_loss", "lr", "temperature", "drop_path"]
    for search in range(searches):
        last = f"/{search + 1}" if searches > 1 else ""
        names += [f"{name}{last}" for name in ("entropy_normal", "entropy_reduce", "gmacs")]
    return names
