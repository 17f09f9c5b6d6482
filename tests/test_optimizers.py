"""Muon and AdamW as one optimizer."""

import copy

import pytest
import torch

from voxnest.errors import ConfigError
from voxnest.training.config import TrainingConfig
from voxnest.training.criterion import build_criterion
from voxnest.training.module import TrainingModule
from voxnest.training.optimizers import MuonAdamW
from voxnest.zoo.registry import create_encoder


def test_muon_takes_the_matrices_of_the_encoder_and_continues_after_loading() -> None:
    def make() -> tuple[torch.nn.Linear, MuonAdamW]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(16, 16)
        groups = [
            {"params": [layer.weight], "lr": 0.01, "weight_decay": 0.1, "muon": True},
            {"params": [layer.bias], "lr": 0.01, "weight_decay": 0.0, "muon": False},
        ]
        return layer, MuonAdamW(groups, betas=(0.9, 0.99))

    def steps(layer: torch.nn.Linear, optimizer: MuonAdamW, count: int) -> torch.Tensor:
        inputs = torch.randn(32, 16, generator=torch.Generator().manual_seed(1))
        for _ in range(count):
            optimizer.zero_grad()
            (layer(inputs) - inputs.flip(1)).square().mean().backward()
            optimizer.step()
        return layer.weight.detach().clone()

    layer, optimizer = make()
    start = layer.weight.detach().clone()
    middle = steps(layer, optimizer, 1)
    singular = torch.linalg.svdvals(middle - start * (1 - 0.01 * 0.1))
    assert singular.max() / singular.min() < 2.5  # an orthogonalised step, but for Newton-Schulz's tolerance
    state, weights = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(layer.state_dict())
    expected = steps(layer, optimizer, 3)
    other, resumed = make()
    other.load_state_dict(weights)
    resumed.load_state_dict(state)
    torch.testing.assert_close(steps(other, resumed, 3), expected)
    for group in resumed.param_groups:
        group["lr"] = 0.0
    torch.testing.assert_close(steps(other, resumed, 3), expected)


def test_muon_gets_matrices_of_the_encoder_from_eight_by_eight_on() -> None:
    config = TrainingConfig.model_validate({"data": {"train": "."}, "output": ".", "optimizer": {"name": "muon"}})
    encoder = create_encoder("xvector", bins=20, channels=16, out_channels=24, dims=(16,))
    encoder.backbone.thin, encoder.backbone.least = torch.nn.Linear(7, 64), torch.nn.Linear(64, 8)
    module = TrainingModule(config, encoder)
    module.criterion = build_criterion(config.loss, encoder.dims, 100)
    groups = module.configure_optimizers().param_groups
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    muon = {names[id(parameter)] for group in groups if group["muon"] for parameter in group["params"]}
    others = {names[id(parameter)] for group in groups if not group["muon"] for parameter in group["params"]}
    assert not muon & others
    assert muon | others == set(names.values())
    assert {"encoder.backbone.least.weight", "encoder.head.linear.weight"} <= muon
    assert {"encoder.backbone.thin.weight", "criterion.base_loss.weight"} <= others
    assert "encoder.backbone.layers.0.conv.weight" in others  # a kernel is no matrix


def test_muon_without_torch_that_has_it_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match=r"torch 2\.9"):
        MuonAdamW([], betas=(0.9, 0.99))


def test_the_loss_has_the_sub_centers_of_the_configuration() -> None:
    loss = TrainingConfig.model_validate(
        {"data": {"train": "."}, "output": ".", "loss": {"kind": "subcenter", "sub_centers": 5}}
    ).loss
    assert build_criterion(loss, (8, 16), 4).base_loss.weight.shape == (20, 16)
