"""Translate official ReDimNet checkpoints: their constructor arguments and state-dict keys to ours.

Facts about the foreign layout (`ReDimNetWrap` of IDRnD/ReDimNet, also carried by wespeaker) live here only. It keeps
2-D maps as `[batch, channels, bins, frames]`, ours are `[batch, frames, bins, channels]`: kernels change their axes,
pointwise convolutions become linear layers.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.redimnet import build

_SETTINGS = {
    "F": "bins",
    "C": "channels",
    "block_1d_type": "block_1d",
    "block_2d_type": "block_2d",
    "group_divisor": "group_divisor",
    "out_channels": "out_channels",
    "feat_agg_dropout": "aggregation_dropout",
    "hop_length": "hop_length",
    "pooling_func": "pooling",
    "global_context_att": "global_context",
    "emb_bn": "out_norm",
}

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES = [
    (r"^backbone\.stem\.0\.", "backbone.stem."),
    (r"^backbone\.stem\.1\.", "backbone.stem_norm."),
    (r"^backbone\.stage(\d+)\.0\.w$", r"backbone.stages.\1.weigh.weight"),
    (r"^backbone\.stage(\d+)\.2\.", r"backbone.stages.\1.patch.linear."),
    (r"^backbone\.fin_wght1d\.w$", "backbone.weigh.weight"),
    (r"^backbone\.mfa\.", "backbone.mix."),
    (r"\.red_dim_conv\.", ".context.reduce."),
    (r"\.exp_dim_conv\.", ".context.expand."),
    (r"\.tcm\.", ".context.context."),
    (r"\.dwconvs\.", ".convs."),
    (r"\.pwconv1\.", ".pointwise."),
    (r"\.conv([12])pw\.", r".pointwise\1."),
    (r"\.bn([12])\.", r".norm\1."),
    (r"\.exitation\.", ".excite."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.attention\.out_proj\.", ".attention.out."),
    (r"\.final_layer_norm\.", ".final_norm."),
    (r"\.layer_norm\.", ".norm."),
    (r"\.feed_forward\.intermediate_dense\.", ".expand."),
    (r"\.feed_forward\.output_dense\.", ".contract."),
    (r"^pool\.linear1\.", "pooling.attend."),
    (r"^pool\.linear2\.", "pooling.score."),
    (r"^bn\.", "head.norm."),
    (r"^bn2\.", "head.out_norm."),
    (r"^linear\.", "head.linear."),
]

_BLOCK = re.compile(r"^backbone\.stage(\d+)\.(\d+)\.(.*)$")


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "redimnet"
) -> SpeakerEncoder:
    """Build the encoder that an official checkpoint holds, in eval mode.

    Args:
        config: constructor arguments of the official class (`model_config` of a released file).
        state_dict: its weights; constant buffers of its front end (`spec.*`) may be there or not.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings = translate_settings(config)
    encoder = build(name, settings)
    ours = encoder.state_dict()
    blocks = [stage[1] for stage in encoder.config["stages"]]
    translated: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key.startswith("spec."):
            continue
        new = translate_key(key, blocks)
        if new not in ours:
            raise CheckpointError(
                name, f"unexpected key {key!r}", "the keys of the official model of this configuration"
            )
        translated[new] = _reshape(value, ours[new].shape, new)
        if translated[new].shape != ours[new].shape:
            raise CheckpointError(
                name, f"{key!r} of shape {list(value.shape)}", f"one that fits {list(ours[new].shape)}"
            )
    missing = sorted(set(ours) - set(translated))
    if missing:
        raise CheckpointError(name, f"{len(missing)} missing keys: " + ", ".join(missing[:8]), "a complete state dict")
    encoder.load_state_dict(translated)
    return encoder.eval()


def translate_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of the official class as fields of `ReDimNetConfig`."""
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if key in _SETTINGS:
            settings[_SETTINGS[key]] = value
        elif key == "stages_setup":
            # The fourth entry, kernel sizes, is read by no block of the official class.
            settings["stages"] = [(stride, count, exp, red) for stride, count, exp, _, red in value]
        elif key == "embed_dim":
            settings["dims"] = [value]
        elif key == "feat_type" and value in ("pt", "pt_mel"):
            continue
        elif key not in ("num_classes", "class_dropout", "head_activation", "spec_params") and value:
            raise ConfigError(key, repr(value), "one of " + ", ".join(_SETTINGS))
    return settings


def translate_key(key: str, blocks: list[int]) -> str:
    """Our name of an official state-dict key; `blocks` is the number of 2-D blocks of each stage."""
    match = _BLOCK.match(key)
    if match and int(match[2]) > 2:
        # A stage is one flat sequence there: weights, view, patch, 2-D blocks, maybe squeeze, view, 1-D block.
        stage, position, rest = int(match[1]), int(match[2]) - 3, match[3]
        if rest.startswith("conv_block."):
            key = f"backbone.stages.{stage}.blocks.{position}.{rest.removeprefix('conv_block.')}"
        elif position == blocks[stage] and rest[0].isdigit():
            key = f"backbone.stages.{stage}.squeeze.{rest}"
        else:
            key = f"backbone.stages.{stage}.{rest}"
    for pattern, replacement in _RENAMES:
        key = re.sub(pattern, replacement, key)
    return key


def _reshape(value: Tensor, shape: tuple[int, ...], key: str) -> Tensor:
    """Bring a foreign weight into our axes; what cannot fit is left for the caller to report."""
    if key.endswith("weigh.weight"):
        return value.reshape(value.shape[1], value.shape[2])
    if key.endswith("patch.linear.weight"):
        return value[..., 0].transpose(1, 2).flatten(1)
    if len(shape) == 4 and value.ndim == 4:
        return value.transpose(2, 3)
    if len(shape) == 4 and value.ndim == 3:
        return value.unsqueeze(-1)
    if len(shape) == 2 and value.ndim > 2:
        return value.flatten(1)
    return value
