"""ReDimNet2: ReDimNet whose stages may also reduce time.

Source: ReDimNet2: Scaling Speaker Verification via Time-Pooled Dimension Reshaping (arXiv 2603.11841) and its official
implementation (PalabraAI/redimnet2), whose checkpoints `voxnest.foreign.redimnet2` translates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError, one_of
from voxnest.frontends import Frontend
from voxnest.models.blocks_1d import CONTEXTS, AttentionSettings, FrequencyMixer, TimeContext
from voxnest.models.exits import check_stages
from voxnest.models.family import Family
from voxnest.models.layers import BatchNorm, TimeFrequencyConv, check_frames
from voxnest.models.maps import MapsBackbone
from voxnest.models.redimnet import MapsStem, ReDimSettings
from voxnest.models.redimnet_blocks import BLOCKS_2D, GroupNorm, WeightedSum, create_block_2d

Stage = tuple[Sequence[int], int, float, Sequence[Sequence[int]], int | None]
"""Strides (frequency, time), number of 2-D blocks, channel expansion, kernel sizes (frequency, time) of each 2-D block,
and by what the 1-D block reduces (None: no 1-D block; with "sdwm_", the channels that it reduces to)."""

BLOCKS_1D = (
    *CONTEXTS,
    *("v2_" + kind for kind in ("fc", "conv", "att", "conv+att")),
    *("sdwm_" + kind for kind in CONTEXTS),
)
"""Kinds of 1-D block: what models time (see `create_context`), "v2_" with kernels that shrink as time is reduced and
rotary positions, "sdwm_" inside a `FrequencyMixer`."""


@dataclass(frozen=True, kw_only=True)
class ReDimNet2Config(ReDimSettings):
    """What makes one ReDimNet2 differ from another.

    Attributes:
        channels: 2-D channels at full frequency resolution (C); bins * channels stays the same at every stage.
        stages: see `Stage`. Time strides multiply: a stage works at the product of its own and all before.
        block_1d: one of `BLOCKS_1D`.
        block_2d: one of `voxnest.models.redimnet_blocks.BLOCKS_2D`.
        group_divisor: channels per group of the 2-D convolutions; None for ordinary convolutions.
        grouped_patches: the strided convolutions in as many groups as their channels allow.
        frequency_encoding: add a learned vector per bin at the beginning of each stage.
        norm_groups: groups of a group normalisation of every map; 0 for none.
        dual: let a stage with a 1-D block also give the map before that block.
        attention: fields of `voxnest.models.blocks_1d.AttentionSettings`.
        out_channels: channels after a last pointwise convolution; None for bins * channels and no such layer.
        mix_2d: that convolution sees the 2-D view, each bin by itself; `out_channels` counts per bin then.
        skip_frames: left out at the beginning by the pooling.
        pad_right: silent samples put after each waveform.
    """

    channels: int = 24
    stages: Sequence[Stage] = (
        ((1, 1), 2, 4, ((3, 3),), 24),
        ((2, 1), 3, 3, ((3, 3),), 24),
        ((1, 2), 4, 2, ((3, 3),), 24),
        ((2, 1), 5, 1, ((3, 3),), 24),
        ((1, 2), 4, 1, ((3, 3),), 24),
        ((2, 1), 3, 1, ((3, 3),), 24),
    )
    block_1d: str = "conv+att"
    block_2d: str = "basic_resnet"
    group_divisor: int | None = 1
    grouped_patches: bool = True
    frequency_encoding: bool = False
    norm_groups: int = 0
    dual: bool = False
    attention: Mapping[str, Any] = field(default_factory=dict)
    out_channels: int | None = None
    mix_2d: bool = False
    skip_frames: int = 0
    pad_right: int = 0
    frontend_options: Mapping[str, Any] = field(default_factory=lambda: {"normalize_signal": True})
    global_context: bool = True

    def __post_init__(self) -> None:
        if self.block_1d not in BLOCKS_1D:
            raise ConfigError("block_1d", repr(self.block_1d), one_of(self.block_1d, BLOCKS_1D))
        if self.block_2d not in BLOCKS_2D:
            raise ConfigError("block_2d", repr(self.block_2d), one_of(self.block_2d, BLOCKS_2D))
        if self.norm_groups and self.width % self.norm_groups:
            raise ConfigError("norm_groups", str(self.norm_groups), f"a divisor of bins * channels = {self.width}")
        try:
            AttentionSettings(**self.attention)
        except TypeError as error:
            raise ConfigError("attention", str(error), "fields of AttentionSettings") from None
        bins = self.bins
        for index, stage in enumerate(self.stages):
            if len(stage) != 5 or not isinstance(stage[0], Sequence):
                expected = "[[frequency, time] strides, blocks, expansion, kernel sizes, reduction]"
                raise ConfigError(f"stages[{index}]", repr(stage), expected)
            if bins % stage[0][0]:
                raise ConfigError(f"stages[{index}]", f"stride {stage[0][0]} at {bins} bins", "a divisor of the bins")
            bins //= stage[0][0]
        check_stages(self.exits, len(self.stages))

    @property
    def width(self) -> int:
        """Channels of every 1-D map."""
        return self.bins * self.channels

    @property
    def time_stride(self) -> int:
        """By how much the last stage has reduced time."""
        return math.prod(stage[0][1] for stage in self.stages)

    def make_frontend(self, **options: Any) -> Frontend:
        """See `EncoderSettings`."""
        return super().make_frontend(pad_right=self.pad_right, **options)


class PatchConv(nn.Conv2d):
    """A convolution whose kernel is its stride, (frames, bins): patches do not overlap.

    `[batch, frames, bins, in_channels]` to `[batch, frames / stride, bins / stride, out_channels]`.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: tuple[int, int], groups: int) -> None:
        super().__init__(in_channels, out_channels, stride, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Frames that do not fill a patch are left out."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class FrequencyEncoding(nn.Module):
    """Add a learned vector per frequency bin to `[batch, frames, bins, channels]`."""

    def __init__(self, bins: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(bins, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        return x + self.weight


class Upsample(nn.Module):
    """Bring a map back to the frames of the first one: normalise, then repeat each frame."""

    def __init__(self, config: ReDimNet2Config, time_stride: int) -> None:
        super().__init__()
        # The statistics of repeated frames are those of the frames, so the norm may come first, at fewer frames.
        self.norm = GroupNorm(config.norm_groups, config.width) if config.norm_groups else nn.Identity()
        self.time_stride = time_stride

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames / time_stride, width]` to `[batch, frames, width]`."""
        x = self.norm(x)
        return x if self.time_stride == 1 else x.repeat_interleave(self.time_stride, dim=1)


class ReDim2Stage(nn.Module):
    """Weigh the maps so far, see the result as 2-D, reduce frequency and time, run 2-D blocks and the 1-D block.

    Args:
        config: of the backbone.
        index: of the stage.
        maps: how many there are so far.
        shape: (bins, channels) before the stage.
        time_stride: of the whole backbone up to and including this stage.
    """

    def __init__(
        self, config: ReDimNet2Config, index: int, maps: int, shape: tuple[int, int], time_stride: int
    ) -> None:
        super().__init__()
        (stride, _), blocks, expansion, kernel_sizes, reduction = config.stages[index]
        bins, channels = self.shape = shape
        out_bins, out_channels = bins // stride, channels * stride
        hidden = int(out_channels * expansion)
        self.weigh = WeightedSum(maps, config.width)
        self.position = FrequencyEncoding(bins, channels) if config.frequency_encoding else nn.Identity()
        groups = math.gcd(channels, hidden) if config.grouped_patches else 1
        self.patch = PatchConv(channels, hidden, (time_stride, stride), groups)
        self.blocks = nn.Sequential(
            *(
                create_block_2d(
                    config.block_2d,
                    hidden,
                    out_bins,
                    kernel_sizes=[(time, frequency) for frequency, time in kernel_sizes],
                    group_width=config.group_divisor,
                )
                for _ in range(blocks)
            )
        )
        self.squeeze = (
            nn.Identity()
            if expansion == 1
            else nn.Sequential(nn.Linear(hidden, out_channels), BatchNorm(out_channels, eps=1e-6))
        )
        self.context = (
            nn.Identity() if reduction is None else block_1d(config, (out_bins, out_channels), reduction, time_stride)
        )
        self.upsample = Upsample(config, time_stride)
        self.upsample_2d = Upsample(config, time_stride) if config.dual and reduction is not None else None

    @property
    def count(self) -> int:
        """How many maps the stage gives."""
        return 1 if self.upsample_2d is None else 2

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `[batch, frames, width]` to the next such map (after the map before the 1-D block, if dual)."""
        x = self.position(self.weigh(maps).unflatten(-1, self.shape))
        x = self.squeeze(self.blocks(self.patch(x))).flatten(2)
        after = self.upsample(self.context(x))
        return [after] if self.upsample_2d is None else [self.upsample_2d(x), after]


def block_1d(config: ReDimNet2Config, shape: tuple[int, int], reduction: int, time_stride: int) -> nn.Module:
    """The 1-D block that `config` names, `[batch, frames, width]` in and out, for maps of (bins, channels) `shape`."""
    kind, attention = config.block_1d, AttentionSettings(**config.attention)
    if kind.startswith("sdwm_"):
        return FrequencyMixer(shape, reduction, kind.removeprefix("sdwm_"), attention)
    shrinking = time_stride if kind.startswith("v2_") else None
    return TimeContext(config.width, config.width // reduction, kind.removeprefix("v2_"), attention, shrinking)


class ReDimNet2(MapsBackbone):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames, out_channels]`.

    Frames that do not fill the time stride are left out. With `previous_maps` it is a sub-network: it takes that many
    maps of an earlier backbone (see `all_maps`) in place of the features.
    """

    receptive_field = None
    frame_stride = 1  # what strides take of time is put back before the maps are weighed

    def __init__(self, config: ReDimNet2Config) -> None:
        super().__init__(config)
        # Statistics need two frames after those that are skipped, and time is cut to whole strides.
        self.min_frames = math.ceil((config.skip_frames + 2) / config.time_stride) * config.time_stride
        self.stem = MapsStem(config) if config.previous_maps else TimeFrequencyConv(1, config.channels, (3, 3))
        self.stem_norm = nn.LayerNorm(config.channels, eps=1e-6)
        self.stem_group_norm = GroupNorm(config.norm_groups, config.width) if config.norm_groups else nn.Identity()
        self.stages = nn.ModuleList()
        self._after: list[_After] = []
        bins, channels, stride, maps = config.bins, config.channels, 1, config.previous_maps + 1
        for index, ((frequency, time), *_) in enumerate(config.stages):
            stride *= time
            stage = ReDim2Stage(config, index, maps, (bins, channels), stride)
            self.stages.append(stage)
            bins, channels, maps = bins // frequency, channels * frequency, maps + stage.count
            self._after.append(_After(maps, (bins, channels), stride))
        self._add_ends(config.exits)

    def _maps_after(self, stage: int) -> int:
        return self._after[stage - 1].maps

    def exit_channels(self, stage: int) -> int:
        """See `StagedBackbone`."""
        bins, channels = self._after[stage - 1].shape
        out = self._config.out_channels
        if self._config.mix_2d:
            return bins * (channels if out is None else out)
        return self._config.width if out is None else out

    def _make_end(self, stage: int) -> tuple[nn.Module, nn.Module]:
        config, after = self._config, self._after[stage - 1]
        mixed = after.shape[1] if config.mix_2d else config.width
        mix = nn.Identity() if config.out_channels is None else nn.Linear(mixed, config.out_channels)
        return WeightedSum(after.maps, config.width), mix

    def _finish(self, weighed: Tensor, mix: nn.Module, stage: int) -> Tensor:
        if self._config.mix_2d:
            # Checkpoints count these numbers channel by channel, 1-D maps bin by bin.
            x = mix(weighed.unflatten(-1, self._after[stage - 1].shape)).transpose(2, 3).flatten(2)
        else:
            x = mix(weighed)
        return x[:, self._config.skip_frames :]

    def frames_after(self, features: Tensor | Sequence[Tensor], stages: Sequence[int | None]) -> list[Tensor]:
        """See `StagedBackbone`. In eval mode a stage is given what it is given as the last one.

        That is by one pass only if the frames fill the time stride of all.
        """
        if isinstance(features, Tensor) and not self.training:
            ends = [self._after[-1 if stage is None else stage - 1] for stage in stages]
            if len({_whole_frames(features, end.time_stride) for end in ends}) > 1:
                return [super(ReDimNet2, self).frames_after(features, [stage])[0] for stage in stages]
        return super().frames_after(features, stages)

    def _maps_until(self, features: Tensor | Sequence[Tensor], stage: int) -> list[Tensor]:
        maps: list[Tensor] = []
        stem_input = features
        if isinstance(features, Tensor):
            stride = self._after[stage - 1].time_stride
            check_frames(features, stride)
            stem_input = features[..., : _whole_frames(features, stride)].transpose(1, 2).unsqueeze(-1)
        else:
            maps.extend(features)
        maps.append(self.stem_group_norm(self.stem_norm(self.stem(stem_input)).flatten(2)))
        for each in self.stages[:stage]:
            maps.extend(each(maps))
        return maps


def _whole_frames(features: Tensor, stride: int) -> int:
    return features.shape[-1] // stride * stride


class _After(NamedTuple):
    """How many maps there are after a stage, their 2-D shape, and by how much time is reduced."""

    maps: int
    shape: tuple[int, int]
    time_stride: int


FAMILY = Family("redimnet2", ReDimNet2Config, ReDimNet2)
