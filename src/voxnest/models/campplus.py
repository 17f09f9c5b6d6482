"""CAM++: a densely connected 1-D network whose layers mask their output by what the context says, behind a 2-D front.

Source: Wang et al., CAM++: A Fast and Efficient Network for Speaker Verification Using Context-Aware Masking (arXiv
2303.00332), in the forms of wespeaker and 3D-Speaker (`CAMPPlus`), whose checkpoints
`voxnest.foreign.campplus` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import BatchNorm, check_frames, making_graph
from voxnest.models.parts import Pooling
from voxnest.models.pooling import create_pooling
from voxnest.models.resnet_blocks import BasicBlock, ConvNorm, to_frames

FRONTEND_3DSPEAKER = {"window": "povey", "scale": 1.0}
"""Options of 3D-Speaker's filter bank: Kaldi's default window, on waveforms in [-1, 1]."""

_FRONT_CHANNELS = 32
_FRONT_STRIDE = 8
"""By what the 2-D front divides the bins."""
_DILATIONS = (1, 2, 2)
_SEGMENT = 100
"""Frames, of 20 ms, over which a mask stays the same."""
_MIN_FRAMES = 3
"""Two frames are left of these, as many as a deviation needs."""


@dataclass(frozen=True, kw_only=True)
class CAMPPlusConfig(EncoderSettings):
    """What makes one CAM++ differ from another. The defaults are those of wespeaker's and 3D-Speaker's classes.

    Attributes:
        channels: after the first 1-D layer.
        growth: channels that each dense layer adds.
        bottleneck: hidden channels of a dense layer, as a multiple of `growth`.
        layers: how many each dense block has.
        pooling: see `voxnest.models.pooling`.
        variance_floor: added to the variances that "TSTP" takes the roots of; 0 in 3D-Speaker.
    """

    channels: int = 128
    growth: int = 32
    bottleneck: int = 4
    layers: Sequence[int] = (12, 24, 16)
    pooling: str = "TSTP"
    variance_floor: float = 1e-7
    dims: Sequence[int] = (512,)

    def __post_init__(self) -> None:
        if self.bins < _FRONT_STRIDE or self.bins % _FRONT_STRIDE:
            raise ConfigError("bins", str(self.bins), f"a multiple of {_FRONT_STRIDE}")
        for name in ("channels", "growth", "bottleneck"):
            if getattr(self, name) < 1:
                raise ConfigError(name, str(getattr(self, name)), "a positive number")
        if len(self.layers) != len(_DILATIONS) or min(self.layers) < 1:
            raise ConfigError("layers", repr(list(self.layers)), "three positive numbers")

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        return create_pooling(self.pooling, channels, floor=self.variance_floor)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, norm=False, bias=False, out_norm=True, out_affine=False)


class NormReLU(BatchNorm):
    """Batch normalisation of the last axis, then ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        if self.training:
            return F.relu_(super().forward(x.unsqueeze(2)).squeeze(2))
        assert self.running_mean is not None
        assert self.running_var is not None
        # torch's own kernel is several times slower on part of a wider tensor, which is what dense layers read.
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return F.relu_(torch.addcmul(self.bias - self.running_mean * scale, x, scale))


class DilatedConv(nn.Conv1d):
    """A convolution of 3 frames without bias that keeps the frames: `[batch, frames, channels]` in and out."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames, out_channels]`."""
        if making_graph():
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        # One matrix product for all three frames of the kernel, then shifted sums: torch's own convolution takes twice
        # as long, and has no fast kernel for a single short utterance.
        step = self.dilation[0]
        taps = F.linear(x, self.weight.permute(2, 0, 1).flatten(0, 1)).unflatten(-1, (3, self.out_channels))
        result = taps[:, :, 1]
        result[:, step:] += taps[:, :-step, 0]
        result[:, :-step] += taps[:, step:, 2]
        return result


