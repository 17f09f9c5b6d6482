"""VGG-M for speakers: the plain 2-D network on spectrograms that VoxCeleb was published with.

Source: Nagrani et al., VoxCeleb: a large-scale speaker identification dataset (arXiv 1706.08612), table 5, and its
implementation (a-nagrani/VGGVox).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.parts import Pooling, receptive_field
from voxnest.models.pooling import TemporalAveragePooling

Layer = tuple[int, int, int, tuple[int, int] | None, tuple[int, int]]
"""Output channels, kernel size, stride, and of the maximum that follows (None: none): kernel (bins, frames), stride."""

LAYERS: tuple[Layer, ...] = (
    (96, 7, 2, (3, 3), (2, 2)),
    (256, 5, 2, (3, 3), (2, 2)),
    (384, 3, 1, None, (1, 1)),
    (256, 3, 1, None, (1, 1)),
    (256, 3, 1, (5, 3), (3, 2)),
)
"""conv1 to conv5, padded by one bin and one frame on each side."""

FC6_CHANNELS = 4096


def _size_after(size: int, axis: int) -> int:
    """Bins (axis 0) or frames (axis 1) that conv1 to conv5 leave of `size`."""
    for _, kernel_size, stride, pool, pool_stride in LAYERS:
        size = (size + 2 - kernel_size) // stride + 1
        if pool is not None:
            size = (size - pool[axis]) // pool_stride[axis] + 1
    return size


MIN_FRAMES = next(frames for frames in range(1, 1000) if _size_after(frames, 1) == 1)
"""The shortest input of which anything is left."""


@dataclass(frozen=True, kw_only=True)
class VGGMConfig(EncoderSettings):
    """What can be set of VGG-M: fc6 covers all bins that are left of the spectrogram's."""

    frontend: str = "spectrogram"
    bins: int = 512
    dims: Sequence[int] = (1024,)

    def __post_init__(self) -> None:
        if _size_after(self.bins, 0) < 1:
            raise ConfigError("bins", str(self.bins), "enough for five layers of convolutions")

    def make_pooling(self, channels: int) -> Pooling:
        """The mean over time."""
        return TemporalAveragePooling(channels)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """fc7 with its batch normalisation; the ReLU between it and a class layer is left to losses."""
        return MatryoshkaProjection(in_features, self.dims, norm=False, bias=False, out_norm=True)


class ConvLayer(nn.Module):
    """Convolution, batch normalisation and ReLU, on `[batch, channels, bins, frames]`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: tuple[int, int], stride: int = 1, padding: int = 1
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, in_channels, bins, frames]` to `[batch, out_channels, bins', frames']`."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class VGGM(nn.Module):
    """The backbone, conv1 to fc6: features `[batch, bins, frames]` to `[batch, frames', 4096]`, a frame per 0.32 s."""

    min_frames, frame_stride = MIN_FRAMES, 32
    receptive_field = receptive_field(
        step
        for _, kernel_size, stride, pool, pool_stride in LAYERS
        for step in ((kernel_size, stride, 1), (1 if pool is None else pool[1], pool_stride[1], 1))
    )

    def __init__(self, config: VGGMConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for out_channels, kernel_size, stride, pool, pool_stride in LAYERS:
            layers.append(ConvLayer(channels, out_channels, (kernel_size, kernel_size), stride))
            if pool is not None:
                layers.append(nn.MaxPool2d(pool, pool_stride))
            channels = out_channels
        self.layers = nn.Sequential(*layers)
        self.fc6 = ConvLayer(channels, FC6_CHANNELS, (_size_after(config.bins, 0), 1), padding=0)
        self.out_channels = FC6_CHANNELS
        # On one CPU core more than twice as fast: above all the maxima run over channels.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames', 4096]`.

        Raises:
            AudioError: for fewer frames than `MIN_FRAMES`.
        """
        check_frames(features, MIN_FRAMES)
        return self.fc6(self.layers(features.unsqueeze(1))).squeeze(2).transpose(1, 2)


FAMILY = Family("vgg-m", VGGMConfig, VGGM)
