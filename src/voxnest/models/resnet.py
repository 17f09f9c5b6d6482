"""ResNet for speakers ("r-vector"), and its relatives with SimAM attention and with Res2Net blocks.

Source: Zeinali et al., BUT System Description to VoxSRC 2019 (arXiv 1910.12592), in wespeaker's form, whose checkpoints
`voxnest.foreign` translates. The other blocks' sources stand with them in `voxnest.models.resnet_blocks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.models.exits import check_stages, with_modules
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
        blocks: how many each stage has; there are four, or the first of them.
        block: one of `BLOCKS`.
    """

    channels: int = 32
    blocks: Sequence[int] = (3, 4, 6, 3)
    block: str = "basic"
    dims: Sequence[int] = (256,)

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ConfigError("block", repr(self.block), one_of(self.block, BLOCKS))
        if not 1 <= len(self.blocks) <= len(_STRIDES) or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "four positive numbers, or fewer")
        if self.bins < 1:
            raise ConfigError("bins", str(self.bins), "a positive number")
        if self.channels < 1 or (self.block == "res2net" and self.channels % 2):
            raise ConfigError("channels", str(self.channels), "a positive number, even for res2net")
        check_stages(self.exits, len(self.blocks))


class ResNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames / 8, out_channels]`.

    Raises:
        AudioError: in `forward`, for fewer than 9 frames.
    """

    min_frames = _MIN_FRAMES

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self._blocks = config.blocks
        block = BLOCKS[config.block]
        self.stem = ConvNorm(1, config.channels)
        self.stages = nn.Sequential()
        bins, channels, frame_stride = config.bins, config.channels, 1
        layers = [(3, 1, 1)]
        self._after: list[_After] = []
        for index, (count, stride) in enumerate(zip(config.blocks, _STRIDES, strict=False)):
            width = config.channels * 2**index
            blocks = [block(channels, width, stride)]
            channels = width * block.expansion
            blocks += [block(channels, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            for step in (stride, *[1] * (count - 1)):
                layers += [(size, 1 if later else step, 1) for later, size in enumerate(block.kernel_sizes)]
            bins, frame_stride = -(-bins // stride), frame_stride * stride
            field = None if block is SimAMBlock else receptive_field(layers)
            self._after.append(_After(channels * bins, frame_stride, field))
        self.out_channels, self.frame_stride, self.receptive_field = self._after[-1]

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / 8, out_channels]`: of each channel all bins, then the next."""
        return self.frames_after(features, [None])[0]

    def exit_channels(self, stage: int) -> int:
        """See `StagedBackbone`, as the methods below."""
        return self._after[stage - 1].out_channels

    def frames_after(self, features: Tensor, stages: Sequence[int | None]) -> list[Tensor]:
        """See `StagedBackbone`."""
        check_frames(features, self.min_frames)
        counts = [len(self.stages) if stage is None else stage for stage in stages]
        x = F.relu_(self.stem(features.unsqueeze(1))).contiguous(memory_format=torch.channels_last)
        found = {}
        for count in range(1, max(counts) + 1):
            x = self.stages[count - 1](x)
            if count in counts:
                found[count] = to_frames(x)
        return [found[count] for count in counts]

    def until(self, stage: int) -> "ResNet":
        """See `StagedBackbone`."""
        ending = with_modules(self, stages=self.stages[:stage])
        ending.out_channels, ending.frame_stride, ending.receptive_field = self._after[stage - 1]
        return ending

    def settings_until(self, stage: int) -> dict[str, Any]:
        """See `StagedBackbone`."""
        return {"blocks": list(self._blocks[:stage])}


class _After(NamedTuple):
    """What is to be known of the frames after a stage; see `Backbone`."""

    out_channels: int
    frame_stride: int
    receptive_field: int | None


FAMILY = Family("resnet", ResNetConfig, ResNet)
