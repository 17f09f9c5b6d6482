"""A copy of an encoder for inference alone, in which all that does not depend on the input is computed once."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import TimeFrequencyConv, scale_and_offset, standardized
from voxnest.models.redimnet_blocks import ConvNeXtBlock, Pointwise, ResidualBlock, WeightedSum
from voxnest.models.resnet_blocks import ConvNorm
from voxnest.models.vgg_m import ConvLayer

Linear = nn.Linear | nn.Conv1d | nn.Conv2d


def fold(encoder: SpeakerEncoder) -> SpeakerEncoder:
    """The same function in eval mode, faster: the given encoder stays as it is.

    Batch normalisations become part of the layer before them (in the head also of the one after), standardised weights
    and the weights of weighted sums are computed. What is left cannot be trained: no parameter asks for a gradient. A
    normalisation that an activation or zero padding keeps from its neighbours stays.

    Examples:
        >>> fast = fold(load_encoder("model.pt"))
    """
    folded = copy.deepcopy(encoder).eval().requires_grad_(False)
    with torch.no_grad():
        for kind, rule in RULES.items():
            for module in list(folded.modules()):
                if isinstance(module, kind):
                    rule(module)
    return folded


def scale_outputs(layer: Linear, scale: Tensor, offset: Tensor) -> None:
    """Let a layer give `scale * y + offset`, per output channel, where it gave `y`."""
    layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    bias = offset if layer.bias is None else offset + layer.bias * scale
    layer.bias = nn.Parameter(bias, requires_grad=False)


def _fold_after(module: nn.Module, layer: str, norm: str) -> None:
    """Fold the normalisation of one name into the layer of another, which it directly follows."""
    before, after = module.get_submodule(layer), module.get_submodule(norm)
    if isinstance(before, Linear) and isinstance(after, _BatchNorm):
        scale_outputs(before, *scale_and_offset(after))
        setattr(module, norm, nn.Identity())


def _fold_sequence(sequence: nn.Sequential) -> None:
    for index in range(1, len(sequence)):
        _fold_after(sequence, str(index - 1), str(index))


def _fold_residual(block: ResidualBlock) -> None:
    _fold_after(block, "conv2" if isinstance(block.pointwise2, nn.Identity) else "pointwise2", "norm2")


def _fold_convnext(block: ConvNeXtBlock) -> None:
    if block.placement == "post":
        _fold_after(block, "pointwise", "norm")
    elif block.placement == "mid" and isinstance(block.norm, _BatchNorm):
        scale, offset = scale_and_offset(block.norm)
        sizes = [conv.out_channels for conv in block.convs]
        for conv, part, rest in zip(block.convs, scale.split(sizes), offset.split(sizes), strict=True):
            scale_outputs(conv, part, rest)  # type: ignore[arg-type]
        block.norm = nn.Identity()


def _fold_head(head: MatryoshkaProjection) -> None:
    linear = head.linear
    if not isinstance(linear, nn.Linear):
        return
    if isinstance(head.norm, nn.BatchNorm1d):
        scale, offset = scale_and_offset(head.norm)
        shift = linear.weight @ offset
        scale_outputs(linear, torch.ones_like(shift), shift)
        linear.weight.mul_(scale)
        head.norm = nn.Identity()
    if head.out_norm is not None:
        scale_outputs(linear, *scale_and_offset(head.out_norm))
        head.out_norm = None


def _standardize(layer: TimeFrequencyConv | Pointwise) -> None:
    if layer.standardize:
        layer.weight.copy_(standardized(layer.weight))
        layer.standardize = False


def _fold_weights(total: WeightedSum) -> None:
    total.weight.copy_(torch.softmax(total.weight, dim=0))
    total.computed = True


RULES: dict[type[nn.Module], Callable[[Any], None]] = {
    TimeFrequencyConv: _standardize,
    Pointwise: _standardize,
    WeightedSum: _fold_weights,
    nn.Sequential: _fold_sequence,
    ResidualBlock: _fold_residual,
    ConvNeXtBlock: _fold_convnext,
    ConvNorm: partial(_fold_after, layer="conv", norm="norm"),
    ConvLayer: partial(_fold_after, layer="conv", norm="norm"),
    MatryoshkaProjection: _fold_head,
}
"""What is computed once in a module of each kind, in this order."""
