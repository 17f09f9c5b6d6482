"""The LightningModule of a search: a step on the architecture, then one on the weights, in every batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from torch import Tensor

from voxnest.audio import SAMPLE_RATE
from voxnest.errors import ConfigError
from voxnest.frontends import create_frontend
from voxnest.losses import LinearSoftmax
from voxnest.matryoshka import MatryoshkaLoss
from voxnest.models.head import MatryoshkaProjection
from voxnest.nas.cost import edge_costs, expected_gmacs
from voxnest.nas.spaces import find_space
from voxnest.nas.supernet import Sample, Supernet

if TYPE_CHECKING:
    from voxnest.nas.config import SearchConfig
    from voxnest.nas.data import SearchData


class SearchModule(L.LightningModule):
    """A supernet, its head and loss, and the two optimizers.

    Args:
        config: of the search.

    Attributes:
        search: which of the searches has this step.
        temperature: of the samples.
        drop_path: the probability that an edge is left out for an item.
        found: of the last step: `loss` and `accuracy` on the half of the architecture, `weight_loss` on the other.
    """

    criterion: MatryoshkaLoss | None

    def __init__(self, config: SearchConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        features, model = config.features, config.model
        self.frontend = create_frontend(features.frontend, features.bins, **features.options)
        if config.crops.duration * SAMPLE_RATE < self.frontend.min_samples:
            least = self.frontend.min_samples / SAMPLE_RATE
            raise ConfigError("crops.duration", f"{config.crops.duration:g} s", f"{least:g} s or more")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.supernet = Supernet(find_space(model.space), model.channels, model.layers, len(config.cost.weights))
            size = self.supernet.out_channels
            self.head = MatryoshkaProjection(size, model.dims or (size,), norm=False, linear=model.dims is not None)
        waveform = torch.zeros(1, round(config.crops.duration * SAMPLE_RATE))
        bins, frames = self.frontend.eval()(waveform).shape[1:]
        self.register_buffer("costs", edge_costs(self.supernet, frames, bins), persistent=False)
        self.costs: Tensor
        self.criterion = None
        self.search, self.temperature, self.drop_path = 0, 1.0, 0.0
        self.found: dict[str, Tensor] = {}

    @property
    def random_gmacs(self) -> float:
        """The expected cost of cells drawn at random."""
        absent = self.supernet.absent[self.supernet.kinds]
        return float((self.costs.sum(dim=-1) / (~absent).sum(dim=-1)).sum())

    def configure_model(self) -> None:
        """Make the loss, now that the data module has counted the speakers."""
        if self.criterion is None:
            data: SearchData = self.trainer.datamodule  # type: ignore[attr-defined]
            dims, loss = self.head.dims, self.config.loss
            if loss.dim_weights is not None and len(loss.dim_weights) != len(dims):
                raise ConfigError("loss.dim_weights", f"{len(loss.dim_weights)} of them", f"one for each of {dims}")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.config.seed)
                base = LinearSoftmax(dims[-1], data.num_classes, loss.label_smoothing)
            self.criterion = MatryoshkaLoss(base, dims, loss.dim_weights)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the weights, and Adam for the architecture."""
        assert self.criterion is not None
        others = [*self.frontend.parameters(), *self.head.parameters(), *self.criterion.parameters()]
        weights, architecture = self.config.weights, self.config.architecture
        return [
            torch.optim.Adam(
                [*self.supernet.weights(), *others], weights.lr, weights.betas, weight_decay=weights.weight_decay
            ),
            torch.optim.Adam(
                self.supernet.alphas.parameters(),
                architecture.lr,
                architecture.betas,
                weight_decay=architecture.weight_decay,
            ),
        ]

    def training_step(self, batch: Mapping[str, Mapping[str, Tensor]], batch_idx: int) -> None:
        """One step on each half."""
        weights, architecture = self.optimizers()  # type: ignore[attr-defined]
        supernet, search = self.supernet, self.search
        self.toggle_optimizer(architecture)  # the weights need no gradient now
        sample = supernet.sample(search, self.temperature)
        loss, accuracy = self._judge(batch["architecture"], sample, architecture=True)
        expected = expected_gmacs(supernet, self.costs, search)
        price = self.config.cost.weights[search] * expected / self.random_gmacs
        architecture.zero_grad()
        self.manual_backward(loss + price)
        architecture.optimizer.step()  # past Lightning, whose count of steps is that of the weights
        self.untoggle_optimizer(architecture)

        self.toggle_optimizer(weights)
        with torch.no_grad():
            sample = supernet.sample(search, self.temperature)
        weight_loss, _ = self._judge(batch["weights"], sample)
        weights.zero_grad()
        self.manual_backward(weight_loss)
        weights.step()
        self.untoggle_optimizer(weights)
        self.found = {"loss": loss.detach(), "accuracy": accuracy, "weight_loss": weight_loss.detach()}

    def _judge(
        self, batch: Mapping[str, Tensor], sample: Sample, *, architecture: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Loss and accuracy of a batch."""
        assert self.criterion is not None
        features = self.frontend(batch["waveform"])
        pooled = self.supernet(features, sample, architecture=architecture, drop_path=self.drop_path)
        embedding = self.head(pooled)
        loss, _ = self.criterion({dim: self.head.prefix(embedding, dim) for dim in self.head.dims}, batch["label"])
        with torch.no_grad():
            base: Any = self.criterion.base_loss
            right = base.classify(embedding).argmax(dim=-1) == batch["label"]
        return loss, right.float().mean()
