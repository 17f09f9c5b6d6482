"""What an edge of a searched cell may compute: maps `[batch, channels, frames, bins]` to as many channels.

With stride 2 all of them leave `ceil(frames / 2)` frames and `ceil(bins / 2)` bins, so that edges can be added.

Source: operations.py of the official AutoSpeech implementation (TAMU-VITA/AutoSpeech), which is DARTS'
(Liu et al., arXiv 1806.09055) with convolutions along one axis. As there, kernel sizes are frames x bins.
"""

from collections.abc import Callable

from torch import Tensor, nn

Maker = Callable[[int, int, bool], nn.Module]
"""Makes an operation of channels, stride and affine: whether its batch normalisations have a scale and an offset."""


class Zero(nn.Module):
    """No connection: zeros, that no gradient comes back from."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, channels, frames, bins]` to the size that all operations of this stride give."""
        frames, bins = ((size + self.stride - 1) // self.stride for size in x.shape[2:])
        return x.new_zeros(*x.shape[:2], frames, bins)


class ReLUConvNorm(nn.Sequential):
    """ReLU, pointwise convolution, batch normalisation.

    With stride 2 it is the original's `FactorizedReduce` too: the two convolutions of that see the same positions,
    where those of DARTS see neighbours, and so are one.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, affine: bool = True) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
            nn.BatchNorm2d(out_channels, affine=affine),
        )


class SeparableConv(nn.Sequential):
    """ReLU, depthwise convolution, pointwise convolution, batch normalisation; and that again.

    Args:
        channels: in and out.
        kernel_size: frames, bins.
        stride: of the first depthwise convolution.
        affine: of the normalisations.
        dilation: of the depthwise convolutions.
        repeats: how many times.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: tuple[int, int],
        stride: int,
        affine: bool,
        dilation: int = 1,
        repeats: int = 2,
    ) -> None:
        layers: list[nn.Module] = []
        frames, bins = kernel_size
        # An axis of one has nothing to dilate, and the padding is 0 there.
        padding = (dilation * (frames // 2), dilation * (bins // 2))
        for step in (stride, *[1] * (repeats - 1)):
            layers += [
                nn.ReLU(),
                nn.Conv2d(channels, channels, kernel_size, step, padding, dilation, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels, affine=affine),
            ]
        super().__init__(*layers)


def _sep_conv(frames: int, bins: int) -> Maker:
    return lambda channels, stride, affine: SeparableConv(channels, (frames, bins), stride, affine)


def _dil_conv(frames: int, bins: int) -> Maker:
    return lambda channels, stride, affine: SeparableConv(channels, (frames, bins), stride, affine, 2, 1)


def _skip_connect(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Identity() if stride == 1 else ReLUConvNorm(channels, channels, stride, affine)


def _conv_7x1_1x7(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 7), (1, stride), (0, 3), bias=False),
        nn.Conv2d(channels, channels, (7, 1), (stride, 1), (3, 0), bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    )


OPERATIONS: dict[str, Maker] = {
    "none": lambda channels, stride, affine: Zero(stride),
    "max_pool_3x3": lambda channels, stride, affine: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda channels, stride, affine: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": _skip_connect,
    "sep_conv_3x3": _sep_conv(3, 3),
    "sep_conv_5x5": _sep_conv(5, 5),
    "sep_conv_7x7": _sep_conv(7, 7),
    "sep_conv_3x1": _sep_conv(3, 1),
    "sep_conv_1x3": _sep_conv(1, 3),
    "dil_conv_3x3": _dil_conv(3, 3),
    "dil_conv_5x5": _dil_conv(5, 5),
    "dil_conv_3x1": _dil_conv(3, 1),
    "dil_conv_1x3": _dil_conv(1, 3),
    "conv_7x1_1x7": _conv_7x1_1x7,
}
"""By name, as genotypes and search spaces write it."""
