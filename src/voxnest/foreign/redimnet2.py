"""Translate official ReDimNet2 checkpoints (`ReDimNet2Wrap` of PalabraAI/redimnet2) to ours.

The layout is that of the first generation (see `redimnet_official`), but for the order of layers in a stage, which
depends on the configuration.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import ConfigError, one_of
from voxnest.foreign.redimnet import load_official, put_spec_params, rename, translate_frontend
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.redimnet2 import ReDimNet2, ReDimNet2Config, build

_SETTINGS = {
    "F": "bins",
    "C": "channels",
    "stages_setup": "stages",
    "block_1d_type": "block_1d",
    "block_2d_type": "block_2d",
    "group_divisor": "group_divisor",
    "compress_tconvs": "grouped_patches",
    "use_freq_pos_enc": "frequency_encoding",
    "dual_agg": "dual",
    "out_channels": "out_channels",
    "return_2d_output": "mix_2d",
    "offset_fm_weights": "previous_maps",
    "hop_length": "hop_length",
    "pooling_func": "pooling",
    "global_context_att": "global_context",
    "emb_bn": "out_norm",
}

_ATTENTION = {
    "act": "activation",
    "act_do": "activation_dropout",
    "att_do": "attention_dropout",
    "hid_do": "hidden_dropout",
    "ln_eps": "norm_eps",
    "qk_norm": "qk_norm",
    "rope_base": "rope_base",
}

# Arguments that the official class takes and does not use, or that change only what else it returns.
_WITHOUT_EFFECT = ("num_classes", "feat_agg_dropout", "head_activation", "return_all_outputs", "is_subnet")

# Arguments with a single value that the official class can be built with.
_FIXED = {"spec_in_channels": 1, "fm_weigthing_type": "NC"}

_STAGE = re.compile(r"^backbone\.stage(\d+)(?:_(pre|1d|up_2d|up_1d))?\.(.*)$")


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "redimnet2"
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
    encoder, layout = build(name, settings), ReDimNet2Config(**settings)
    load_official(encoder, name, config, state_dict, lambda key: translate_key(key, layout))
    return encoder.eval()


def backbone_from_official(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> ReDimNet2:
    """As `from_official` for the backbone class alone (`ReDimNet2` there): keys without "backbone.", also sub-networks.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: as `from_official`.
    """
    layout = ReDimNet2Config(**translate_settings(config))
    backbone = ReDimNet2(layout)

    def translate(key: str) -> str:
        return translate_key("backbone." + key, layout).removeprefix("backbone.")

    load_official(backbone, "redimnet2 backbone", config, state_dict, translate)
    return backbone.eval()


def translate_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of the official class as fields of `ReDimNet2Config`.

    Raises:
        ConfigError: for an argument that the class does not have, or with which it cannot be built.
    """
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if key in _SETTINGS:
            settings[_SETTINGS[key]] = value
        elif key == "embed_dim":
            settings["dims"] = [value]
        elif key == "feat_type":
            settings["frontend"] = translate_frontend(value)
        elif key == "att_dos":
            settings["attention"] = _translate_attention(value or {})
        elif key in ("pad_right_samples", "before_pool_offset"):
            settings["pad_right" if key == "pad_right_samples" else "skip_frames"] = value or 0
        elif key == "causal":
            # The class makes "-causal" names of block types, which no published code knows.
            if value not in ("none", False, None):
                raise ConfigError(key, repr(value), "'none' (the official code has no causal blocks)")
        elif key == "agg_gnorm":
            groups = config.get("C", ReDimNet2Config.channels) if value is True else value
            settings["norm_groups"] = max(0, groups or 0)
        elif key == "spec_params":
            put_spec_params(settings, value)
        elif key in _FIXED:
            if value != _FIXED[key]:
                raise ConfigError(key, repr(value), f"{_FIXED[key]!r} (the official class has no other)")
        elif key not in _WITHOUT_EFFECT and value:
            raise ConfigError(key, repr(value), one_of(value, _SETTINGS))
    return settings


def _translate_attention(options: Mapping[str, Any]) -> dict[str, Any]:
    attention = {}
    for key, value in options.items():
        if key in _ATTENTION:
            attention[_ATTENTION[key]] = value
        elif key != "rope_max_seq_len":  # the size of a cache there
            raise ConfigError(f"att_dos: {key}", repr(value), one_of(value, _ATTENTION))
    return attention


def translate_key(key: str, layout: ReDimNet2Config) -> str:
    """Our name of an official state-dict key of a model with the configuration `layout`."""
    match = _STAGE.match(key)
    if match:
        stage = f"backbone.stages.{match[1]}."
        branch, rest = match[2], match[3]
        position, _, inner = rest.partition(".")
        index = int(match[1])
        dual = layout.dual and index < len(layout.stages) and layout.stages[index][4] is not None
        if dual != bool(branch) or (branch != "1d" and not (position.isdigit() and inner)):
            return key
        if branch == "up_2d":
            key = stage + "upsample_2d.norm." + inner
        elif branch == "up_1d":
            key = stage + "upsample.norm." + inner
        else:
            if branch != "1d":
                rest = _translate_position(int(position), inner, layout, index)
            key = stage + _translate_block_1d(rest, layout)
    key = re.sub(r"^backbone\.stem_gnorm\.", "backbone.stem_group_norm.", key)
    key = re.sub(r"^backbone\.head\.", "backbone.mix.", key)
    return rename(key)


def _translate_position(position: int, rest: str, layout: ReDimNet2Config, stage: int) -> str:
    """A stage is one flat sequence: weights, view, (encoding), patch, 2-D blocks, (squeeze), (1-D block), (norm)."""
    if position == 0:
        return "weigh.weight"
    if rest.startswith("freq_embedder."):
        return "position.weight"
    first_block = 4 if layout.frequency_encoding else 3
    if position == first_block - 1:
        return "patch." + rest
    if rest.startswith("conv_block."):
        return f"blocks.{position - first_block}.{rest.removeprefix('conv_block.')}"
    if stage >= len(layout.stages):
        return rest
    _, blocks, expansion, *_ = layout.stages[stage]
    if expansion != 1 and position == first_block + blocks:
        return "squeeze." + rest
    return "upsample.norm." + rest if rest in ("weight", "bias") else rest


_BLOCK_1D = [
    (r"^channel_reduce\.", "context.reduce."),
    (r"^freq_reduce_weight$", "context.reduce_bins"),
    (r"^freq_reduce_bias$", "context.reduce_bias"),
    (r"^reduce_norm\.", "context.reduce_norm."),
    (r"^time_context_block\.", "context.context."),
    (r"^post_tcm_norm\.", "context.context_norm."),
    (r"^freq_expand_weight$", "context.expand_bins"),
    (r"^freq_expand_bias$", "context.expand_bias"),
    (r"^channel_expand\.", "context.expand."),
    (r"^expand_norm\.", "context.expand_norm."),
    (r"^red_dim_conv\.", "context.reduce."),
    (r"^exp_dim_conv\.", "context.expand."),
    (r"^tcm\.", "context.context."),
]


def _translate_block_1d(rest: str, layout: ReDimNet2Config) -> str:
    for pattern, replacement in _BLOCK_1D:
        rest, count = re.subn(pattern, replacement, rest)
        if count:
            break
    if layout.block_1d.endswith("att-rope") and "+" not in layout.block_1d:
        # The transformer layer alone is no sequence there.
        rest = re.sub(r"^context\.context\.", "context.context.0.", rest)
    return rest
