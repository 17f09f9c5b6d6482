"""Translate CAM++ checkpoints of wespeaker and 3D-Speaker: their arguments and state-dict keys to ours.

Facts about the foreign layouts live here: `wespeaker.models.campplus.CAMPPlus` and
`speakerlab.models.campplus.DTDNN.CAMPPlus`, whose weights have the same names.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import ConfigError, one_of
from voxnest.foreign.translation import ENDING, Renames, apply_renames, load_weights
from voxnest.models.campplus import FRONTEND_3DSPEAKER, build
from voxnest.models.encoder import SpeakerEncoder

_SETTINGS = {
    "feat_dim": "bins",
    "pooling_func": "pooling",
    "init_channels": "channels",
    "growth_rate": "growth",
    "bn_size": "bottleneck",
}

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES: Renames = [
    (r"^xvector\.dense\.linear\.", "head.linear."),
    (r"^xvector\.dense\.nonlinear\.batchnorm\.", "head.out_norm."),
    (r"^head\.layer(\d)\.(\d)\.", lambda match: f"front.blocks.{2 * int(match[1]) + int(match[2]) - 2}."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"^head\.conv1\.", "front.stem."),
    (r"^head\.conv2\.", "front.last."),
    (r"^xvector\.tdnn\.linear\.", "stem."),
    (r"^xvector\.tdnn\.nonlinear\.batchnorm\.", "stem_norm."),
    (r"^xvector\.out_nonlinear\.batchnorm\.", "norm."),
    (r"^xvector\.(block|transit)(\d)\.", lambda match: f"blocks.{int(match[2]) - 1}."),
    (r"\.tdnnd(\d+)\.", lambda match: f".layers.{int(match[1]) - 1}."),
    (r"\.nonlinear(\d?)\.batchnorm\.", r".norm\1."),
    (r"(\.layers\.\d+)\.linear1\.", r"\1.reduce."),
    (r"\.cam_layer\.linear_local\.", ".conv."),
    (r"\.cam_layer\.linear1\.", ".mask.squeeze."),
    (r"\.cam_layer\.linear2\.", ".mask.excite."),
    (r"^(blocks\.\d+)\.linear\.", r"\1.transition."),
    (r"^(front|stem|stem_norm|blocks|norm)\.", r"backbone.\1."),
]


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "campplus"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of wespeaker's `CAMPPlus` holds, in eval mode.

    Arguments of 3D-Speaker (`embedding_size` among them) mean a model of that: see `from_3dspeaker`.

    Args:
        config: arguments of the class.
        state_dict: its weights.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    if "embedding_size" in config:
        return from_3dspeaker(config, state_dict, name)
    settings = _translate_settings(config, "embed_dim", _SETTINGS)
    return _load(settings, state_dict, name)


def from_3dspeaker(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "campplus"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of 3D-Speaker's `CAMPPlus` holds, in eval mode, with its own filter bank.

    Args, errors: see `from_official`.
    """
    known = {key: value for key, value in _SETTINGS.items() if key != "pooling_func"}
    settings = _translate_settings(config, "embedding_size", known)
    settings |= {"frontend_options": FRONTEND_3DSPEAKER, "variance_floor": 0.0}
    return _load(settings, state_dict, name)


def _translate_settings(config: Mapping[str, Any], embedding: str, known: Mapping[str, str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if key in known:
            settings[known[key]] = value
        elif key == embedding:
            settings["dims"] = (value,)
        elif key == "config_str":
            if value != "batchnorm-relu":
                raise ConfigError(key, repr(value), "'batchnorm-relu'")
        elif key != "memory_efficient":  # saves memory in training, at the cost of time
            raise ConfigError(key, repr(value), one_of(value, (embedding, *known)))
    return settings


def _load(settings: dict[str, Any], state_dict: Mapping[str, Tensor], name: str) -> SpeakerEncoder:
    encoder = build(name, settings)
    load_weights(encoder, name, state_dict, translate_key)
    return encoder.eval()


def translate_key(key: str) -> str:
    """Our name of a key of the reference."""
    if key.startswith(("pool.", "xvector.stats.")):  # wespeaker's class holds its pooling twice
        return apply_renames(key.replace("xvector.stats.", "pool."), ENDING)
    return apply_renames(key, _RENAMES)
