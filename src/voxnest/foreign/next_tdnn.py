"""The official NeXt-TDNN (dmlguq456/NeXt_TDNN_ASV): its arguments and keys as ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.foreign.translation import apply_renames, load_weights
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.next_tdnn import build

_RENAMES = [
    (r"^model\.stem\.0\.0\.", "backbone.stem."),
    (r"^model\.stem\.0\.1\.", "backbone.stem_norm."),
    (r"^model\.MFA\.0\.", "backbone.mix."),
    (r"^model\.MFA\.1\.", "backbone.norm."),
    (r"^model\.stages\.", "backbone.stages."),
    (r"\.projection_linear\.", ".conv.project."),
    (r"\.mscconv\.", ".conv.convs."),
    (r"\.pwconv_1stage\.", ".conv.mix."),
    (r"\.dwconv\.", ".conv."),
    (r"\.pwconv1\.", ".expand."),
    (r"\.grn\.gamma$", ".response.weight"),
    (r"\.grn\.beta$", ".response.bias"),
    (r"\.pwconv2\.", ".contract."),
    (r"^aggregat(?:e|ion)\.conv_1\.", "pooling.attend."),
    (r"^aggregat(?:e|ion)\.bn1\.", "pooling.norm."),
    (r"^aggregat(?:e|ion)\.conv_2\.", "pooling.score."),
    (r"^aggregat(?:e|ion)\.bn2\.", "head.norm."),
    (r"^aggregat(?:e|ion)\.fc\.", "head.linear."),
    (r"^aggregat(?:e|ion)\.bn3\.", "head.out_norm."),
]

_BLOCKS = {"TSConvNeXt": False, "TSConvNeXt_light": True}

# What no weight's place depends on: stochastic depth acts in training, the sizes inside the aggregation follow from C.
_WITHOUT_EFFECT = ("drop_path_rate", "channel_size", "intermediate_size")


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "next-tdnn"
) -> SpeakerEncoder:
    """Build the encoder that an official checkpoint holds, in eval mode.

    Args:
        config: the arguments `MODEL_CONFIG` and `AGGREGATION_CONFIG` of an official configuration file in one mapping,
            and `aggregation`, the module they are for.
        state_dict: weights of its `SpeakerNet` ("model.", "aggregate." or "aggregation."), with or without the prefix
            "speaker_net." that Lightning's files have; front end, losses and counters may be there or not.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    encoder = build(name, translate_settings(config))
    weights = {key.removeprefix("speaker_net."): value for key, value in state_dict.items()}
    weights = {key: value for key, value in weights.items() if key.startswith(("model.", "aggregat"))}
    if not weights:
        raise CheckpointError(name, f"no weights under 'model.' among {len(state_dict)} keys", "an official SpeakerNet")
    load_weights(encoder, name, weights, _translate_key)
    return encoder.eval()


def translate_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the official classes as fields of `NeXtTDNNConfig`.

    Raises:
        ConfigError: for an argument that they do not have, or that is not supported.
    """
    # The defaults of the official class.
    arguments = {"depths": [1, 1, 1], "dims": [256, 256, 256], "kernel_size": 7, "block": "TSConvNeXt_light", **config}
    settings: dict[str, Any] = {}
    for key, value in arguments.items():
        if key == "depths":
            settings["blocks"] = tuple(value)
        elif key == "dims":
            if len(set(value)) != 1 or len(value) != len(arguments["depths"]):
                raise ConfigError("dims", repr(value), "the same number for each of `depths`")
            settings["channels"] = value[0]
        elif key == "kernel_size":
            settings["kernel_sizes"] = (value,) if isinstance(value, int) else tuple(value)
        elif key == "block":
            if value not in _BLOCKS:
                raise ConfigError("block", repr(value), one_of(value, _BLOCKS))
            settings["light"] = _BLOCKS[value]
        elif key == "in_chans":
            settings["bins"] = value
        elif key == "embeding_size":
            settings["dims"] = (value,)
        elif key == "aggregation":
            if value != "vap_bn_tanh_fc_bn":
                raise ConfigError("aggregation", repr(value), "'vap_bn_tanh_fc_bn'")
        elif key not in _WITHOUT_EFFECT:
            raise ConfigError(key, repr(value), "an argument of the official NeXt-TDNN")
    return settings


def _translate_key(key: str) -> str:
    return apply_renames(key, _RENAMES)
