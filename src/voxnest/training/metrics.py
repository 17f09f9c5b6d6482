"""Where the values of a run are written: `metrics.csv`, and TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from voxnest.errors import TrainingError
from voxnest.files import atomic_write
from voxnest.training.folder import writing


def metric_names(
    dims: Sequence[int],
    measure: str = "eer",
    *,
    exits: Sequence[int] = (),
    losses: Sequence[str] = (),
    accuracies: Sequence[str] = (),
) -> list[str]:
    """The columns of `metrics.csv`.

    Args:
        dims: sizes of the embedding.
        measure: what validations find.
        exits: stages of the encoder's exits.
        losses: names of what is added to the loss over speakers.
        accuracies: names of further questions' columns.
    """
    early = [f"{dim}@{stage}" for stage in exits for dim in dims]
    of_prefixes = [f"loss/{dim}" for dim in dims] if len(dims) > 1 else []
    of_prefixes += [f"loss/{name}" for name in (*early, *losses)]
    rates = [f"{measure}/{size}" for size in (*dims, *early)]
    training = ["lr", "margin", "grad_norm", "crops_per_second", "data_wait"]
    return ["step", "epoch", "minutes", "loss", *of_prefixes, *training, *accuracies, *rates]


class MetricsFile(Logger):
    """`metrics.csv`, one row for each time that something was logged; a continued run appends.

    Args:
        path: of the file.
        columns: of the table, "step" first.
        step: that the run continues from; rows after it are dropped, for these steps are made again.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int = 0) -> None:
        super().__init__()
        self.path, self.columns, self.step = path, list(columns), step
        self._started = False

    @property
    def name(self) -> str:
        """Empty: there is one per run."""
        return ""

    @property
    def version(self) -> str:
        """Empty: there is one per run."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row."""
        with writing(self.path):
            if not self._started:
                self._start()
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, extrasaction="ignore").writerow({**metrics, "step": step})

    def _start(self) -> None:
        rows: list[dict[str, str]] = []
        if self.step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= self.step]
        with atomic_write(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._started = True


class Events(TensorBoardLogger):
    """TensorBoard events in the folder `tensorboard` of a run. Their writer is a thread, which fails when it may.

    Args:
        folder: of the run.
        step: that the run continues from.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        purge_step = step + 1 if step else None
        super().__init__(folder, name=None, version="tensorboard", default_hp_metric=False, purge_step=purge_step)
        self.path = folder / "tensorboard"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer."""
        with writing(self.path):
            return super().experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add the values."""
        with writing(self.path):
            for name, value in metrics.items():
                self.experiment.add_scalar(name, value, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file; after an error, whether that works or not."""
        try:
            with writing(self.path):
                super().finalize(status)
        except TrainingError:
            if status == "success":
                raise
