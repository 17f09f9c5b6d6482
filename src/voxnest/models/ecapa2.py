"""ECAPA2: 2-D convolutions find local patterns wherever they are in frequency, 1-D layers see all frequencies at once.

Source: Thienpondt and Demuynck, ECAPA2: A Hybrid Neural Network Architecture and Training Strategy for Robust Speaker
Embeddings (arXiv 2401.08342). The authors released a model but no code: sizes are those of public reimplementations
(k-washi/speaker-emb-ja-ecapa2 and others), and the card says what was chosen here. No weights of others fit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.attentive_pooling import ChannelAttentivePooling
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.layers import BatchNorm, FrequencySqueezeExcitation, check_frames
from voxnest.models.parts import Pooling
from voxnest.models.tdnn import SERes2NetBlock, TDNNBlock


@dataclass(frozen=True, kw_only=True)
class ECAPA2Config(EncoderSettings):
    """What makes one ECAPA2 differ from another. The defaults give the published size within 2%.

    Attributes:
        local_channels: of each block of the local feature extractor, by stage; every stage but the first halves the
            frequencies.
        local_se_channels: hidden size of their frequency-wise squeeze-and-excitation.
        channels: of the global feature extractor.
        out_channels: of its last layer, whose statistics are taken.
        scale: parts of its Res2Net split.
        dilation: of its Res2Net split.
        se_channels: hidden size of its squeeze-and-excitation.
        attention_channels: hidden size of the attentive pooling.
    """

    bins: int = 256
    local_channels: Sequence[Sequence[int]] = (
        (164, 164, 164),
        (164, 164, 164, 164),
        (164, 164, 192, 192),
        (192, 192, 192, 192),
        (192, 192, 192, 192, 192),
    )
    local_se_channels: int = 128
    channels: int = 1024
    out_channels: int = 1536
    scale: int = 8
    dilation: int = 2
    se_channels: int = 128
    attention_channels: int = 128
    frontend: str = "tf_spectrogram"
    frontend_options: Mapping[str, Any] = field(default_factory=lambda: {"pool": None})

    def __post_init__(self) -> None:
        if not self.local_channels or not all(self.local_channels):
            raise ConfigError("local_channels", repr(self.local_channels), "one or more blocks in each stage")
        divisor = 2 ** (len(self.local_channels) - 1)
        if self.bins % divisor:
            raise ConfigError("bins", str(self.bins), f"a multiple of {divisor}: every stage but the first halves them")

    def make_pooling(self, channels: int) -> Pooling:
        """See `EncoderSettings`."""
        return ChannelAttentivePooling(channels, self.attention_channels)


class LocalConv(nn.Conv2d):
    """3x3 convolution, ReLU, batch normalisation: `[batch, frames, bins, in]` to `[batch, frames, bins', out]`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: in frequency.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=(1, stride), padding=1)
        self.norm = BatchNorm(out_channels)
        # The order of the input: otherwise the weight is copied into it at every call.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """The permuted view is what torch calls channels-last memory, and so is the result: nothing is copied."""
        y = super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(F.relu(y, inplace=True))


class Downsample(nn.Module):
    """What a block that halves the frequencies adds its result to: a 1x1 convolution of every second one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels, bias=False)
        self.norm = BatchNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, in_channels]` to `[batch, frames, bins / 2, out_channels]`."""
        return self.norm(self.linear(x[:, :, ::2]))


class LocalBlock(nn.Module):
    """Three convolutions and a frequency-wise squeeze-and-excitation, added to the input.

    Where the number of channels changes without a stride nothing is added.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        bins: of the output.
        se_channels: hidden size of the squeeze-and-excitation.
        stride: in frequency, 1 or 2.
    """

    def __init__(self, in_channels: int, out_channels: int, bins: int, *, se_channels: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            LocalConv(in_channels, out_channels, stride),
            LocalConv(out_channels, out_channels),
            LocalConv(out_channels, out_channels),
        )
        self.se = FrequencySqueezeExcitation(bins, se_channels)
        self.residual = stride > 1 or in_channels == out_channels
        self.shortcut = Downsample(in_channels, out_channels) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, in_channels]` to `[batch, frames, bins / stride, out_channels]`."""
        y = self.se(self.convs(x))
        return y + self.shortcut(x) if self.residual else y


class ECAPA2(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames, out_channels]`."""

    frame_stride, receptive_field = 1, None

    def __init__(self, config: ECAPA2Config) -> None:
        super().__init__()
        self.min_frames, self.out_channels = 1 + config.dilation, config.out_channels
        blocks = []
        bins, channels = config.bins, 1
        for index, stage in enumerate(config.local_channels):
            for position, out_channels in enumerate(stage):
                stride = 2 if index and not position else 1
                bins //= stride
                blocks.append(
                    LocalBlock(channels, out_channels, bins, se_channels=config.local_se_channels, stride=stride)
                )
                channels = out_channels
        self.local = nn.Sequential(*blocks)
        self.reduce = TDNNBlock(bins * channels, config.channels)
        self.context = SERes2NetBlock(
            config.channels,
            3,
            dilation=config.dilation,
            scale=config.scale,
            se_channels=config.se_channels,
            padding="reflect",
        )
        self.expand = TDNNBlock(config.channels, config.out_channels, norm=False)

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames, out_channels]`.

        Raises:
            AudioError: if the features are too short.
        """
        check_frames(features, self.min_frames)
        x = self.local(features.transpose(1, 2).unsqueeze(-1))
        return self.expand(self.context(self.reduce(x.flatten(2))))


FAMILY = Family("ecapa2", ECAPA2Config, ECAPA2)
