"""ReDimNet: a backbone that reshapes between 1-D and 2-D views of the same numbers.

Source: Yakovlev et al., Reshape Dimensions Network for Speaker Recognition (arXiv 2407.18223), and its official
implementation (IDRnD/ReDimNet), whose checkpoints `from_official` translates.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.frontends import ReDimNetMel, SpecAugment
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import (
    BatchNorm,
    ConvNeXtBlock,
    ResidualBlock,
    TimeConv,
    TimeFrequencyConv,
    TransformerLayer,
)
from voxnest.models.pooling import create_pooling

Stage = tuple[int, int, int, int | None]
"""Frequency stride, number of 2-D blocks, channel expansion, and by what the 1-D block reduces (None: no 1-D block)."""

BLOCKS_2D = ("convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse")
BLOCKS_1D = ("fc", "conv", "att", "conv+att")


@dataclass(frozen=True)
class ReDimNetConfig:
    """What makes one ReDimNet differ from another. The defaults are size M.

    Attributes:
        bins: mel bins (F in the paper).
        channels: 2-D channels at full frequency resolution (C); bins * channels stays the same at every stage.
        stages: see `Stage`.
        block_1d: one of "fc", "conv", "att", "conv+att".
        block_2d: one of "convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse".
        group_divisor: channels per group of the 2-D convolutions; None for ordinary convolutions.
        out_channels: channels after a last pointwise convolution; None for bins * channels and no such layer.
        aggregation_dropout: on the output of every stage, in training.
        hop_length: of the front end, in samples.
        pooling: see `voxnest.models.pooling`.
        global_context: attentive pooling that sees the whole utterance's statistics.
        out_norm: batch normalisation of the embedding.
        dims: sizes of the embedding; see `MatryoshkaProjection`.
        mask_bins: largest number of frequency bins that SpecAugment hides in training; 0 for none.
        mask_frames: largest number of frames that SpecAugment hides in training; 0 for none.
    """

    bins: int = 72
    channels: int = 16
    stages: Sequence[Stage] = (
        (1, 2, 1, 12),
        (2, 2, 1, 12),
        (1, 3, 1, 12),
        (2, 4, 1, 8),
        (1, 4, 1, 8),
        (2, 4, 1, 4),
    )
    block_1d: str = "att"
    block_2d: str = "convnext_like"
    group_divisor: int | None = 4
    out_channels: int | None = None
    aggregation_dropout: float = 0.0
    hop_length: int = 160
    pooling: str = "ASTP"
    global_context: bool = False
    out_norm: bool = False
    dims: Sequence[int] = (192,)
    mask_bins: int = 0
    mask_frames: int = 0

    def __post_init__(self) -> None:
        if self.block_1d not in BLOCKS_1D:
            raise ConfigError("block_1d", repr(self.block_1d), "one of " + ", ".join(BLOCKS_1D))
        if self.block_2d not in BLOCKS_2D:
            raise ConfigError("block_2d", repr(self.block_2d), "one of " + ", ".join(BLOCKS_2D))
        bins = self.bins
        for index, stage in enumerate(self.stages):
            if len(stage) != 4:
                raise ConfigError(f"stages[{index}]", repr(stage), "[stride, blocks, expansion, reduction]")
            if bins % stage[0]:
                raise ConfigError(f"stages[{index}]", f"stride {stage[0]} at {bins} bins", "a divisor of the bins")
            bins //= stage[0]


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

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`count` maps `[batch, frames, channels]` to one."""
        if len(maps) == 1:
            return maps[0]
        weights = torch.softmax(self.weight, dim=0).to(maps[0].dtype)
        total = maps[0] * weights[0]
        for weight, value in zip(weights[1:], maps[1:], strict=True):
            total = torch.addcmul(total, value, weight)
        return total


class FrequencyPatch(nn.Module):
    """A convolution whose kernel and stride are `stride` bins of one frame: one matrix product.

    `[batch, frames, bins, in_channels]` to `[batch, frames, bins / stride, out_channels]`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(stride * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Neighbouring bins lie side by side in memory, so a patch is a view."""
        batch, frames, bins, channels = x.shape
        return self.linear(x.reshape(batch, frames, bins // self.stride, self.stride * channels))


class TimeContext(nn.Module):
    """The 1-D block: reduce the channels, model time, expand again, add to the input.

    Args:
        channels: in and out.
        hidden: after the reduction.
        kind: "fc" (pointwise only), "conv" (large kernels), "att" (positional convolution and transformer layer) or
            "conv+att" (growing kernels, then a transformer layer).
    """

    def __init__(self, channels: int, hidden: int, kind: str) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden, eps=1e-6))
        self.context = self._context(hidden, kind)
        self.expand = nn.Linear(hidden, channels)

    @staticmethod
    def _context(hidden: int, kind: str) -> nn.Sequential:
        if kind == "fc":
            norm = nn.LayerNorm(2 * hidden, eps=1e-6)
            return nn.Sequential(nn.Linear(hidden, 2 * hidden), norm, nn.GELU(), nn.Linear(2 * hidden, hidden))
        if kind == "conv":
            return nn.Sequential(*(ConvNeXtBlock(hidden, [7, 15, 31]) for _ in range(4)))
        if kind == "att":
            return nn.Sequential(PositionalConv(hidden, 59), TransformerLayer(hidden, 2 * hidden))
        blocks = [ConvNeXtBlock(hidden, [size]) for size in (7, 19, 31, 59)]
        return nn.Sequential(*blocks, TransformerLayer(hidden, hidden))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        return x + self.expand(self.context(self.reduce(x)))


