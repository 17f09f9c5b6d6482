"""What every part of an encoder is, whatever the family: the protocols beside `voxnest.frontends.Frontend`."""

from collections.abc import Iterable
from typing import Protocol

from torch import Tensor


class Backbone(Protocol):
    """What every backbone is: an `nn.Module` of features `[batch, bins, frames]` to `[batch, frames', out_channels]`.

    These say how time passes in it; they are attributes or properties.
    """

    @property
    def out_channels(self) -> int:
        """Of its output."""

    @property
    def min_frames(self) -> int:
        """The fewest frames it takes."""

    @property
    def frame_stride(self) -> int:
        """Frames that one of the output stands for: frames' is frames / frame_stride, less the edges."""

    @property
    def receptive_field(self) -> int | None:
        """Frames that one of the output depends on; None if it may be all of the utterance."""

    def __call__(self, features: Tensor, /) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames', out_channels]`."""


class Pooling(Protocol):
    """What every pooling is: an `nn.Module` of `[batch, frames, channels]` to `[batch, out_channels]`."""

    @property
    def out_channels(self) -> int:
        """Of its output."""

    def __call__(self, frames: Tensor, /) -> Tensor:
        """`[batch, frames, channels]` to `[batch, out_channels]`."""


def receptive_field(layers: Iterable[tuple[int, int, int]]) -> int:
    """Frames that one frame depends on after layers, each of (kernel size, stride, dilation) over time."""
    frames, step = 1, 1
    for kernel_size, stride, dilation in layers:
        frames += (kernel_size - 1) * dilation * step
        step *= stride
    return frames
