"""The official ReDimNet2 (`ReDimNet2Wrap` of PalabraAI/redimnet2).

The layout is that of the first generation (see `voxnest.foreign.redimnet`), but for the order of layers in a stage,
which depends on the configuration.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from voxnest.foreign.description import Description
from voxnest.foreign.redimnet import IGNORED, RULES, adapt, load_backbone, rename, state
from voxnest.foreign.settings import Arguments
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import Renames
from voxnest.models.redimnet2 import FAMILY, ReDimNet2, ReDimNet2Config

_ATTENTION = Arguments(
    {
        "act": "activation",
        "act_do": "activation_dropout",
        "att_do": "attention_dropout",
        "hid_do": "hidden_dropout",
        "ln_eps": "norm_eps",
        "qk_norm": "qk_norm",
        "rope_base": "rope_base",
    },
    ignored=["rope_max_seq_len"],  # the size of a cache there
    where="att_dos: ",
)


def _norm_groups(value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    groups = config.get("C", ReDimNet2Config.channels) if value is True else value
    return {"norm_groups": max(0, groups or 0)}


ARGUMENTS = Arguments(
    {
        **RULES,
        "stages_setup": "stages",
        "compress_tconvs": "grouped_patches",
        "use_freq_pos_enc": "frequency_encoding",
        "dual_agg": "dual",
        "return_2d_output": "mix_2d",
        "att_dos": lambda value, _: {"attention": _ATTENTION.translate(value or {})},
        "agg_gnorm": _norm_groups,
        "pad_right_samples": lambda value, _: {"pad_right": value or 0},
        "before_pool_offset": lambda value, _: {"skip_frames": value or 0},
    },
    # Of `causal` the class makes "-causal" names of block types, which no published code knows.
    only={"causal": ["none", False, None], "spec_in_channels": [1], "fm_weigthing_type": ["NC"]},
    ignored=(*IGNORED, "feat_agg_dropout"),
    off_is_absent=True,
)
"""Of the official class; what they become are fields of `ReDimNet2Config`."""

_STAGE = re.compile(r"^backbone\.stage(\d+)(?:_(pre|1d|up_2d|up_1d))?\.(.*)$")


def _key(key: str, settings: Settings) -> str:
    match = _STAGE.match(key)
    if match:
        stage = f"backbone.stages.{match[1]}."
        branch, rest = match[2], match[3]
        position, _, inner = rest.partition(".")
        index = int(match[1])
        dual = settings["dual"] and index < len(settings["stages"]) and settings["stages"][index][4] is not None
        if dual != bool(branch) or (branch != "1d" and not (position.isdigit() and inner)):
            return key
        if branch == "up_2d":
            key = stage + "upsample_2d.norm." + inner
        elif branch == "up_1d":
            key = stage + "upsample.norm." + inner
        else:
            if branch != "1d":
                rest = _translate_position(int(position), inner, settings, index)
            key = stage + _translate_block_1d(rest, settings)
    key = re.sub(r"^backbone\.stem_gnorm\.", "backbone.stem_group_norm.", key)
    key = re.sub(r"^backbone\.head\.", "backbone.mix.", key)
    return rename(key)


def _translate_position(position: int, rest: str, settings: Settings, stage: int) -> str:
    """A stage is one flat sequence: weights, view, (encoding), patch, 2-D blocks, (squeeze), (1-D block), (norm)."""
    if position == 0:
        return "weigh.weight"
    if rest.startswith("freq_embedder."):
        return "position.weight"
    first_block = 4 if settings["frequency_encoding"] else 3
    if position == first_block - 1:
        return "patch." + rest
    if rest.startswith("conv_block."):
        return f"blocks.{position - first_block}.{rest.removeprefix('conv_block.')}"
    if stage >= len(settings["stages"]):
        return rest
    _, blocks, expansion, *_ = settings["stages"][stage]
    if expansion != 1 and position == first_block + blocks:
        return "squeeze." + rest
    return "upsample.norm." + rest if rest in ("weight", "bias") else rest


_BLOCK_1D: Renames = [
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


def _translate_block_1d(rest: str, settings: Settings) -> str:
    for pattern, replacement in _BLOCK_1D:
        rest, count = re.subn(pattern, replacement, rest)
        if count:
            break
    if settings["block_1d"].endswith("att-rope") and "+" not in settings["block_1d"]:
        # The transformer layer alone is no sequence there.
        rest = re.sub(r"^context\.context\.", "context.context.0.", rest)
    return rest


TRANSLATION = Translation(FAMILY, lambda its: ARGUMENTS.translate(its.config), _key, state, adapt)


def make_backbone(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> ReDimNet2:
    """The backbone class alone (`ReDimNet2` there): keys without "backbone.", also sub-networks. In eval mode.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings = ReDimNet2Config(**ARGUMENTS.translate(config))
    backbone = ReDimNet2(settings)
    load_backbone(backbone, asdict(settings), TRANSLATION, Description("redimnet2", config, state_dict))
    return backbone
