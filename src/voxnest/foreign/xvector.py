"""wespeaker's `XVEC`: its arguments and keys as ours."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import ConfigError
from voxnest.foreign.translation import ENDING, apply_renames, load_weights
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.xvector import build

_SETTINGS = {"feat_dim": "bins", "hid_dim": "channels", "stats_dim": "out_channels", "pooling_func": "pooling"}

_RENAMES = [
    (r"^frame_(\d)\.conv_1d\.", r"backbone.layers.\1.conv."),
    (r"^frame_(\d)\.bn\.", r"backbone.layers.\1.norm."),
    (r"^seg_1\.", "pooling.linear."),
    (r"^seg_bn_1\.", "pooling.norm."),
    (r"^seg_2\.", "head.linear."),
]


def from_official(config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "xvector") -> SpeakerEncoder:
    """Build the encoder that a checkpoint of wespeaker's `XVEC` holds, in eval mode; embedding "b", as used there.

    Args:
        config: `model_args`.
        state_dict: its weights, without the class head.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that the class does not have.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings: dict[str, Any] = {"bins": 40, "dims": [config.get("embed_dim", 512)]}  # 40: the class's own default
    for key, value in config.items():
        if key in _SETTINGS:
            settings[_SETTINGS[key]] = value
        elif key != "embed_dim":
            raise ConfigError(key, repr(value), "one of embed_dim, " + ", ".join(_SETTINGS))
    encoder = build(name, settings)
    load_weights(encoder, name, state_dict, _translate)
    return encoder.eval()


def _translate(key: str) -> str:
    if key.startswith("pool."):
        return apply_renames(key, ENDING).replace("pooling.", "pooling.pooling.", 1)
    key = apply_renames(key, _RENAMES)
    return re.sub(r"^(backbone\.layers\.)(\d)", lambda match: f"{match[1]}{int(match[2]) - 1}", key)
