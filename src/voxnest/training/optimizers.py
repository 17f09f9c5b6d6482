"""Optimizers that torch does not have ready: Muon for matrices together with AdamW for the rest."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import AdamW, Optimizer

from voxnest.errors import ConfigError


class MuonAdamW(Optimizer):
    """Muon for the groups marked `"muon": True`, AdamW for the others, as one optimizer.

    Muon orthogonalises the momentum of a weight matrix, so that all its directions learn at one pace; its steps are
    scaled to the size of AdamW's, and both share one learning rate. One optimizer rather than two, so that gradient
    clipping, accumulation and checkpoints work as with any other.

    Args:
        groups: parameter groups with "params", "lr", "weight_decay" and "muon"; groups for Muon hold matrices only.
        betas: of AdamW.
        momentum: of Muon.
        fused: whether AdamW runs fused.

    Source: Jordan et al., Muon (2024); the scaling is that of Liu et al. (arXiv 2502.16982).

    Raises:
        ConfigError: if this torch has no Muon.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        betas: tuple[float, float],
        momentum: float = 0.95,
        fused: bool = False,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError("optimizer.name", f"muon with torch {torch.__version__}", "torch 2.9 or newer, or adamw")
        matrices = [group for group in groups if group["muon"]]
        others = [group for group in groups if not group["muon"]]
        self._muon = torch.optim.Muon(matrices, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(others, betas=betas, fused=fused)
        # Each has filled in its own settings, so there are no defaults to add.
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], defaults={})
        self._share()

    def _share(self) -> None:
        """Let both work on the groups and state of this optimizer, which are what is scheduled and saved."""
        self._muon.param_groups = [group for group in self.param_groups if group["muon"]]
        self._adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self._muon.state = self._adamw.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters by their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adamw.step()
        return loss
