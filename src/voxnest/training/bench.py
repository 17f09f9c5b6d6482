"""A training set up as it will be, without a run: to make single steps, and see what they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import numpy as np
import torch
from torch import Tensor

from voxnest.crops.dataset import CropRequest
from voxnest.training.data import BatchStream, SpeakerData
from voxnest.training.module import TrainingModule

if TYPE_CHECKING:
    from voxnest.training.config import TrainingConfig


class Bench:
    """Module, data and optimizer of a configuration on their device.

    Args:
        config: of the run; manifests and held-out recordings go to its folder, as in the run.
        trainer: of the run, which does not fit anything.
        progress: called with the files looked at and their total while a corpus is prepared.
    """

    def __init__(
        self, config: TrainingConfig, trainer: L.Trainer, progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.config, self.trainer = config, trainer
        self.module = TrainingModule(config)
        self.data = SpeakerData(config, progress, frontend=self.module.encoder.frontend)  # type: ignore[arg-type]
        self.device = trainer.strategy.root_device
        self.module.trainer = self.data.trainer = trainer
        trainer.datamodule = self.data  # type: ignore[attr-defined]
        self.data.prepare_data()
        self.data.setup("fit")
        self.module.configure_model()
        self.module.to(self.device).train()
        self.optimizer = self.module.configure_optimizers()

    def batch(self, size: int) -> dict[str, Any]:
        """The first crops of the training, at the longest that it has."""
        crops, options = self.data.crops, self.config.crops
        positions = np.arange(size) % len(crops)
        duration = max(options.durations or [options.duration, *options.lengthen.values()])
        return {**crops.read(CropRequest(0, duration, positions, crops.plan()[positions])), "seconds": duration}

    def step(self, batch: Mapping[str, Any]) -> None:
        """Forward, backward and a step of the optimizer, in the order of Lightning."""
        placed = {name: value.to(self.device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        with self.trainer.precision_plugin.train_step_context():
            loss = self.module.training_step(placed, 0)
        self.optimizer.zero_grad()
        loss.backward()
        self.module.configure_gradient_clipping(self.optimizer)
        self.optimizer.step()

    def state_bytes(self) -> int:
        """Of weights, buffers, gradients and the optimizer's state, after a step."""
        state = [value for kept in self.optimizer.state.values() for value in kept.values()]
        tensors = [*self.module.parameters(), *self.module.buffers(), *state]
        tensors += [parameter.grad for parameter in self.module.parameters()]
        return sum(item.numel() * item.element_size() for item in tensors if isinstance(item, Tensor))

    def seconds_per_batch(self, count: int = 4) -> float:
        """Of a real batch and its step, with the waiting for it: the median of a few after the first."""
        times, before = [], time.perf_counter()
        for batch in islice(BatchStream(self.data.crops, self.data.loader, self.config.crops), count + 1):
            self.step(batch)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            now = time.perf_counter()
            times.append(now - before)
            before = now
        self.data.close()
        return float(np.median(times[1:] or times))
