"""Optimizers that torch does not have ready: Muon for matrices together with AdamW for the rest."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from voxnest.training.precision import computes_bfloat16

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of x, x^3 and x^5 in an iteration of Newton-Schulz, as Jordan et al. chose them: steep at small singular values."""
_ITERATIONS = 5
_SCALE = 0.2
"""By which a step of Muon is as large as AdamW's usually are (root mean square)."""


class MuonAdamW(Optimizer):
    """Muon for the groups marked `"muon": True`, AdamW for the others, as one optimizer.

    Muon orthogonalises the momentum of a weight matrix, so that all its directions learn at one pace; its steps are
    scaled to the size of AdamW's, and both share one learning rate. The kernels of a convolution are a matrix too: one
    row for each channel that it makes. One optimizer rather than two, so that gradient clipping, accumulation and
    checkpoints work as with any other.

    Not torch's own Muon: that one takes no kernels, and computes in bfloat16 also on CPUs that only imitate it, which
    made its steps slower than the network's.

    Args:
        groups: parameter groups with "params", "lr", "weight_decay" and "muon"; groups for Muon hold matrices and
            kernels only.
        betas: of AdamW.
        momentum: of Muon (Nesterov's).
        fused: whether AdamW runs fused.

    Source: Jordan et al., Muon (2024), kernels included; the scaling is that of Liu et al. (arXiv 2502.16982).
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        momentum: float = 0.95,
        fused: bool = False,
    ) -> None:
        self._adamw = AdamW([group for group in groups if not group["muon"]], betas=betas, fused=fused)
        matrices = [{**group, "momentum": momentum} for group in groups if group["muon"]]
        # Each has all its settings, so there are no defaults to add.
        super().__init__([*matrices, *self._adamw.param_groups], defaults={})
        self._share()

    def _share(self) -> None:
        """Let AdamW work on the groups and state of this optimizer, which are what is scheduled and saved."""
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
        self._adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any]) -> None:
        rate, momentum, same_shape = group["lr"], group["momentum"], defaultdict(list)
        for weight in group["params"]:
            if weight.grad is None:
                continue
            gradient = weight.grad.flatten(1)
            state = self.state[weight]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            mean: Tensor = state["momentum_buffer"]
            mean.lerp_(gradient, 1 - momentum)
            same_shape[gradient.shape].append((weight, gradient.lerp(mean, momentum)))
        for shape, pairs in same_shape.items():
            steps = orthogonalize(torch.stack([step for _, step in pairs]))
            for (weight, _), step in zip(pairs, steps, strict=True):
                weight.mul_(1 - rate * group["weight_decay"])
                weight.sub_(step.view_as(weight), alpha=rate * _SCALE * max(shape) ** 0.5)


def orthogonalize(matrices: Tensor) -> Tensor:
    """Matrices of the same directions, whose singular values are all near 1 (0.7 to 1.2), by Newton-Schulz iterations.

    Args:
        matrices: `[count, rows, columns]`.

    Returns:
        The same shape and type; computed in bfloat16 where the device does that.
    """
    fast = matrices.device.type != "cpu" or computes_bfloat16()
    x = matrices.bfloat16() if fast else matrices.float()
    x = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp(min=1e-7)  # then no singular value is above 1
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)
