"""The x-vector: a time-delay neural network whose statistics over time go through fully connected layers.

Source: Snyder et al., X-vectors: Robust DNN Embeddings for Speaker Recognition (ICASSP 2018), as in Kaldi's recipes and
in wespeaker's `XVEC`, whose checkpoints `voxnest.foreign` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.models.family import Family, FeatureSettings, Parts
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.pooling import HiddenLayer, create_pooling
from voxnest.models.tdnn import TDNNBlock

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Kernel size and dilation of the layers that see frames."""


@dataclass(frozen=True, kw_only=True)
class XVectorConfig(FeatureSettings):
    """What makes one x-vector network differ from another. The defaults are wespeaker's and the paper's.

    Attributes:
        channels: of the layers that see frames, but the last.
        out_channels: of the last of them, whose statistics are taken.
        embedding: "a", of the first layer after the statistics (the paper's choice, and Kaldi's), or "b", of the second
            (wespeaker's).
        pooling: see `voxnest.models.pooling`.
    """

    channels: int = 512
    out_channels: int = 1500
    embedding: str = "b"
    pooling: str = "TSTP"
    dims: Sequence[int] = (512,)

    def __post_init__(self) -> None:
        if self.embedding not in ("a", "b"):
            raise ConfigError("embedding", repr(self.embedding), "'a' or 'b'")


class XVector(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames - 14, out_channels]`."""

    frame_stride = 1
    min_frames = 2 + sum((size - 1) * dilation for size, dilation in CONTEXTS)
    """A deviation needs two frames beside those that the convolutions take away."""

    def __init__(self, config: XVectorConfig) -> None:
        super().__init__()
        self.out_channels = config.out_channels
        channels = [config.bins, *[config.channels] * (len(CONTEXTS) - 1), config.out_channels]
        self.layers = nn.Sequential(
            *(
                TDNNBlock(channels[index], channels[index + 1], size, dilation=dilation, padding="none", affine=False)
                for index, (size, dilation) in enumerate(CONTEXTS)
            )
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames - 14, out_channels]`.

        Raises:
            AudioError: if the features are too short.
        """
        check_frames(features, self.min_frames)
        return self.layers(features.transpose(1, 2).contiguous())


def assemble(config: XVectorConfig) -> Parts:
    """The parts of an encoder with an x-vector backbone."""
    backbone = XVector(config)
    pooling: Any = create_pooling(config.pooling, config.out_channels)
    if config.embedding == "b":
        pooling = HiddenLayer(pooling, max(config.dims))
    head = MatryoshkaProjection(pooling.out_channels, config.dims, norm=False)
    return Parts(config.make_frontend(min_frames=backbone.min_frames), backbone, pooling, head)


FAMILY = Family("xvector", XVectorConfig, assemble)
build = FAMILY.labelled