class PositionalConv(nn.Module):
    """Tells a transformer layer where it is: a wide depthwise convolution, normalised and added."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, channels, kernel_size, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        return x + self.norm(self.conv(x))


class ReDimStage(nn.Module):
    """Weigh the maps so far, see the result as 2-D, reduce frequency, run 2-D blocks, then the 1-D block."""

    def __init__(self, config: ReDimNetConfig, index: int, bins: int, channels: int) -> None:
        super().__init__()
        stride, blocks, expansion, reduction = config.stages[index]
        width = config.bins * config.channels
        self.shape = (bins, channels)
        self.weigh = WeightedSum(index + 1, width if index else 1)
        out_bins, out_channels = bins // stride, channels * stride
        hidden = out_channels * expansion
        self.patch = FrequencyPatch(channels, hidden, stride)
        self.blocks = nn.Sequential(*(block_2d(config, hidden, out_bins) for _ in range(blocks)))
        self.squeeze = nn.Identity() if expansion == 1 else Squeeze(hidden, out_channels, config.group_divisor)
        self.context = (
            TimeContext(width, width // reduction, config.block_1d) if reduction is not None else nn.Identity()
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `[batch, frames, width]` to the next such map."""
        x = self.weigh(maps).unflatten(-1, self.shape)
        x = self.squeeze(self.blocks(self.patch(x)))
        return self.context(x.flatten(2))


class Squeeze(nn.Sequential):
    """Bring expanded 2-D channels back to the number that the 1-D view has room for."""

    def __init__(self, in_channels: int, out_channels: int, group_divisor: int | None) -> None:
        groups = 1 if group_divisor is None else out_channels // group_divisor
        super().__init__(
            TimeFrequencyConv(in_channels, out_channels, (3, 3), groups=groups),
            BatchNorm(out_channels, eps=1e-6),
            nn.GELU(),
            nn.Linear(out_channels, out_channels),
        )


def block_2d(config: ReDimNetConfig, channels: int, bins: int) -> nn.Module:
    """One 2-D block of the kind that `config` names, `[batch, frames, bins, channels]` in and out."""
    if config.block_2d.startswith("convnext_like"):
        activation = "relu" if config.block_2d.endswith("relu") else "gelu"
        return ConvNeXtBlock(channels, [(3, 3)], group_width=config.group_divisor, activation=activation)
    frequency_se = config.block_2d == "basic_resnet_fwse"
    return ResidualBlock(channels, bins, group_width=config.group_divisor, frequency_se=frequency_se)


class ReDimNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames, out_channels]`."""

    def __init__(self, config: ReDimNetConfig) -> None:
        super().__init__()
        width = config.bins * config.channels
        self.stem = TimeFrequencyConv(1, config.channels, (3, 3))
        self.stem_norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.stages = nn.ModuleList()
        bins, channels = config.bins, config.channels
        for index, (stride, *_) in enumerate(config.stages):
            self.stages.append(ReDimStage(config, index, bins, channels))
            bins, channels = bins // stride, channels * stride
        self.dropout = nn.Dropout(config.aggregation_dropout)
        self.weigh = WeightedSum(len(config.stages) + 1, width)
        self.out_channels = width if config.out_channels is None else config.out_channels
        self.mix = (
            nn.Identity()
            if config.out_channels is None
            else nn.Sequential(nn.Linear(width, config.out_channels), BatchNorm(config.out_channels))
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames, out_channels]`."""
        x = features.transpose(1, 2).unsqueeze(-1)
        maps = [self.stem_norm(self.stem(x)).flatten(2)]
        for stage in self.stages:
            maps.append(self.dropout(stage(maps)))
        return self.mix(self.weigh(maps))


def build(name: str, settings: dict[str, Any]) -> SpeakerEncoder:
    """A `SpeakerEncoder` with a ReDimNet backbone; `settings` are fields of `ReDimNetConfig`."""
    config = ReDimNetConfig(**settings)
    masking = None
    if config.mask_bins or config.mask_frames:
        masking = SpecAugment((0, config.mask_bins + 1), (0, config.mask_frames + 1))
    frontend = ReDimNetMel(config.bins, hop_length=config.hop_length, spec_augment=masking)
    backbone = ReDimNet(config)
    pooling = create_pooling(config.pooling, backbone.out_channels, global_context=config.global_context)
    head = MatryoshkaProjection(pooling.out_channels, config.dims, out_norm=config.out_norm)  # type: ignore[arg-type]
    return SpeakerEncoder(frontend, backbone, pooling, head, name=name, config=dataclasses.asdict(config))
