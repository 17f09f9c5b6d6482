"""ECAPA-TDNN: 1-D convolutions with Res2Net blocks, channel attention, and aggregation of all layers.

Source: Desplanques et al., ECAPA-TDNN: Emphasized Channel Attention, Propagation and Aggregation in TDNN Based Speaker
Verification (arXiv 2005.07143), in the forms of wespeaker (`ECAPA_TDNN`) and SpeechBrain (`ECAPA_TDNN`), whose
checkpoints `voxnest.foreign.ecapa` translates.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError, one_of
from voxnest.models.attentive_pooling import ChannelAttentivePooling
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.parts import Pooling
from voxnest.models.pooling import POOLINGS, create_pooling
from voxnest.models.tdnn import SERes2NetBlock, TDNNBlock


@dataclass(frozen=True, kw_only=True)
class ECAPAConfig(EncoderSettings):
    """What makes one ECAPA-TDNN differ from another. The defaults are wespeaker's with global context, C = 512.

    Attributes:
        channels: of the first layer and of every block (C in the paper).
        out_channels: of the layer that aggregates the outputs of all blocks.
        kernel_sizes: in frames: of the first layer, of each block, of the aggregating layer.
        dilations: in the same order.
        scale: parts of a block's Res2Net split.
        se_channels: hidden size of squeeze-and-excitation.
        padding: "zeros" (wespeaker) or "reflect" (SpeechBrain).
        aggregation_norm: batch normalisation after the aggregating layer (SpeechBrain).
        pooling: "CAS" (SpeechBrain; see `ChannelAttentivePooling`) or one of `voxnest.models.pooling.POOLINGS`.
        attention_channels: hidden size of "CAS" pooling.
        global_context: attentive pooling that sees the whole utterance's statistics.
        out_norm: batch normalisation of the embedding.
    """

    channels: int = 512
    out_channels: int = 1536
    kernel_sizes: Sequence[int] = (5, 3, 3, 3, 1)
    dilations: Sequence[int] = (1, 2, 3, 4, 1)
    scale: int = 8
    se_channels: int = 128
    padding: str = "zeros"
    aggregation_norm: bool = False
    pooling: str = "ASTP"
    attention_channels: int = 128
    global_context: bool = True
    out_norm: bool = False

    def __post_init__(self) -> None:
        if self.padding not in ("zeros", "reflect"):
            raise ConfigError("padding", repr(self.padding), "'zeros' or 'reflect'")
        if self.pooling not in (*POOLINGS, "CAS"):
            raise ConfigError("pooling", repr(self.pooling), one_of(self.pooling, (*POOLINGS, "CAS")))
        if len(self.kernel_sizes) < 3:
            raise ConfigError("kernel_sizes", repr(list(self.kernel_sizes)), "first layer, blocks, aggregating layer")
        if len(self.dilations) != len(self.kernel_sizes):
            raise ConfigError("dilations", repr(list(self.dilations)), f"{len(self.kernel_sizes)} numbers")
        if any(size % 2 == 0 for size in self.kernel_sizes):
            raise ConfigError("kernel_sizes", repr(list(self.kernel_sizes)), "odd numbers")
        if self.scale < 2 or self.channels % self.scale:
            raise ConfigError("channels", f"{self.channels} with scale {self.scale}", "a multiple of a scale above 1")

    @property
    def min_frames(self) -> int:
        """The shortest features: a deviation needs two frames, a reflection one more than it reflects."""
        if self.padding == "zeros":
            return 2
        return 1 + max(size // 2 * step for size, step in zip(self.kernel_sizes, self.dilations, strict=True))

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        if self.pooling == "CAS":
            return ChannelAttentivePooling(channels, self.attention_channels, global_context=self.global_context)
        return create_pooling(self.pooling, channels, global_context=self.global_context)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """See `EncoderSettings`."""
        return MatryoshkaProjection(in_features, self.dims, out_norm=self.out_norm)


class ECAPATDNN(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames, out_channels]`."""

    frame_stride, receptive_field = 1, None

    def __init__(self, config: ECAPAConfig) -> None:
        super().__init__()
        first, *inner, last = zip(config.kernel_sizes, config.dilations, strict=True)
        self.min_frames, self.out_channels = config.min_frames, config.out_channels
        self.stem = TDNNBlock(config.bins, config.channels, first[0], dilation=first[1], padding=config.padding)
        self.blocks = nn.ModuleList(
            SERes2NetBlock(
                config.channels,
                size,
                dilation=dilation,
                scale=config.scale,
                se_channels=config.se_channels,
                padding=config.padding,
            )
            for size, dilation in inner
        )
        self.aggregate = TDNNBlock(
            config.channels * len(inner),
            config.out_channels,
            last[0],
            dilation=last[1],
            padding=config.padding,
            norm=config.aggregation_norm,
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames, out_channels]`.

        Raises:
            AudioError: if the features are too short.
        """
        check_frames(features, self.min_frames)
        x = self.stem(features.transpose(1, 2).contiguous())
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.aggregate(torch.cat(outputs, dim=-1))


FAMILY = Family("ecapa", ECAPAConfig, ECAPATDNN)
