"""ReDimNet: a backbone that reshapes between 1-D and 2-D views of the same numbers.

Source: Yakovlev et al., Reshape Dimensions Network for Speaker Recognition (arXiv 2407.18223), and its official
implementation (IDRnD/ReDimNet), whose checkpoints `voxnest.foreign` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from voxnest.errors import ConfigError, one_of
from voxnest.frontends import Frontend
from voxnest.models.blocks_1d import TimeContext
from voxnest.models.exits import check_stages
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import BatchNorm, TimeFrequencyConv
from voxnest.models.maps import MapsBackbone
from voxnest.models.parts import Pooling
from voxnest.models.pooling import create_pooling
from voxnest.models.redimnet_blocks import WeightedSum, create_block_2d

Stage = tuple[int, int, int, int | None]
"""Frequency stride, number of 2-D blocks, channel expansion, and by what the 1-D block reduces (None: no 1-D block)."""

BLOCKS_2D = ("convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse")
BLOCKS_1D = ("fc", "conv", "att", "conv+att")


@dataclass(frozen=True, kw_only=True)
class ReDimSettings(EncoderSettings):
    """What the generations of ReDimNet have in common around the backbone.

    Attributes:
        previous_maps: for a sub-network, how many maps of another backbone it goes on from; 0 starts from features.
        hop_length: of the front end, in samples.
        pooling: see `voxnest.models.pooling`.
        global_context: attentive pooling that sees the whole utterance's statistics.
        out_norm: batch normalisation of the embedding.
    """

    bins: int = 72
    previous_maps: int = 0
    hop_length: int = 160
    frontend: str = "mel"
    pooling: str = "ASTP"
    global_context: bool = False
    out_norm: bool = False

    def make_frontend(self, **options: Any) -> Frontend:
        """See `EncoderSettings`.

        Raises:
            ConfigError: for `previous_maps`: a sub-network is a backbone without waveform.
        """
        if self.previous_maps:
            raise ConfigError("previous_maps", str(self.previous_maps), "0 in an encoder (build the backbone alone)")
        return super().make_frontend(hop_length=self.hop_length, **options)

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        return create_pooling(self.pooling, channels, global_context=self.global_context)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, out_norm=self.out_norm)


@dataclass(frozen=True, kw_only=True)
class ReDimNetConfig(ReDimSettings):
    """What makes one ReDimNet differ from another. The defaults are those of the official class.

    Attributes:
        channels: 2-D channels at full frequency resolution (C); bins * channels stays the same at every stage.
        stages: see `Stage`.
        block_1d: one of "fc", "conv", "att", "conv+att".
        block_2d: one of "convnext_like", "convnext_like_relu", "basic_resnet", "basic_resnet_fwse".
        group_divisor: channels per group of the 2-D convolutions; None for ordinary convolutions.
        out_channels: channels after a last pointwise convolution; None for bins * channels and no such layer.
        aggregation_dropout: on the output of every stage, in training.
    """

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

    def __post_init__(self) -> None:
        if self.block_1d not in BLOCKS_1D:
            raise ConfigError("block_1d", repr(self.block_1d), one_of(self.block_1d, BLOCKS_1D))
        if self.block_2d not in BLOCKS_2D:
            raise ConfigError("block_2d", repr(self.block_2d), one_of(self.block_2d, BLOCKS_2D))
        bins = self.bins
        for index, stage in enumerate(self.stages):
            if len(stage) != 4:
                raise ConfigError(f"stages[{index}]", repr(stage), "[stride, blocks, expansion, reduction]")
            if bins % stage[0]:
                raise ConfigError(f"stages[{index}]", f"stride {stage[0]} at {bins} bins", "a divisor of the bins")
            bins //= stage[0]
        check_stages(self.exits, len(self.stages))


class FrequencyPatch(nn.Module):
    """A convolution whose kernel and stride are `stride` bins of one frame: one matrix product.

    `[batch, frames, bins, in_channels]` to `[batch, frames, bins / stride, out_channels]`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.linear = nn.Linear(stride * in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Neighbouring bins lie side by side in memory, so a patch is a view."""
        return self.linear(x.flatten(2).unflatten(-1, (-1, self.linear.in_features)))


class ReDimStage(nn.Module):
    """Weigh the maps so far, see the result as 2-D, reduce frequency, run 2-D blocks, then the 1-D block."""

    def __init__(self, config: ReDimNetConfig, index: int, bins: int, channels: int) -> None:
        super().__init__()
        stride, blocks, expansion, reduction = config.stages[index]
        width = config.bins * config.channels
        self.shape = (bins, channels)
        maps = config.previous_maps + index + 1
        self.weigh = WeightedSum(maps, width if maps > 1 else 1)
        out_bins, out_channels = bins // stride, channels * stride
        hidden = out_channels * expansion
        self.patch = FrequencyPatch(channels, hidden, stride)
        self.blocks = nn.Sequential(
            *(
                create_block_2d(config.block_2d, hidden, out_bins, group_width=config.group_divisor)
                for _ in range(blocks)
            )
        )
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


class ReDimNet(MapsBackbone):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames, out_channels]`.

    With `previous_maps` it is a sub-network: it takes that many maps of an earlier backbone (see `all_maps`) in place
    of the features.
    """

    min_frames, frame_stride, receptive_field = 2, 1, None

    def __init__(self, config: ReDimNetConfig) -> None:
        super().__init__(config)
        self.stem = MapsStem(config) if config.previous_maps else TimeFrequencyConv(1, config.channels, (3, 3))
        self.stem_norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.stages = nn.ModuleList()
        bins, channels = config.bins, config.channels
        for index, (stride, *_) in enumerate(config.stages):
            self.stages.append(ReDimStage(config, index, bins, channels))
            bins, channels = bins // stride, channels * stride
        self.dropout = nn.Dropout(config.aggregation_dropout)
        self._add_ends(config.exits)

    def _maps_after(self, stage: int) -> int:
        return self._config.previous_maps + 1 + stage

    def exit_channels(self, stage: int) -> int:
        """See `StagedBackbone`."""
        return self._config.out_channels or self._config.bins * self._config.channels

    def _make_end(self, stage: int) -> tuple[nn.Module, nn.Module]:
        width, out = self._config.bins * self._config.channels, self._config.out_channels
        mix = nn.Identity() if out is None else nn.Sequential(nn.Linear(width, out), BatchNorm(out))
        return WeightedSum(self._maps_after(stage), width), mix

    def _maps_until(self, features: Tensor | Sequence[Tensor], stage: int) -> list[Tensor]:
        maps: list[Tensor] = []
        stem_input = features
        if isinstance(features, Tensor):
            stem_input = features.transpose(1, 2).unsqueeze(-1)
        else:
            maps.extend(features)
        maps.append(self.stem_norm(self.stem(stem_input)).flatten(2))
        for each in self.stages[:stage]:
            maps.append(self.dropout(each(maps)))
        return maps


class MapsStem(nn.Module):
    """The stem of a sub-network: weigh the maps of the earlier backbone, see the result as 2-D, convolve.

    `config` is a `ReDimNetConfig` or a `ReDimNet2Config`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.shape = (config.bins, config.channels)
        self.weigh = WeightedSum(config.previous_maps, config.bins * config.channels)
        self.conv = TimeFrequencyConv(config.channels, config.channels, (3, 3))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `[batch, frames, bins * channels]` to `[batch, frames, bins, channels]`."""
        return self.conv(self.weigh(maps).unflatten(-1, self.shape))


FAMILY = Family("redimnet", ReDimNetConfig, ReDimNet)
