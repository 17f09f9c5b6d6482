"""Building blocks of 2-D residual networks, in torch's own layout `[batch, channels, bins, frames]`.

The networks keep `torch.channels_last` memory: on a CPU it is the layout in which convolutions, above all depthwise
ones, need no reordering. In eval mode a batch normalisation is part of the convolution before it; what is left of the
element-wise work happens in place.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.models.family import EncoderSettings
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import making_graph, scale_and_offset
from voxnest.models.parts import Pooling
from voxnest.models.pooling import HiddenLayer, create_pooling

Stride = int | tuple[int, int]
"""Over bins and frames."""


@dataclass(frozen=True, kw_only=True)
class ResidualSettings(EncoderSettings):
    """What 2-D residual networks have in common after the backbone.

    Attributes:
        pooling: see `voxnest.models.pooling`.
        variance_floor: added to the variances that "TSTP" takes the roots of; 1e-8 in 3D-Speaker.
        hidden_layer: with a further linear layer between pooling and embedding; see `HiddenLayer`.
    """

    pooling: str = "TSTP"
    variance_floor: float = 1e-7
    hidden_layer: bool = False

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        pooling = create_pooling(self.pooling, channels, floor=self.variance_floor)
        return HiddenLayer(pooling, max(self.dims)) if self.hidden_layer else pooling

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, norm=False)


_LEFT_TO_TORCH = 20480
"""The most numbers of an input for PyTorch's own code: `use_mkldnn` in its aten/src/ATen/native/Convolution.cpp."""


class ConvNorm(nn.Module):
    """A convolution without bias, and batch normalisation.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: the same over bins and frames; odd ones are padded to keep the size, even ones are not padded.
        stride: in bins and frames.
        groups: of channels that do not see each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        stride: Stride = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        padding = (kernel_size - 1) // 2
        conv = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.norm: nn.Module = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, bins, frames]` to `[batch, out_channels, bins', frames']`."""
        if self.norm.training or not isinstance(self.norm, nn.BatchNorm2d):
            result: Tensor = self.norm(self._convolve(x, self.conv.weight, self.conv.bias))
            return result
        # Scaling weights saves a pass over activations. Late in a network, where there are more weights than those of a
        # short utterance, it was measured to take no longer.
        scale, offset = scale_and_offset(self.norm)
        return self._convolve(x, self.conv.weight * scale[:, None, None, None], offset)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        conv = self.conv
        if self._asks_onednn(x):
            return torch.mkldnn_convolution(x, weight, bias, conv.padding, conv.stride, conv.dilation, conv.groups)
        return conv._conv_forward(x, weight, bias)

    def _asks_onednn(self, x: Tensor) -> bool:
        """Whether oneDNN convolves `x` four times as fast as what PyTorch would choose.

        PyTorch leaves a batch of one with few numbers, such as features in front of the first layer, to its own code.
        Where weights outnumber them that is right: oneDNN puts weights in another order first.
        """
        few = x.shape[0] == 1 and self.conv.weight.numel() < x.numel() <= _LEFT_TO_TORCH
        if not few or making_graph() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
            return False
        return x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available()


