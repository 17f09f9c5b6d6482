"""The mean of the weights at the last validations of a run, as `average.safetensors`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import lightning.pytorch as L
import torch
from torch import nn

from voxnest.hub.checkpoint import load_classifier, load_encoder, save_encoder
from voxnest.models.exits import set_thresholds
from voxnest.training.module import find_errors

Module = TypeVar("Module", bound=nn.Module)

if TYPE_CHECKING:
    from voxnest.training.config import TrainingConfig
    from voxnest.training.data import SpeakerData
    from voxnest.training.module import TrainingModule


class LastWeights(L.Callback):
    """Keeps the encoder of each of the last validations, and at the end writes and measures their mean.

    What is kept lies in `checkpoints/`, so a run that was interrupted has it again. Statistics of batch norms are
    averaged as weights are.

    Args:
        config: of the run.

    Attributes:
        error: of the mean, by size of embedding; None before the end, and on other processes than the first.

    Source: wespeaker averages its last ten checkpoints (`average_model.py`).
    """

    def __init__(self, config: TrainingConfig) -> None:
        assert config.output is not None
        self.config, self.folder = config, config.output
        self.error: dict[str, float] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop what is left of steps that are made again."""
        if trainer.is_global_zero:
            self._keep([step for step in self._steps() if step <= trainer.global_step])

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what was validated, and drop the oldest."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if module.validation is not None and trainer.is_global_zero:
            encoder = module.adapting.merged() if module.adapting else module.encoder
            save_encoder(encoder, self._path(trainer.global_step), classifier=module.classifier())
            self._keep(self._steps()[-self.config.trainer.average_last :])

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the mean."""
        module: TrainingModule = pl_module  # type: ignore[assignment]
        if not trainer.is_global_zero or trainer.global_step not in self._steps():
            return
        data: SpeakerData = trainer.datamodule  # type: ignore[attr-defined]
        device = module.device
        paths = [self._path(step) for step in self._steps()]
        encoder = mean_weights([load_encoder(path) for path in paths])
        classifier = None
        if self.config.task == "identification":
            classifier = mean_weights([load_classifier(path) for path in paths])
        with module.stop.at_once():
            self.error, threshold = find_errors(data, encoder.to(device), classifier and classifier.to(device))
        set_thresholds(encoder, threshold)
        metadata = {
            "step": trainer.global_step,
            "steps": self._steps(),
            self.config.measure: self.error,
            "threshold": threshold,
            "seed": self.config.seed,
        }
        save_encoder(encoder, self.folder / "average.safetensors", metadata, classifier)

    def _keep(self, steps: Sequence[int]) -> None:
        for step in self._steps():
            if step not in steps:
                self._path(step).unlink()

    def _steps(self) -> list[int]:
        return sorted(int(path.stem.partition("-")[2]) for path in self._path(0).parent.glob("weights-*.safetensors"))

    def _path(self, step: int) -> Path:
        return self.folder / "checkpoints" / f"weights-{step:09d}.safetensors"


@torch.no_grad()
def mean_weights(modules: Sequence[Module]) -> Module:
    """The last of modules of one kind, with the mean of all their weights and statistics; counters stay its own."""
    last = modules[-1]
    states = [module.state_dict() for module in modules]
    for key, value in last.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[key].double() for state in states]).mean(dim=0))
    return last
