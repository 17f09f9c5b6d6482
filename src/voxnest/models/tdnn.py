"""Building blocks of 1-D networks, time-delay neural networks (TDNNs): `[batch, frames, channels]` in and out.

With the channels last a convolution of kernel size 1 is one matrix product, and pooling needs no transposition.

Source: Desplanques et al., ECAPA-TDNN (arXiv 2005.07143); Gao et al., Res2Net (arXiv 1904.01169); Hu et al.,
Squeeze-and-Excitation Networks (arXiv 1709.01507).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.models.layers import BatchNorm, TimeConv

PADDINGS = ("zeros", "reflect", "none")
"""What a convolution sees beyond the ends of an utterance; with "none" it gives fewer frames than it takes."""


def check_padding(padding: str) -> None:
    """Refuse what is not one of `PADDINGS`.

    Raises:
        ConfigError: that lists them.
    """
    if padding not in PADDINGS:
        raise ConfigError("padding", repr(padding), one_of(padding, PADDINGS))


class ContextConv(TimeConv):
    """A convolution over time, its `padding` one of `PADDINGS`: `[batch, frames, in]` to `[batch, frames', out]`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, dilation: int = 1, padding: str = "zeros"
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation)
        check_padding(padding)
        if padding == "none":
            self.padding = "valid"
        else:
            self.padding_mode = padding  # type: ignore[assignment]
        # The order of the input: otherwise the weight is copied into it at every call.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class TDNNBlock(nn.Module):
    """Convolution over time, ReLU, batch normalisation, in this order: the layer that TDNNs are made of.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: in frames.
        dilation: between the frames that the kernel sees.
        padding: one of `PADDINGS`.
        norm: with the batch normalisation.
        affine: it has a scale and an offset of its own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        *,
        dilation: int = 1,
        padding: str = "zeros",
        norm: bool = True,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.conv: nn.Module = (
            nn.Linear(in_channels, out_channels)
            if kernel_size == 1
            else ContextConv(in_channels, out_channels, kernel_size, dilation=dilation, padding=padding)
        )
        self.norm = BatchNorm(out_channels, affine=affine) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames', out_channels]`."""
        return self.norm(F.relu(self.conv(x), inplace=True))


class Res2NetSplit(nn.Module):
    """Channels in `scale` parts; each but the last is convolved together with what the part before it gave.

    Later parts so see ever more frames. Implementations that leave out the first part rather than the last differ in
    the order of channels only.

    Args:
        channels: in and out; divisible by `scale`.
        scale: number of parts, at least 2.
        kernel_size: of each convolution, in frames.
        dilation: of each convolution.
        padding: "zeros" or "reflect".
    """

    def __init__(self, channels: int, scale: int, kernel_size: int, *, dilation: int, padding: str = "zeros") -> None:
        super().__init__()
        if scale < 2 or channels % scale:
            raise ConfigError("scale", f"{scale} with {channels} channels", "2 or more, a divisor of the channels")
        width = channels // scale
        self.blocks = nn.ModuleList(
            TDNNBlock(width, width, kernel_size, dilation=dilation, padding=padding) for _ in range(scale - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        *parts, last = x.chunk(len(self.blocks) + 1, dim=-1)
        results: list[Tensor] = []
        for block, part in zip(self.blocks, parts, strict=True):
            results.append(block(part + results[-1] if results else part))
        return torch.cat([*results, last], dim=-1)


class SqueezeExcitation(nn.Module):
    """Scale each channel by a gate that sees the mean of all channels over the utterance.

    Args:
        channels: in and out.
        hidden: size of the gate's hidden layer.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def gate(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to gates in [0, 1], `[batch, 1, channels]`."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=1, keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        return x * self.gate(x)


class SERes2NetBlock(nn.Module):
    """ECAPA-TDNN's residual block: TDNN block, Res2Net split, TDNN block, squeeze-and-excitation.

    Args:
        channels: in and out.
        kernel_size: in the Res2Net split, in frames.
        dilation: in the Res2Net split.
        scale: see `Res2NetSplit`.
        se_channels: hidden size of the squeeze-and-excitation.
        padding: "zeros" or "reflect".
    """

    def __init__(
        self, channels: int, kernel_size: int, *, dilation: int, scale: int, se_channels: int, padding: str = "zeros"
    ) -> None:
        super().__init__()
        self.before = TDNNBlock(channels, channels)
        self.split = Res2NetSplit(channels, scale, kernel_size, dilation=dilation, padding=padding)
        self.after = TDNNBlock(channels, channels)
        self.se = SqueezeExcitation(channels, se_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        y = self.after(self.split(self.before(x)))
        return torch.addcmul(x, y, self.se.gate(y))
