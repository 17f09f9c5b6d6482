"""ERes2Net and ERes2NetV2: residual networks whose features are fused by attention, within blocks and between stages.

Source: Chen et al., An Enhanced Res2Net with Local and Global Feature Fusion for Speaker Verification (arXiv
2305.12838), and ERes2NetV2: Boosting Short-Duration Speaker Verification Performance with Computational Efficiency
(arXiv 2406.02167), in the forms of 3D-Speaker and wespeaker, whose checkpoints `voxnest.foreign.eres2net`
translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.family import Family
from voxnest.models.layers import check_frames
from voxnest.models.parts import receptive_field
from voxnest.models.resnet_blocks import ConvNorm, Residual, ResidualSettings, to_frames

_STRIDES = (1, 2, 2, 2)
_FUSING_STAGES = (2, 3)
"""Stages whose blocks fuse their parts by attention."""
_REDUCTION = 4
"""By what a fusion's hidden layer divides the channels."""
_MIN_FRAMES = 9
"""Two frames are left of these at the end, as many as a deviation needs."""


@dataclass(frozen=True, kw_only=True)
class ERes2NetConfig(ResidualSettings):
    """What makes one ERes2Net differ from another. The defaults are those of the base size.

    Attributes:
        channels: of the first stage, before expansion; every further one has twice as many.
        blocks: how many each of the four stages has.
        width: channels of a part of a block, per 64 channels of the stage.
        scale: parts of a block.
        expansion: output channels per channel of the stage.
        fuse_from: the first of the stages (from 1) whose outputs are fused: 1 in ERes2Net, 3 in ERes2NetV2.
    """

    channels: int = 32
    blocks: Sequence[int] = (3, 4, 6, 3)
    width: int = 32
    scale: int = 2
    expansion: int = 2
    fuse_from: int = 1

    def __post_init__(self) -> None:
        for name in ("bins", "channels", "width", "expansion"):
            if getattr(self, name) < 1:
                raise ConfigError(name, str(getattr(self, name)), "a positive number")
        if self.scale < 2:
            raise ConfigError("scale", str(self.scale), "2 or more")
        if len(self.blocks) != len(_STRIDES) or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "four positive numbers")
        if self.fuse_from not in (1, 2, 3):
            raise ConfigError("fuse_from", str(self.fuse_from), "1, 2 or 3")
        if self.part_channels(0) < 1 or self.part_channels(_FUSING_STAGES[0]) < _REDUCTION:
            raise ConfigError("width", f"{self.width} with {self.channels} channels", "wider parts")

    def part_channels(self, stage: int) -> int:
        """Channels of one part of a block in a stage (from 0)."""
        return self.channels * 2**stage * self.width // 64


class AttentionalFusion(nn.Module):
    """A sum of two maps, weighed at each point by an attention that sees both there (AFF).

    The weights are `1 + a` and `1 - a`, with `a` in [-1, 1].

    Args:
        channels: of each map.

    Source: Dai et al., Attentional Feature Fusion (arXiv 2009.14082), in 3D-Speaker's form. That has biases before its
    batch normalisations, which take them out again.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = ConvNorm(2 * channels, channels // _REDUCTION, 1)
        self.excite = ConvNorm(channels // _REDUCTION, channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps `[batch, channels, bins, frames]` to one."""
        attention = self.excite(F.silu(self.squeeze(torch.cat([x, y], dim=1)), inplace=True)).tanh_()
        return torch.addcmul(x + y, x - y, attention)


class ERes2NetBlock(Residual):
    """1x1 convolution, a 3x3 convolution for each part of the channels that sees the part before too, 1x1 convolution.

    Activations are clipped at 20.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        part: channels of a part.
        scale: number of parts.
        stride: in bins and frames.
        fuse: a part meets the part before in an `AttentionalFusion` rather than a sum.
    """

    def __init__(self, in_channels: int, out_channels: int, part: int, scale: int, stride: int, *, fuse: bool) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.conv1 = ConvNorm(in_channels, part * scale, 1, stride=stride)
        self.parts = nn.ModuleList(ConvNorm(part, part) for _ in range(scale))
        self.fusions = nn.ModuleList(AttentionalFusion(part) for _ in range(scale - 1)) if fuse else None
        self.conv3 = ConvNorm(part * scale, out_channels, 1)

    def activate(self, x: Tensor) -> Tensor:
        """In place; the same shape as given."""
        return F.hardtanh_(x, 0.0, 20.0)

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        inputs = self.activate(self.conv1(x)).chunk(len(self.parts), dim=1)
        outputs: list[Tensor] = []
        for index, conv in enumerate(self.parts):
            y = inputs[index]
            if index:
                y = outputs[-1] + y if self.fusions is None else self.fusions[index - 1](outputs[-1], y)
            outputs.append(self.activate(conv(y)))
        result: Tensor = self.conv3(torch.cat(outputs, dim=1))
        return result


class ERes2Net(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, ceil(frames / 8), out_channels]`.

    Raises:
        AudioError: in `forward`, for fewer than 9 frames.
    """

    min_frames, frame_stride = _MIN_FRAMES, 8

    def __init__(self, config: ERes2NetConfig) -> None:
        super().__init__()
        self.stem = ConvNorm(1, config.channels)
        self.stages = nn.ModuleList()
        in_channels, bins = config.channels, config.bins
        widths, layers = [], [(3, 1, 1)]
        for index, (count, stride) in enumerate(zip(config.blocks, _STRIDES, strict=True)):
            out_channels, part = config.channels * 2**index * config.expansion, config.part_channels(index)
            stage = nn.Sequential()
            for number in range(count):
                block = ERes2NetBlock(
                    in_channels,
                    out_channels,
                    part,
                    config.scale,
                    1 if number else stride,
                    fuse=index in _FUSING_STAGES,
                )
                stage.append(block)
                in_channels = out_channels
            self.stages.append(stage)
            # A block sees most by way of all its parts, one after the other.
            block_layers = [(3, 1, 1)] * config.scale
            layers += [(1, stride, 1), *block_layers * count]
            widths.append(out_channels)
            bins = -(-bins // stride)
        fused = widths[config.fuse_from - 1 :]
        self.reductions = nn.ModuleList(
            nn.Conv2d(below, above, 3, stride=2, padding=1, bias=False) for below, above in pairwise(fused)
        )
        self.fusions = nn.ModuleList(AttentionalFusion(width) for width in fused[1:])
        self.receptive_field = receptive_field(layers)
        self.out_channels = widths[-1] * bins

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / 8, out_channels]`: of each channel all bins, then the next."""
        check_frames(features, self.min_frames)
        x = F.relu_(self.stem(features.unsqueeze(1))).contiguous(memory_format=torch.channels_last)
        first = len(self.stages) - len(self.fusions)
        for stage in self.stages[:first]:
            x = stage(x)
        fused = x
        for stage, reduce, fuse in zip(self.stages[first:], self.reductions, self.fusions, strict=True):
            x = stage(x)
            fused = fuse(x, reduce(fused))
        return to_frames(fused)


FAMILY = Family("eres2net", ERes2NetConfig, ERes2Net)