class ContextMask(nn.Module):
    """Gates for every segment of `_SEGMENT` frames, from its mean and that of the utterance.

    Args:
        in_channels: of what it sees.
        out_channels: of what it masks.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(in_channels, in_channels // 2)
        self.excite = nn.Linear(in_channels // 2, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to gates in [0, 1], `[batch, frames, out_channels]`."""
        frames = x.shape[1]
        count = (frames + _SEGMENT - 1) // _SEGMENT  # not -(-a // b): onnxruntime divides towards zero
        # What the frames of a segment share is computed once, and only the gates are repeated.
        sums = F.pad(x, (0, 0, 0, count * _SEGMENT - frames)).unflatten(1, (count, _SEGMENT)).sum(dim=2)
        lengths = (frames - _SEGMENT * torch.arange(count, device=x.device)).clamp(max=_SEGMENT)
        context = sums / lengths[:, None] + sums.sum(dim=1, keepdim=True) / frames
        gates = torch.sigmoid(self.excite(F.relu_(self.squeeze(context))))
        return gates[:, :, None].expand(-1, -1, _SEGMENT, -1).flatten(1, 2)[:, :frames]


class DenseLayer(nn.Module):
    """Norm, ReLU, bottleneck, norm, ReLU, convolution, mask: the new channels of a dense block."""

    def __init__(self, in_channels: int, hidden: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.norm1 = NormReLU(in_channels)
        self.reduce = nn.Linear(in_channels, hidden, bias=False)
        self.norm2 = NormReLU(hidden)
        self.conv = DilatedConv(hidden, out_channels, dilation)
        self.mask = ContextMask(hidden, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames, out_channels]`."""
        x = self.norm2(self.reduce(self.norm1(x)))
        return self.conv(x) * self.mask(x)


class DenseBlock(nn.Module):
    """Layers each of which sees the block's input and what all layers before it have given; then half the channels."""

    def __init__(self, in_channels: int, config: CAMPPlusConfig, index: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for _ in range(config.layers[index]):
            hidden = config.bottleneck * config.growth
            self.layers.append(DenseLayer(in_channels, hidden, config.growth, _DILATIONS[index]))
            in_channels += config.growth
        self.norm = NormReLU(in_channels)
        self.out_channels = in_channels // 2
        self.transition = nn.Linear(in_channels, self.out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames, out_channels]`."""
        return self.transition(self.norm(self._concatenate(x)))

    def _concatenate(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or making_graph():
            for layer in self.layers:
                x = torch.cat([x, layer(x)], dim=-1)
            return x
        # Where nothing keeps the inputs for a gradient, one buffer takes all outputs: no layer copies what was before.
        buffer = x.new_empty((*x.shape[:2], self.norm.num_features))
        buffer[..., : x.shape[2]] = x
        end = x.shape[2]
        for layer in self.layers:
            new = layer(buffer[..., :end])
            buffer[..., end : end + new.shape[2]] = new
            end += new.shape[2]
        return buffer


class Front(nn.Module):
    """2-D residual blocks that keep the frames and divide the bins by 8 (FCM, front-end convolution module)."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        channels = _FRONT_CHANNELS
        self.stem = ConvNorm(1, channels)
        strides: Sequence[int | tuple[int, int]] = ((2, 1), 1, (2, 1), 1)
        self.blocks = nn.Sequential(*(BasicBlock(channels, channels, stride) for stride in strides))
        self.last = ConvNorm(channels, channels, stride=(2, 1))
        self.out_channels = channels * (bins // _FRONT_STRIDE)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames, out_channels]`: of each channel all bins, then the next."""
        x = F.relu_(self.stem(features.unsqueeze(1)))
        return to_frames(F.relu_(self.last(self.blocks(x.contiguous(memory_format=torch.channels_last)))))


class CAMPPlus(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, ceil(frames / 2), out_channels]`.

    Raises:
        AudioError: in `forward`, for fewer than 3 frames.
    """

    min_frames, frame_stride, receptive_field = _MIN_FRAMES, 2, None

    def __init__(self, config: CAMPPlusConfig) -> None:
        super().__init__()
        self.front = Front(config.bins)
        self.stem = nn.Conv1d(self.front.out_channels, config.channels, 5, stride=2, padding=2, bias=False)
        self.stem_norm = NormReLU(config.channels)
        self.blocks = nn.Sequential()
        channels = config.channels
        for index in range(len(config.layers)):
            block = DenseBlock(channels, config, index)
            self.blocks.append(block)
            channels = block.out_channels
        self.norm = NormReLU(channels)
        self.out_channels = channels

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, ceil(frames / 2), out_channels]`."""
        check_frames(features, self.min_frames)
        x = self.stem_norm(self.stem(self.front(features).transpose(1, 2)).transpose(1, 2).contiguous())
        result: Tensor = self.norm(self.blocks(x))
        return result


FAMILY = Family("campplus", CAMPPlusConfig, CAMPPlus)
