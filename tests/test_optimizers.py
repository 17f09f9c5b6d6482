"""Muon and AdamW as one optimizer."""

import copy

import pytest
import torch

from voxnest.training.config import TrainingConfig
from voxnest.training.criterion import build_criterion
from voxnest.training.module import TrainingModule
from voxnest.training.optimizers import MuonAdamW, orthogonalize
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
    torch.testing.assert_close(other.bias, layer.bias)
    for group in resumed.param_groups:
        group["lr"] = 0.0
    torch.testing.assert_close(steps(other, resumed, 3), expected)
    torch.testing.assert_close(other.bias, layer.bias)


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
    assert "encoder.backbone.layers.0.conv.weight" in muon  # kernels are a matrix, a row for each


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon to compare with")
def test_muon_is_that_of_torch_and_takes_kernels_as_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxnest.training.optimizers.computes_bfloat16", lambda: True)  # as torch always does
    random = torch.Generator().manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape, generator=random)) for shape in ((24, 16), (24, 16), (12, 30))]
    kernels = [torch.nn.Parameter(matrix.detach().clone()) for matrix in matrices[:2]]
    kernels.append(torch.nn.Parameter(matrices[2].detach().clone().view(12, 10, 3)))
    theirs = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    bias = torch.nn.Parameter(torch.zeros(1))
    ours = MuonAdamW(
        [
            {"params": kernels, "lr": 0.01, "weight_decay": 0.1, "muon": True},
            {"params": [bias], "lr": 0.01, "weight_decay": 0.0, "muon": False},
        ],
        betas=(0.9, 0.99),
    )
    for _ in range(3):
        for matrix, kernel in zip(matrices, kernels, strict=True):
            matrix.grad = torch.randn(matrix.shape, generator=random)
            kernel.grad = matrix.grad.view_as(kernel)
        theirs.step()
        ours.step()
    for matrix, kernel in zip(matrices, kernels, strict=True):
        torch.testing.assert_close(kernel.detach().flatten(1), matrix.detach(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("shape", [(3, 20, 50), (2, 50, 20)])
def test_orthogonal_matrices_have_the_directions_of_the_given(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(matrices)
    for given, matrix in zip(matrices, found, strict=True):
        left, _, right = torch.linalg.svd(given, full_matrices=False)
        inner = left.T @ matrix @ right.T
        assert inner.diagonal().min() > 0.6
        assert inner.diagonal().max() < 1.3
        torch.testing.assert_close(inner, inner.diagonal().diag(), rtol=0, atol=0.05)


def test_the_loss_has_the_sub_centers_of_the_configuration() -> None:
    loss = TrainingConfig.model_validate(
        {"data": {"train": "."}, "output": ".", "loss": {"kind": "subcenter", "sub_centers": 5}}
    ).loss
    assert build_criterion(loss, (8, 16), 4).base_loss.weight.shape == (20, 16)
