"""The residual networks that AutoSpeech is compared with: ResNet-18 and ResNet-34 for images, on spectrograms.

Source: models/resnet.py of the official AutoSpeech implementation (TAMU-VITA/AutoSpeech). There a training starts from
weights for images (ImageNet), here from random ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.autospeech import SpectrogramSettings
from voxnest.models.family import Family
from voxnest.models.layers import check_frames
from voxnest.models.parts import receptive_field
from voxnest.models.resnet_blocks import BasicBlock

_STRIDES = (1, 2, 2, 2)
_SMALLEST = 3
"""Bins and frames: the first convolution has a kernel of 7 with a padding of 2 on each side."""


@dataclass(frozen=True, kw_only=True)
class AutoSpeechResNetConfig(SpectrogramSettings):
    """What makes one of these networks differ from another. The defaults are those of ResNet-34.

    Attributes:
        channels: of the first stage; every further one has twice as many.
        blocks: how many each of the four stages has.
    """

    channels: int = 64
    blocks: Sequence[int] = (3, 4, 6, 3)

    def __post_init__(self) -> None:
        if len(self.blocks) != len(_STRIDES) or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "four positive numbers")
        if self.channels < 1:
            raise ConfigError("channels", str(self.channels), "a positive number")
        if self.bins < _SMALLEST:
            raise ConfigError("bins", str(self.bins), f"at least {_SMALLEST}")


class AutoSpeechResNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames / 32, out_channels]`, means over frequency.

    Raises:
        AudioError: in `forward`, for fewer than 3 frames.
    """

    min_frames, frame_stride = _SMALLEST, 32

    def __init__(self, config: AutoSpeechResNetConfig) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, config.channels, 7, stride=2, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(config.channels)
        self.stages = nn.Sequential()
        channels, layers = config.channels, [(7, 2, 1), (3, 2, 1)]
        for index, (count, stride) in enumerate(zip(config.blocks, _STRIDES, strict=True)):
            width = config.channels * 2**index
            blocks = [BasicBlock(channels, width, stride), *(BasicBlock(width, width) for _ in range(count - 1))]
            self.stages.append(nn.Sequential(*blocks))
            layers += [(3, step, 1) for step in (stride, *[1] * (2 * count - 1))]
            channels = width
        self.out_channels, self.receptive_field = channels, receptive_field(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / 32, out_channels]`."""
        check_frames(features, self.min_frames)
        x = features.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        x = F.max_pool2d(F.relu_(self.norm(self.conv(x))), 3, stride=2, padding=1)
        result: Tensor = self.stages(x).mean(dim=3).transpose(1, 2)
        return result


FAMILY = Family("autospeech-resnet", AutoSpeechResNetConfig, AutoSpeechResNet)
