"""NeXt-TDNN: ConvNeXt-like blocks over time that see several scales at once.

Source: Heo et al., NeXt-TDNN (arXiv 2312.08603), and its official implementation (dmlguq456/NeXt_TDNN_ASV), whose
checkpoints `voxnest.foreign` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.attentive_pooling import NormalizedAttentivePooling
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import TimeConv, check_frames
from voxnest.models.parts import Pooling

STEM_KERNEL = 4
"""In frames; the stem has no padding, so that this is also the shortest input."""


@dataclass(frozen=True, kw_only=True)
class NeXtTDNNConfig(EncoderSettings):
    """What makes one NeXt-TDNN differ from another.

    Attributes:
        channels: of every block (C in the paper).
        blocks: number of blocks in each stage (B in the paper, in three stages).
        kernel_sizes: in frames, odd; the channels are split among them. The light version has one.
        light: blocks without the pointwise layers around the multi-scale convolution (NeXt-TDNN-l).
    """

    frontend: str = "mel"
    channels: int = 256
    blocks: Sequence[int] = (3, 3, 3)
    kernel_sizes: Sequence[int] = (7, 65)
    light: bool = False

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "a positive number for each stage")
        if not self.kernel_sizes or any(size < 1 or size % 2 == 0 for size in self.kernel_sizes):
            raise ConfigError("kernel_sizes", repr(list(self.kernel_sizes)), "odd numbers of frames")
        if self.light and len(self.kernel_sizes) > 1:
            raise ConfigError("kernel_sizes", repr(list(self.kernel_sizes)), "a single one in the light version")
        # The pooling's hidden layer is an eighth of all stages' channels.
        parts = len(self.kernel_sizes)
        if self.channels < 1 or self.channels % parts or self.channels * len(self.blocks) < 8:
            raise ConfigError("channels", str(self.channels), f"a multiple of {parts} kernel sizes, 8 in all stages")

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        return NormalizedAttentivePooling(channels, channels // 8)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, out_norm=True)


class MultiScaleConv(nn.Module):
    """Depthwise convolutions over time whose kernels differ between groups of channels, in between pointwise layers."""

    def __init__(self, channels: int, kernel_sizes: Sequence[int]) -> None:
        super().__init__()
        width = channels // len(kernel_sizes)
        self.project = nn.Linear(channels, channels)
        self.convs = nn.ModuleList(TimeConv(width, width, size, groups=width) for size in kernel_sizes)
        self.mix = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        parts = self.project(x).chunk(len(self.convs), dim=-1)
        scales = [conv(part) for conv, part in zip(self.convs, parts, strict=True)]
        return self.mix(F.gelu(torch.cat(scales, dim=-1)))


class GlobalResponseNorm(nn.Module):
    """Weigh each channel by its energy over the utterance, in relation to the mean of all channels.

    Source: Woo et al., ConvNeXt V2 (arXiv 2301.00808).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        # The bound keeps the root's slope finite for channels that are silent throughout. `vector_norm` over this axis
        # takes ten times as long.
        energy = x.float().square().sum(dim=1, keepdim=True).clamp(min=1e-12).sqrt()
        response = energy / (energy.mean(dim=-1, keepdim=True) + 1e-6)
        scale = torch.addcmul(torch.ones_like(self.weight), self.weight, response)
        return torch.addcmul(self.bias.to(x.dtype), x, scale.to(x.dtype))


class NeXtBlock(nn.Module):
    """One block (TS-ConvNeXt, or TS-ConvNeXt-l when light): convolution over time, then a feed-forward network."""

    def __init__(self, channels: int, kernel_sizes: Sequence[int], light: bool) -> None:
        super().__init__()
        self.conv = (
            TimeConv(channels, channels, kernel_sizes[0], groups=channels)
            if light
            else MultiScaleConv(channels, kernel_sizes)
        )
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.response = GlobalResponseNorm(4 * channels)
        self.contract = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        x = x + self.conv(x)
        return x + self.contract(self.response(F.gelu(self.expand(self.norm(x)))))


class NeXtTDNN(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames - 3, stages * channels]`."""

    min_frames, frame_stride, receptive_field = STEM_KERNEL, 1, None

    def __init__(self, config: NeXtTDNNConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stem = nn.Conv1d(config.bins, channels, STEM_KERNEL)
        self.stem_norm = nn.LayerNorm(channels, eps=1e-6)
        self.stages = nn.ModuleList(
            nn.Sequential(*(NeXtBlock(channels, config.kernel_sizes, config.light) for _ in range(count)))
            for count in config.blocks
        )
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.out_channels = channels * len(config.blocks)
        self.mix = nn.Linear(self.out_channels, self.out_channels)
        self.norm = nn.LayerNorm(self.out_channels, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames - 3, out_channels]`.

        Raises:
            AudioError: for fewer frames than the stem's kernel has.
        """
        check_frames(features, STEM_KERNEL)
        x = self.stem_norm(self.stem(features).transpose(1, 2))
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return self.norm(self.mix(torch.cat(maps, dim=-1)))


FAMILY = Family("next-tdnn", NeXtTDNNConfig, NeXtTDNN)
