"""The x-vector: a time-delay neural network whose statistics over time go through fully connected layers.

Source: Snyder et al., X-vectors: Robust DNN Embeddings for Speaker Recognition (ICASSP 2018), as in Kaldi's recipes and
in wespeaker's `XVEC`, whose checkpoints `voxnest.foreign` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.parts import Pooling, receptive_field
from voxnest.models.pooling import HiddenLayer, create_pooling
from voxnest.models.tdnn import TDNNBlock

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Kernel size and dilation of the layers that see frames."""


@dataclass(frozen=True, kw_only=True)
class XVectorConfig(EncoderSettings):
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

    def make_pooling(self, channels: int) -> Pooling:
        """Statistics, and the first layer after them if the embedding is the second."""
        pooling = create_pooling(self.pooling, channels)
        return HiddenLayer(pooling, max(self.dims)) if self.embedding == "b" else pooling

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, norm=False)


class XVector(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames - 14, out_channels]`."""

    frame_stride = 1
    receptive_field = receptive_field((size, 1, dilation) for size, dilation in CONTEXTS)
    min_frames = 1 + receptive_field
    """Two frames are left of these, as many as a deviation needs."""

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


FAMILY = Family("xvector", XVectorConfig, XVector)
