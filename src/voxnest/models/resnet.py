"""ResNet for speakers ("r-vector"), and its relatives with SimAM attention and with Res2Net blocks.

Source: Zeinali et al., BUT System Description to VoxSRC 2019 (arXiv 1910.12592), in wespeaker's form, whose checkpoints
`voxnest.foreign` translates. The other blocks' sources stand with them in `voxnest.models.resnet_blocks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.models.family import Family
from voxnest.models.layers import check_frames
from voxnest.models.parts import receptive_field
from voxnest.models.resnet_blocks import (
    BasicBlock,
    Bottleneck,
    ConvNorm,
    Res2NetBlock,
    Residual,
    ResidualSettings,
    SimAMBlock,
    to_frames,
)

BLOCKS: dict[str, type[Residual]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "simam": SimAMBlock,
    "res2net": Res2NetBlock,
}
"""Residual blocks by name."""

_STRIDES = (1, 2, 2, 2)
_MIN_FRAMES = 9
"""Two frames are left of these at the end, as many as a deviation needs."""


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(ResidualSettings):
    """What makes one ResNet differ from another. The defaults are those of ResNet34.

    Attributes:
        channels: of the first stage; every further one has twice as many.
        blocks: how many each of the four stages has.
        block: one of `BLOCKS`.
    """

    channels: int = 32
    blocks: Sequence[int] = (3, 4, 6, 3)
    block: str = "basic"
    dims: Sequence[int] = (256,)

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ConfigError("block", repr(self.block), one_of(self.block, BLOCKS))
        if len(self.blocks) != len(_STRIDES) or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "four positive numbers")
        if self.bins < 1:
            raise ConfigError("bins", str(self.bins), "a positive number")
        if self.channels < 1 or (self.block == "res2net" and self.channels % 2):
            raise ConfigError("channels", str(self.channels), "a positive number, even for res2net")


class ResNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames / 8, out_channels]`.

    Raises:
        AudioError: in `forward`, for fewer than 9 frames.
    """

    min_frames, frame_stride = _MIN_FRAMES, 8

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        block = BLOCKS[config.block]
        self.stem = ConvNorm(1, config.channels)
        self.stages = nn.Sequential()
        bins, channels = config.bins, config.channels
        layers = [(3, 1, 1)]
        for index, (count, stride) in enumerate(zip(config.blocks, _STRIDES, strict=True)):
            width = config.channels * 2**index
            blocks = [block(channels, width, stride)]
            channels = width * block.expansion
            blocks += [block(channels, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            for step in (stride, *[1] * (count - 1)):
                layers += [(size, 1 if later else step, 1) for later, size in enumerate(block.kernel_sizes)]
            bins = -(-bins // stride)
        self.receptive_field = None if block is SimAMBlock else receptive_field(layers)
        self.out_channels = channels * bins

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / 8, out_channels]`: of each channel all bins, then the next."""
        check_frames(features, self.min_frames)
        x = F.relu_(self.stem(features.unsqueeze(1)))
        return to_frames(self.stages(x.contiguous(memory_format=torch.channels_last)))


FAMILY = Family("resnet", ResNetConfig, ResNet)
