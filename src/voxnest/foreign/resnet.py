"""wespeaker's ResNets: their arguments and keys as ours. Its other 2-D networks, and 3D-Speaker's, are named alike."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import ConfigError, one_of
from voxnest.foreign.translation import ENDING, Renames, apply_renames, load_weights
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.pooling import HiddenLayer
from voxnest.models.resnet import build
from voxnest.zoo.cards.resnet import SIZES

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
