"""ResNet for speakers ("r-vector"), and its relatives with SimAM attention and with Res2Net blocks.

Source: Zeinali et al., BUT System Description to VoxSRC 2019 (arXiv 1910.12592), in wespeaker's form, whose checkpoints
`from_official` translates. The other blocks' sources stand with them in `voxnest.models.blocks_2d`.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.frontends import create_frontend
from voxnest.models.blocks_2d import (
    BasicBlock,
    Bottleneck,
    ConvNorm,
    Res2NetBlock,
    Residual,
    SimAMBlock,
    to_frames,
)
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.pooling import HiddenLayer, create_pooling
from voxnest.models.settings import builder
from voxnest.models.translation import ENDING, Renames, apply_renames, load_weights

BLOCKS: dict[str, type[Residual]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "simam": SimAMBlock,
    "res2net": Res2NetBlock,
}
"""Residual blocks by name."""

_STRIDES = (1, 2, 2, 2)
_MIN_FRAMES = 9
"""Two frames are left of these at the end, as many as a deviation needs."""


@dataclass(frozen=True)
class ResNetConfig:
    """What makes one ResNet differ from another. The defaults are those of ResNet34.

    Attributes:
        bins: of the filter bank.
        channels: of the first stage; every further one has twice as many.
        blocks: how many each of the four stages has.
        block: one of `BLOCKS`.
        pooling: see `voxnest.models.pooling`.
        hidden_layer: with a further linear layer between pooling and embedding; see `HiddenLayer`.
        dims: sizes of the embedding; see `MatryoshkaProjection`.
    """

    bins: int = 80
    channels: int = 32
    blocks: Sequence[int] = (3, 4, 6, 3)
    block: str = "basic"
    pooling: str = "TSTP"
    hidden_layer: bool = False
    dims: Sequence[int] = (256,)

    def __post_init__(self) -> None:
        if self.block not in BLOCKS:
            raise ConfigError("block", repr(self.block), one_of(self.block, BLOCKS))
        if len(self.blocks) != len(_STRIDES) or min(self.blocks) < 1:
            raise ConfigError("blocks", repr(list(self.blocks)), "four positive numbers")
        if self.bins < 1:
            raise ConfigError("bins", str(self.bins), "a positive number")
        if self.channels < 1 or (self.block == "res2net" and self.channels % 2):
            raise ConfigError("channels", str(self.channels), "a positive number, even for res2net")


SIZES: dict[str, dict[str, Any]] = {
    "resnet18": {"blocks": (2, 2, 2, 2)},
    "resnet34": {},
    "resnet50": {"block": "bottleneck"},
    "resnet101": {"block": "bottleneck", "blocks": (3, 4, 23, 3)},
    "resnet152": {"block": "bottleneck", "blocks": (3, 8, 36, 3)},
    "resnet221": {"block": "bottleneck", "blocks": (6, 16, 48, 3)},
    "resnet293": {"block": "bottleneck", "blocks": (10, 20, 64, 3)},
    "simam-resnet34": {"block": "simam", "channels": 64, "pooling": "ASP"},
    "simam-resnet100": {"block": "simam", "channels": 64, "blocks": (6, 16, 24, 3), "pooling": "ASP"},
    "res2net34": {"block": "res2net"},
    "res2net34-large": {"block": "res2net", "channels": 64},
}
"""Settings of the published sizes."""


class ResNet(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames / 8, out_channels]`.

    Raises:
        AudioError: in `forward`, for fewer than 9 frames.
    """

    min_frames = _MIN_FRAMES

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        block = BLOCKS[config.block]
        self.stem = ConvNorm(1, config.channels)
        self.stages = nn.Sequential()
        bins, channels = config.bins, config.channels
        for index, (count, stride) in enumerate(zip(config.blocks, _STRIDES, strict=True)):
            width = config.channels * 2**index
            blocks = [block(channels, width, stride)]
            channels = width * block.expansion
            blocks += [block(channels, width, 1) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(*blocks))
            bins = -(-bins // stride)
        self.out_channels = channels * bins

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / 8, out_channels]`: of each channel all bins, then the next."""
        check_frames(features, self.min_frames)
        x = F.relu_(self.stem(features.unsqueeze(1)))
        return to_frames(self.stages(x.contiguous(memory_format=torch.channels_last)))


@builder(ResNetConfig)
def build(name: str, config: ResNetConfig) -> SpeakerEncoder:
    """A `SpeakerEncoder` with a ResNet backbone.

    Raises:
        ConfigError: for a setting that is wrong.
    """
    return assemble(name, config, ResNet(config))


def assemble(
    name: str, config: Any, backbone: Any, *, floor: float | None = None, **frontend_options: Any
) -> SpeakerEncoder:
    """Put front end, pooling and head around a 2-D backbone; `config` has bins, pooling, hidden_layer and dims.

    `floor` is that of `create_pooling`, `frontend_options` are further ones of the filter bank.
    """
    pooling: Any = create_pooling(config.pooling, backbone.out_channels, floor=floor)
    if config.hidden_layer:
        pooling = HiddenLayer(pooling, max(config.dims))
    head = MatryoshkaProjection(pooling.out_channels, config.dims, norm=False)
    frontend = create_frontend("fbank", config.bins, **{"min_frames": backbone.min_frames, **frontend_options})
    return SpeakerEncoder(frontend, backbone, pooling, head, name=name, config=dataclasses.asdict(config))


_SETTINGS = {
    "feat_dim": "bins",
    "acoustic_dim": "bins",
    "in_planes": "channels",
    "pooling_func": "pooling",
    "two_emb_layer": "hidden_layer",
}

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES: Renames = [
    (r"^front\.", ""),
    (r"^layer(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\b(downsample|shortcut)\.0\.", "shortcut.conv."),
    (r"\b(downsample|shortcut)\.1\.", "shortcut.norm."),
    (r"\bconvs\.0\.", "conv2."),
    (r"\bbns\.0\.", "bn2."),
    (r"\bconv(\d)\.", r"conv\1.conv."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"^conv1\.", "stem."),
    (r"^(stem|stages)\.", r"backbone.\1."),
    (r"^pooling\.attention\.0\.", "pooling.attend."),
    (r"^pooling\.attention\.2\.", "pooling.norm."),
    (r"^pooling\.attention\.3\.", "pooling.score."),
    (r"^bottleneck\.", "head.linear."),
]


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "resnet34"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of wespeaker's `ResNet*`, `SimAM_ResNet*_ASP` or `Res2Net34_*` holds.

    With `two_emb_layer` the embedding is that of the second layer, as wespeaker's own extraction gives it.

    Args:
        config: arguments of wespeaker's function.
        state_dict: its weights.
        name: which of `SIZES` it is, and what to call the encoder.

    Raises:
        ConfigError: for another name, or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    encoder = build(name, translate_settings(config, SIZES, name))
    load_weights(encoder, name, state_dict, lambda key: translate_key(key, _RENAMES, encoder))
    return encoder.eval()


def translate_settings(config: Mapping[str, Any], sizes: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Arguments of wespeaker's 2-D networks as settings of ours, on top of those of the size `name`.

    Raises:
        ConfigError: for an unknown size, or an argument that these networks do not have.
    """
    if name not in sizes:
        raise ConfigError("architecture", repr(name), one_of(name, sizes))
    settings = dict(sizes[name])
    for key, value in config.items():
        if key in _SETTINGS:
            settings[_SETTINGS[key]] = value
        elif key == "embed_dim":
            settings["dims"] = (value,)
        elif key != "dropout":  # in training only, and on no weight
            raise ConfigError(key, repr(value), one_of(value, (*_SETTINGS, "embed_dim", "dropout")))
    return settings


def translate_key(key: str, renames: Renames, encoder: SpeakerEncoder) -> str:
    """Our name of a key of one of wespeaker's or 3D-Speaker's 2-D networks; `renames` are the rules of its backbone."""
    hidden = isinstance(encoder.pooling, HiddenLayer)
    if key.startswith("pool."):
        return apply_renames(key, ENDING).replace("pooling.", "pooling.pooling." if hidden else "pooling.", 1)
    key = re.sub(r"^seg_1\.", "pooling.linear." if hidden else "head.linear.", key)
    key = re.sub(r"^seg_bn_1\.", "pooling.norm.", key)
    key = re.sub(r"^seg_2\.", "head.linear.", key)
    return apply_renames(key, renames)
