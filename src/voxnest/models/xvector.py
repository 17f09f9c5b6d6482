"""The x-vector: a time-delay neural network whose statistics over time go through fully connected layers.

Source: Snyder et al., X-vectors: Robust DNN Embeddings for Speaker Recognition (ICASSP 2018), as in Kaldi's recipes and
in wespeaker's `XVEC`, whose checkpoints `from_official` translates.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.frontends import create_frontend
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.pooling import HiddenLayer, create_pooling
from voxnest.models.settings import builder
from voxnest.models.tdnn import TDNNBlock

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
"""Kernel size and dilation of the layers that see frames."""


@dataclass(frozen=True)
class XVectorConfig:
    """What makes one x-vector network differ from another. The defaults are wespeaker's and the paper's.

    Attributes:
        bins: features per frame.
        channels: of the layers that see frames, but the last.
        out_channels: of the last of them, whose statistics are taken.
        embedding: "a", of the first layer after the statistics (the paper's choice, and Kaldi's), or "b", of the second
            (wespeaker's).
        pooling: see `voxnest.models.pooling`.
        frontend: one of `voxnest.frontends.FRONTENDS`.
        frontend_options: its further arguments.
        dims: sizes of the embedding; see `MatryoshkaProjection`.
    """

    bins: int = 80
    channels: int = 512
    out_channels: int = 1500
    embedding: str = "b"
    pooling: str = "TSTP"
    frontend: str = "fbank"
    frontend_options: Mapping[str, Any] = field(default_factory=dict)
    dims: Sequence[int] = (512,)

    def __post_init__(self) -> None:
        if self.embedding not in ("a", "b"):
            raise ConfigError("embedding", repr(self.embedding), "'a' or 'b'")


class XVector(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames - 14, out_channels]`."""

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


@builder(XVectorConfig)
def build(name: str, config: XVectorConfig) -> SpeakerEncoder:
    """A `SpeakerEncoder` with an x-vector backbone.

    Raises:
        ConfigError: for a setting that is wrong.
    """
    backbone = XVector(config)
    pooling: Any = create_pooling(config.pooling, config.out_channels)
    if config.embedding == "b":
        pooling = HiddenLayer(pooling, max(config.dims))
    head = MatryoshkaProjection(pooling.out_channels, config.dims, norm=False)
    frontend = create_frontend(
        config.frontend, config.bins, **{"min_frames": backbone.min_frames, **config.frontend_options}
    )
    return SpeakerEncoder(frontend, backbone, pooling, head, name=name, config=dataclasses.asdict(config))
