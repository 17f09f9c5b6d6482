"""LoRA: a weight learns a change of low rank, and stays a weight.

The change is a parametrization of the weight itself (`torch.nn.utils.parametrize`), not a second layer beside it. So it
works for whatever a layer does with its weight: linear layers, convolutions with channels first or last, with groups,
with standardised weights; and merging is exact. (peft puts a layer beside: its LoRA of a convolution takes channels
first and merges without groups alone, and it needs transformers, 54 MB, to be imported at all.)

Source: Hu et al., LoRA (arXiv 2106.09685).
"""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from voxnest.errors import ConfigError, one_of

AUTO = "auto"


class Pair(NamedTuple):
    """A change of a weight: `up @ down`, times a scale. `up [rows, rank]`, `down [rank, columns]`."""

    down: Tensor
    up: Tensor

    def change(self, weight: Tensor, scale: float) -> Tensor:
        """Of a weight `[rows, ...]` whose further axes are `columns` numbers together: in its shape, float32."""
        return (scale * (self.up.float() @ self.down.float())).view(weight.shape)


class LowRank(nn.Module):
    """The parametrization: a weight plus its change, which is none at first.

    Args:
        weight: of a layer, `[rows, ...]`.
        rank: of the change.
        alpha: the change is scaled by alpha / rank, so that the rank can be chosen without a new learning rate.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, weight[0].numel(), device=weight.device))
        self.up = nn.Parameter(torch.zeros(len(weight), rank, device=weight.device))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """`[rows, ...]` to the same shape."""
        with torch.autocast(weight.device.type, enabled=False):  # as it is merged
            return weight + Pair(self.down, self.up).change(weight, self.scale).to(weight.dtype)


def matrices(encoder: nn.Module) -> Iterator[tuple[str, nn.Linear | _ConvNd]]:
    """Layers of an encoder that multiply by a matrix, whatever the family: linear ones and convolutions."""
    for name, module in encoder.named_modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            yield name, module


def find_targets(encoder: nn.Module, targets: str | Sequence[str], rank: int, *, head: bool = True) -> list[str]:
    """Which layers get a change.

    Args:
        encoder: as it is before.
        targets: patterns of layers' names, such as "backbone.stages.*" or "*.pointwise"; "auto" for all linear
            layers and convolutions without groups whose change has fewer numbers than the weight.
        rank: of the changes.
        head: whether "auto" may choose layers of the head.

    Raises:
        ConfigError: a pattern that fits none; it names the nearest layer.
    """
    known = dict(matrices(encoder))
    if targets == AUTO:
        chosen = []
        for name, layer in known.items():
            rows, columns = len(layer.weight), layer.weight[0].numel()
            smaller = rank * (rows + columns) < rows * columns
            if smaller and getattr(layer, "groups", 1) == 1 and (head or not name.startswith("head.")):
                chosen.append(name)
        if not chosen:
            raise ConfigError("adapter.rank", f"{rank}, at which no change is smaller than its weight", "a lower rank")
        return chosen
    patterns = [targets] if isinstance(targets, str) else targets
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in known):
            found = f"{pattern!r} fits no layer"
            raise ConfigError("adapter.targets", found, f"{AUTO}, or layers such as {one_of(pattern, known, few=0)}")
    return [name for name in known if any(fnmatchcase(name, pattern) for pattern in patterns)]


def add_changes(encoder: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> None:
    """Give layers a change that can be learnt; what the encoder computes stays the same. All else is frozen."""
    encoder.requires_grad_(False)
    for layer in [layer for name, layer in matrices(encoder) if name in set(targets)]:
        # unsafe: whether shapes and types stay is not tried out, which would take random numbers and memory.
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha), unsafe=True)


def changes(encoder: nn.Module) -> dict[str, Pair]:
    """The changes of an encoder that has some: name of the weight -> pair, on the CPU."""
    found = {}
    for name, module in encoder.named_modules():
        if isinstance(module, LowRank):
            layer = name.partition(".parametrizations.")[0]
            found[f"{layer}.weight"] = Pair(*(value.detach().cpu().clone() for value in (module.down, module.up)))
    return found


def make_plain(encoder: nn.Module) -> None:
    """Write the changes into the weights: the encoder is then what it was, with other weights."""
    for _, module in list(matrices(encoder)):
        if parametrize.is_parametrized(module, "weight"):
            # Not by torch's own removal: it changes the class, which a copy shares with what it is a copy of.
            weight = nn.Parameter(module.weight.detach().clone(), requires_grad=False)
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module._modules["parametrizations"]
            module.register_parameter("weight", weight)
