"""Translate ERes2Net and ERes2NetV2 checkpoints of wespeaker and 3D-Speaker: their arguments and keys to ours.

Facts about the foreign layouts live here: `wespeaker.models.eres2net`, and `ERes2Net`, `ERes2Net_huge` and `ERes2NetV2`
of `speakerlab.models.eres2net`.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import ConfigError, one_of
from voxnest.foreign.resnet import translate_key
from voxnest.foreign.translation import Renames, load_weights
from voxnest.models.campplus import FRONTEND_3DSPEAKER
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.eres2net import build
from voxnest.zoo.cards.eres2net import SIZES

_SETTINGS = {
    "feat_dim": "bins",
    "pooling_func": "pooling",
    "two_emb_layer": "hidden_layer",
    "expansion": "expansion",
    "baseWidth": "width",
    "scale": "scale",
}
_3DSPEAKER = {**_SETTINGS, "m_channels": "channels", "num_blocks": "blocks"}

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES: Renames = [
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    (r"\.conv(1|3)\.", r".conv\1.conv."),
    (r"\.bn(1|3)\.", r".conv\1.norm."),
    (r"\.convs\.(\d+)\.", r".parts.\1.conv."),
    (r"\.bns\.(\d+)\.", r".parts.\1.norm."),
    (r"\.fuse_models\.", ".fusions."),
    (r"^layer(\d)_downsample\.", lambda match: f"reductions.{int(match[1]) - 1}."),
    (r"^layer3_ds\.", "reductions.0."),
    (r"^fuse_mode(\d+)\.", lambda match: f"fusions.{len(match[1]) - 2}."),
    (r"^fuse34\.", "fusions.0."),
    (r"\.local_att\.0\.", ".squeeze.conv."),
    (r"\.local_att\.1\.", ".squeeze.norm."),
    (r"\.local_att\.3\.", ".excite.conv."),
    (r"\.local_att\.4\.", ".excite.norm."),
    (r"^(stem|stages|reductions|fusions)\.", r"backbone.\1."),
]


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "eres2net-base"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of wespeaker's `ERes2Net34_Base`, `_Large` or `_aug` holds, in eval mode.

    With `two_emb_layer` the embedding is that of the second layer, as wespeaker's own extraction gives it. Arguments of
    3D-Speaker (`embedding_size` among them) mean a model of that: see `from_3dspeaker`.

    Args:
        config: arguments of the function.
        state_dict: its weights.
        name: which of `SIZES` it is, and what to call the encoder.

    Raises:
        ConfigError: for another name, or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    if "embedding_size" in config:
        return from_3dspeaker(config, state_dict, name)
    settings = _translate_settings(config, "embed_dim", _SETTINGS, name)
    # The blocks that fuse hold the convolution of their first part apart from the others.
    apart = any(".conv2_1." in key for key in state_dict)
    weights = {_join_parts(key) if apart else key: value for key, value in state_dict.items()}
    return _load(settings, weights, name)


def from_3dspeaker(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "eres2net-base"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of 3D-Speaker's `ERes2Net` or `ERes2NetV2` holds, in eval mode.

    It has the filter bank of 3D-Speaker.

    Args:
        config: arguments of the class; what is not given is that of the size.
        state_dict: its weights.
        name: which of `SIZES` it is, and what to call the encoder.

    Raises:
        ConfigError: for another name, or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings = _translate_settings(config, "embedding_size", _3DSPEAKER, name)
    settings |= {"frontend_options": FRONTEND_3DSPEAKER, "variance_floor": 1e-8}
    return _load(settings, state_dict, name)


def _translate_settings(
    config: Mapping[str, Any], embedding: str, known: Mapping[str, str], name: str
) -> dict[str, Any]:
    if name not in SIZES:
        raise ConfigError("architecture", repr(name), one_of(name, SIZES))
    settings = dict(SIZES[name])
    for key, value in config.items():
        if key in known:
            settings[known[key]] = value
        elif key == embedding:
            settings["dims"] = (value,)
        else:
            raise ConfigError(key, repr(value), one_of(value, (embedding, *known)))
    return settings


def _load(settings: dict[str, Any], state_dict: Mapping[str, Tensor], name: str) -> SpeakerEncoder:
    encoder = build(name, settings)
    load_weights(encoder, name, _absorb_biases(state_dict), lambda key: translate_key(key, _RENAMES, encoder))
    return encoder.eval()


def _join_parts(key: str) -> str:
    """A key of wespeaker as 3D-Speaker has it: a block's convolutions in one list."""
    if not re.match(r"layer[34]\.", key):
        return key
    key = re.sub(r"\.(conv|bn)s\.(\d+)\.", lambda match: f".{match[1]}s.{int(match[2]) + 1}.", key)
    return re.sub(r"\.(conv|bn)2_1\.", r".\1s.0.", key)


def _absorb_biases(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the biases before the normalisations of the fusions: those take a mean less each bias instead."""
    weights = dict(state_dict)
    for key in state_dict:
        match = re.fullmatch(r"(.*\.local_att)\.([03])\.bias", key)
        mean = match and f"{match[1]}.{int(match[2]) + 1}.running_mean"
        if mean in weights and weights[mean].shape == weights[key].shape:
            weights[mean] = weights[mean] - weights.pop(key)
    return weights