class Residual(nn.Module):
    """What residual blocks share: a shortcut, convolutional where the shape changes, and the activation after the sum.

    A subclass sets `expansion` (output channels per channel of the stage) and `kernel_sizes` (of its convolutions, the
    first of which has the stride), and defines `branch`.
    """

    expansion = 1
    kernel_sizes: tuple[int, ...] = ()

    def __init__(self, in_channels: int, channels: int, stride: Stride) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = ConvNorm(in_channels, out_channels, 1, stride=stride) if changes else nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, bins, frames]` to a new `[batch, out_channels, bins', frames']`."""
        raise NotImplementedError

    def activate(self, x: Tensor) -> Tensor:
        """In place; the same shape as given."""
        return F.relu_(x)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, bins, frames]` to `[batch, channels * expansion, bins / stride, frames / stride]`."""
        return self.activate(self.branch(x).add_(self.shortcut(x)))


class BasicBlock(Residual):
    """Two 3x3 convolutions (He et al., arXiv 1512.03385)."""

    kernel_sizes = (3, 3)

    def __init__(self, in_channels: int, channels: int, stride: Stride = 1) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = ConvNorm(in_channels, channels, stride=stride)
        self.conv2 = ConvNorm(channels, channels)

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        y: Tensor = self.conv2(self.activate(self.conv1(x)))
        return y


class SimAMBlock(BasicBlock):
    """A basic block whose result is weighed by an attention without parameters.

    Source: Yang et al., SimAM (ICML 2021), in wespeaker's form.
    """

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        return simam(super().branch(x))


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions, the last to four times the channels (He et al., arXiv 1512.03385)."""

    expansion, kernel_sizes = 4, (3,)

    def __init__(self, in_channels: int, channels: int, stride: Stride = 1) -> None:
        super().__init__(in_channels, channels, stride)
        self.conv1 = ConvNorm(in_channels, channels, 1)
        self.conv2 = ConvNorm(channels, channels, stride=stride)
        self.conv3 = ConvNorm(channels, channels * self.expansion, 1)

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        y: Tensor = self.conv3(self.activate(self.conv2(self.activate(self.conv1(x)))))
        return y


class Res2NetBlock(Residual):
    """A bottleneck whose 3x3 convolution sees one half of the channels; the other half goes by.

    Activations are clipped at 20.

    Source: Gao et al., Res2Net (arXiv 1904.01169), in the form of 3D-Speaker and wespeaker (scale 2, base width 32).
    """

    expansion, kernel_sizes = 2, (1, 3)

    def __init__(self, in_channels: int, channels: int, stride: Stride = 1) -> None:
        super().__init__(in_channels, channels, stride)
        half = channels // 2
        self.conv1 = ConvNorm(in_channels, 2 * half, 1, stride=stride)
        self.conv2 = ConvNorm(half, half)
        self.conv3 = ConvNorm(2 * half, channels * self.expansion, 1)

    def activate(self, x: Tensor) -> Tensor:
        """In place; the same shape as given."""
        return F.hardtanh_(x, 0.0, 20.0)

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        first, second = self.activate(self.conv1(x)).chunk(2, dim=1)
        y: Tensor = self.conv3(torch.cat([self.activate(self.conv2(first)), second], dim=1))
        return y


class InvertedBottleneck(Residual):
    """1x1 convolution to four times the channels, depthwise 3x3, and 1x1 back.

    Source: Liu et al., DF-ResNet (Interspeech 2022), in wespeaker's form.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1)
        wide = 4 * channels
        self.conv1 = ConvNorm(channels, wide, 1)
        self.conv2 = ConvNorm(wide, wide, groups=wide)
        self.conv3 = ConvNorm(wide, channels, 1)

    def branch(self, x: Tensor) -> Tensor:
        """See `Residual`."""
        y: Tensor = self.conv3(self.activate(self.conv2(self.activate(self.conv1(x)))))
        return y


def simam(x: Tensor, floor: float = 1e-4) -> Tensor:
    """Weigh `[batch, channels, bins, frames]`: what is far from its channel's mean, in deviations, counts more."""
    # Not torch.var_mean: over the outer dimensions of this layout it takes many times as long as these.
    squares = (x - x.mean(dim=(2, 3), keepdim=True)).square()
    variance = squares.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3] - 1)
    return x * torch.addcmul(x.new_tensor(0.5), squares, 0.25 / (variance + floor)).sigmoid_()


def to_frames(x: Tensor) -> Tensor:
    """A 2-D map `[batch, channels, bins, frames]` as `[batch, frames, channels * bins]`."""
    return x.flatten(1, 2).transpose(1, 2)
