"""DF-ResNet, a deep and narrow residual network, and Gemini DF-ResNet, which keeps more of time than of frequency.

Sources: Liu et al., DF-ResNet: Boosting Speaker Verification Performance with Depth-First Design (Interspeech 2022);
Liu et al., Golden Gemini is All You Need (arXiv 2312.03620), in wespeaker's form.

Neither code nor weights of the former are public. Its depths are those of Gemini, whose authors had that code (Gemini
counts the down-sampling layers too: 56 is 60 there). Its down-sampling kernels are those with which the published
numbers of parameters come out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.family import Family
from voxnest.models.layers import check_frames
from voxnest.models.parts import receptive_field
from voxnest.models.resnet_blocks import ConvNorm, InvertedBottleneck, ResidualSettings, to_frames


@dataclass(frozen=True, kw_only=True)
class DFResNetConfig(ResidualSettings):
    """What makes one DF-ResNet differ from another. The defaults are those of Gemini DF-ResNet114.

    Attributes:
        channels: of each stage; the stem has as many as the first one.
        blocks: how many each stage has.
        strides: of each stage's down-sampling layer, over bins and frames; (1, 1) for a stage without one.
        kernel_size: of the down-sampling layers, 2 or 3.
    """

    channels: Sequence[int] = (32, 64, 128, 256)
    blocks: Sequence[int] = (3, 3, 27, 3)
    strides: Sequence[tuple[int, int]] = ((2, 1), (2, 2), (2, 1), (2, 1))
    kernel_size: int = 3
    dims: Sequence[int] = (256,)

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.blocks) == len(self.strides) > 0:
            counts = f"{len(self.channels)}, {len(self.blocks)} and {len(self.strides)} stages"
            raise ConfigError("channels, blocks, strides", counts, "the same number of each")
        if min(*self.channels, *self.blocks, *(step for pair in self.strides for step in pair)) < 1:
            raise ConfigError("channels, blocks, strides", "a number below 1", "positive numbers")
        if self.kernel_size not in (2, 3):
            raise ConfigError("kernel_size", str(self.kernel_size), "2 or 3")
        smallest = math.prod(over_bins for over_bins, _ in self.strides) if self.kernel_size == 2 else 1
        if self.bins < smallest:
            raise ConfigError("bins", str(self.bins), f"at least {smallest}")


class DFResNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames', out_channels]`.

    Attributes:
        min_frames: the fewest frames it takes: of these two are left at the end, as many as a deviation needs.

    Raises:
        AudioError: in `forward`, for fewer than `min_frames`.
    """

    def __init__(self, config: DFResNetConfig) -> None:
        super().__init__()
        self.stem = ConvNorm(1, config.channels[0])
        self.downsampling, self.stages = nn.ModuleList(), nn.ModuleList()
        bins, channels = config.bins, config.channels[0]
        layers = [(3, 1, 1)]
        for width, count, stride in zip(config.channels, config.blocks, config.strides, strict=True):
            over_bins, over_frames = stride
            unchanged = over_bins == over_frames == 1 and width == channels
            self.downsampling.append(
                nn.Identity()
                if unchanged
                else ConvNorm(channels, width, config.kernel_size, stride=(over_bins, over_frames))
            )
            self.stages.append(nn.Sequential(*(InvertedBottleneck(width) for _ in range(count))))
            layers += [] if unchanged else [(config.kernel_size, over_frames, 1)]
            layers += [(3, 1, 1)] * count
            bins = bins // over_bins if config.kernel_size == 2 else -(-bins // over_bins)
            channels = width
        shrink = math.prod(over_frames for _, over_frames in config.strides)
        self.frame_stride = shrink
        self.min_frames = 2 * shrink if config.kernel_size == 2 else shrink + 1
        self.receptive_field = receptive_field(layers)
        self.out_channels = channels * bins

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames', out_channels]`: of each channel all bins, then the next."""
        check_frames(features, self.min_frames)
        x = F.relu_(self.stem(features.unsqueeze(1)))
        x = x.contiguous(memory_format=torch.channels_last)
        for downsample, stage in zip(self.downsampling, self.stages, strict=True):
            x = stage(downsample(x))
        return to_frames(x)


FAMILY = Family("df-resnet", DFResNetConfig, DFResNet)
