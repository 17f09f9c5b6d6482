"""Building blocks of ReDimNet and ReDimNet2, channels last as in `voxnest.models.layers`."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.models.layers import (
    BatchNorm,
    FrequencySqueezeExcitation,
    TimeConv,
    TimeFrequencyConv,
    making_graph,
    scale_and_offset,
    standardized,
)


class Pointwise(nn.Linear):
    """A linear layer over the last axis; `standardize` its weights if asked (see `standardized`)."""

    def __init__(self, in_features: int, out_features: int, *, standardize: bool = False) -> None:
        super().__init__(in_features, out_features)
        self.standardize = standardize

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in_features]` to `[..., out_features]`."""
        return F.linear(x, standardized(self.weight) if self.standardize else self.weight, self.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation of `[batch, frames, channels]` over the channels of a group and all frames."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        grouped = x.float().unflatten(-1, (self.num_groups, -1))
        centred = grouped - grouped.mean(dim=(1, 3), keepdim=True)  # two passes: see `mean_and_variance`
        variance = centred.square().mean(dim=(1, 3), keepdim=True)
        normal = (centred * torch.rsqrt(variance + self.eps)).flatten(2)
        return torch.addcmul(self.bias, normal, self.weight).to(x.dtype)


class WeightedSum(nn.Module):
    """A learned convex combination of 1-D maps, with weights of their own for every channel.

    Args:
        count: number of maps.
        channels: of each map; 1 gives all channels the same weights.
    """

    def __init__(self, count: int, channels: int) -> None:
        super().__init__()
        # With a single map the softmax is 1 whatever the weight: it stays, untrained, for the checkpoints' sake.
        self.weight = nn.Parameter(torch.zeros(count, channels), requires_grad=count > 1)
        self.computed = False  # whether `weight` holds the weights themselves: see `voxnest.models.folding`

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`count` maps `[batch, frames, channels]` to one."""
        if len(maps) == 1:
            return maps[0]
        weights = (self.weight if self.computed else torch.softmax(self.weight, dim=0)).to(maps[0].dtype)
        total = maps[0] * weights[0]
        for weight, value in zip(weights[1:], maps[1:], strict=True):
            total = torch.addcmul(total, value, weight)
        return total


class ConvNeXtBlock(nn.Module):
    """ConvNeXt-like residual block: grouped convolutions side by side, norm, activation, pointwise convolution.

    Args:
        channels: in and out.
        kernel_sizes: one convolution each; (frames, bins) pairs for a 2-D block, integers for a 1-D block.
        group_width: channels per group; None for an ordinary convolution.
        dilation: of the convolutions.
        activation: "gelu" or "relu".
        norm: "bn" (batch) or "ln" (layer).
        placement: of the norm: before the convolutions, in the middle, or after the pointwise convolution.
        standardize: all weights of convolutions; see `standardized`.

    Source: `ConvNeXtLikeBlock` of the official ReDimNet and ReDimNet2 implementations.
    """

    def __init__(
        self,
        channels: int,
        kernel_sizes: Sequence[tuple[int, int]] | Sequence[int],
        *,
        group_width: int | None = 1,
        dilation: int = 1,
        activation: str = "gelu",
        norm: str = "bn",
        placement: Literal["pre", "mid", "post"] = "mid",
        standardize: bool = False,
    ) -> None:
        super().__init__()
        groups = 1 if group_width is None else channels // group_width
        self.convs = nn.ModuleList(
            TimeConv(channels, channels, size, groups=groups, dilation=dilation)
            if isinstance(size, int)
            else TimeFrequencyConv(channels, channels, size, groups=groups, dilation=dilation, standardize=standardize)
            for size in kernel_sizes
        )
        self.placement = placement
        merged = channels * len(kernel_sizes)
        normed = merged if placement == "mid" else channels
        self.norm: nn.Module = BatchNorm(normed) if norm == "bn" else nn.LayerNorm(normed, eps=1e-6)
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.pointwise = Pointwise(merged, channels, standardize=standardize)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        y = self.norm(x) if self.placement == "pre" else x
        branches = [conv(y) for conv in self.convs]
        y = branches[0] if len(branches) == 1 else torch.cat(branches, dim=-1)
        y = self.pointwise(self.activation(self.norm(y) if self.placement == "mid" else y))
        return x + (self.norm(y) if self.placement == "post" else y)


class ResidualBlock(nn.Module):
    """Basic residual block with depthwise-separable (grouped, then pointwise) 3x3 convolutions.

    Args:
        channels: in and out.
        bins: frequency bins, needed for the squeeze-and-excitation.
        group_width: channels per group; None for ordinary convolutions without the pointwise ones.
        frequency_se: with `FrequencySqueezeExcitation`.

    Source: `ResBasicBlock` of the official ReDimNet implementation (the activation stands before the first norm).
    """

    def __init__(self, channels: int, bins: int, *, group_width: int | None = 1, frequency_se: bool = False) -> None:
        super().__init__()
        separable = group_width is not None
        groups = channels // group_width if group_width is not None else 1
        self.conv1 = TimeFrequencyConv(channels, channels, (3, 3), groups=groups, bias=False)
        self.pointwise1 = nn.Linear(channels, channels) if separable else nn.Identity()
        self.norm1 = BatchNorm(channels)
        self.conv2 = TimeFrequencyConv(channels, channels, (3, 3), groups=groups, bias=False)
        self.pointwise2 = nn.Linear(channels, channels) if separable else nn.Identity()
        self.norm2 = BatchNorm(channels)
        hidden = min(64, max(channels, 32))
        self.se = FrequencySqueezeExcitation(bins, hidden) if frequency_se else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, channels]` to the same shape."""
        y = self.norm2(self.pointwise2(self.conv2(self._first_half(x))))
        return F.relu(self.se(y) + x, inplace=True)

    def _first_half(self, x: Tensor) -> Tensor:
        if self.norm1.training or making_graph() or not isinstance(self.pointwise1, nn.Linear):
            return self.norm1(F.relu(self.pointwise1(self.conv1(x)), inplace=True))
        # A ReLU that is scaled and shifted is a limit to what was scaled and shifted: one pass over memory, not three.
        scale, offset = scale_and_offset(self.norm1)
        weight, bias = self.pointwise1.weight * scale[:, None], self.pointwise1.bias * scale + offset
        y = F.linear(self.conv1(x), weight, bias).flatten(2)
        low = torch.where(scale > 0, offset, -torch.inf).to(y.dtype).repeat(x.shape[2])
        high = torch.where(scale > 0, torch.inf, offset).to(y.dtype).repeat(x.shape[2])
        return y.clamp_(low, high).view_as(x)


BLOCKS_2D = (
    *("convnext_like" + end for end in ("", "_ln", "_relu", "_ws", "_ws_ln")),
    *("convnext_like_post" + end for end in ("", "_ln", "_relu", "_ws", "_ws_ln")),
    *("convnext_like_pre" + end for end in ("", "_ln", "_ws", "_ws_ln")),
    "basic_resnet",
    "basic_resnet_fwse",
)
"""Kinds of 2-D block: post and pre place the norm, ws standardises weights, ln and relu are what they say."""


def create_block_2d(
    kind: str,
    channels: int,
    bins: int,
    *,
    kernel_sizes: Sequence[tuple[int, int]] = ((3, 3),),
    group_width: int | None = 1,
) -> nn.Module:
    """One 2-D block, `[batch, frames, bins, channels]` in and out.

    Args:
        kind: one of `BLOCKS_2D`.
        channels: in and out.
        bins: frequency bins.
        kernel_sizes: (frames, bins) each; ConvNeXt-like blocks alone read them.
        group_width: channels per group; None for ordinary convolutions.
    """
    if not kind.startswith("convnext_like"):
        return ResidualBlock(channels, bins, group_width=group_width, frequency_se=kind == "basic_resnet_fwse")
    return ConvNeXtBlock(
        channels,
        kernel_sizes,
        group_width=group_width,
        activation="relu" if kind.endswith("_relu") else "gelu",
        norm="ln" if kind.endswith("_ln") else "bn",
        placement="post" if "_post" in kind else "pre" if "_pre" in kind else "mid",
        standardize="_ws" in kind,
    )
