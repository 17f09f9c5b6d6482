"""The official ReDimNet (`ReDimNetWrap` of IDRnD/ReDimNet, also carried by wespeaker).

It keeps 2-D maps as `[batch, channels, bins, frames]`, ours are `[batch, frames, bins, channels]`: kernels change their
axes, pointwise convolutions become linear layers. A class head (`num_classes`) is dropped: the encoder gives the
embedding that the head would have taken. The second generation shares much of this: see `voxnest.foreign.redimnet2`.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from torch import Tensor, nn

from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, Rule, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import ENDING, Renames, apply_renames, load_weights, squeeze_axes
from voxnest.models.redimnet import FAMILY, ReDimNet, ReDimNetConfig

_FRONTENDS = {
    "pt": "mel",
    "pt_mel": "mel",
    "tf": "tf_mel",
    "tf_mel": "tf_mel",
    "tf_spec": "tf_spectrogram",
    "fbank": "fbank",
}
"""Our names of `feat_type`."""

_SPEC_AUGMENT = {
    "freq_mask_width": "frequency_width",
    "time_mask_width": "time_width",
    "freq_start_bin": "first_bin",
    "num_apply_spec_aug": "times",
}


def _spec_augment(value: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    masking = {_SPEC_AUGMENT[key]: params[key] for key in params if key in _SPEC_AUGMENT}
    return {"spec_augment": masking} if value else {}


def _stages(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    # The fourth entry, kernel sizes, is read by no block of the official class.
    return {"stages": [(stride, count, expansion, reduction) for stride, count, expansion, _, reduction in value]}


_SPEC_PARAMS = Arguments(
    {
        **{key: key for key in ("sample_rate", "n_fft", "hop_length", "f_min", "f_max", "window", "eps")},
        "win_length": "window_length",
        "norm_signal": "normalize_signal",
        "pool_freqs": "pool",
        "do_preemph": lambda value, _: {"pre_emphasis": 0.97 if value else None},
        "spec_norm": ("normalization", {kind: kind for kind in ("mn", "mvn", "bn")}),
        "do_spec_aug": _spec_augment,
    },
    only={"mode": ["fft"]},  # for mel features, feat_type "tf"
    ignored=[*_SPEC_AUGMENT, "n_mels", "fft_mode", "normalize_spectrogram", "normalize_signal"],
    where="spec_params: ",
)


def _frontend(params: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    options = _SPEC_PARAMS.translate(params)
    hop = {"hop_length": options.pop("hop_length")} if "hop_length" in options else {}
    return {"frontend_options": options, **hop}


RULES: dict[str, Rule] = {
    "F": "bins",
    "C": "channels",
    "block_1d_type": "block_1d",
    "block_2d_type": "block_2d",
    "group_divisor": "group_divisor",
    "out_channels": "out_channels",
    "offset_fm_weights": "previous_maps",
    "hop_length": "hop_length",
    "pooling_func": "pooling",
    "global_context_att": "global_context",
    "emb_bn": "out_norm",
    "embed_dim": dims,
    "feat_type": ("frontend", _FRONTENDS),
    "spec_params": _frontend,
}
"""What both generations have."""

# They belong to the class head, or change what else is returned.
IGNORED = ("num_classes", "head_activation", "return_all_outputs", "is_subnet")

ARGUMENTS = Arguments(
    {
        **RULES,
        "feat_agg_dropout": "aggregation_dropout",
        "stages_setup": _stages,
    },
    ignored=(*IGNORED, "class_dropout", "tf_optimized_arch"),
    off_is_absent=True,
)
"""Of the official class; what they become are fields of `ReDimNetConfig`."""

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES: Renames = [
    (r"^spec\.spec_norm\.", "frontend.batch_norm."),
    (r"^backbone\.stem\.0\.w$", "backbone.stem.weigh.weight"),
    (r"^backbone\.stem\.2\.", "backbone.stem.conv."),
    (r"^backbone\.stem\.3\.", "backbone.stem_norm."),
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
    *ENDING,
]

_BLOCK = re.compile(r"^backbone\.stage(\d+)\.(\d+)\.(.*)$")


def state(description: Description, _: Settings) -> dict[str, Tensor]:
    """The weights of an official ReDimNet or ReDimNet2 without constants of the front end, and without a class head.

    Kernels of the layout for TensorFlow (`tf_optimized_arch`) are read as (frames, bins): its class is not published.
    """
    left_out = ("spec.torchfbank.", "spec.spectrogram.") + ("cls_head.",) * bool(description.config.get("num_classes"))
    weights = {key: value for key, value in description.state.items() if not key.startswith(left_out)}
    if description.config.get("tf_optimized_arch"):
        turned = {k: v.swapdims(2, 3) for k, v in weights.items() if v.ndim == 4 and not k.endswith(".w")}
        weights |= turned
    return weights


def adapt(value: Tensor, target: Tensor, key: str) -> Tensor:
    """See `voxnest.foreign.weights.Adapt`."""
    if value.ndim == 4 and key.endswith("weigh.weight"):
        return value.reshape(value.shape[1], value.shape[2])
    if value.ndim == 4 and key.endswith("patch.linear.weight"):
        return value[..., 0].transpose(1, 2).flatten(1)
    if value.ndim == target.ndim == 4:
        return value.transpose(2, 3)
    return squeeze_axes(value, target, key)


def _key(key: str, settings: Settings) -> str:
    match = _BLOCK.match(key)
    if match and int(match[2]) > 2:
        # A stage is one flat sequence there: weights, view, patch, 2-D blocks, maybe squeeze, view, 1-D block.
        stage, position, rest = int(match[1]), int(match[2]) - 3, match[3]
        if rest.startswith("conv_block."):
            key = f"backbone.stages.{stage}.blocks.{position}.{rest.removeprefix('conv_block.')}"
        elif position == settings["stages"][stage][1] and rest[0].isdigit():
            key = f"backbone.stages.{stage}.squeeze.{rest}"
        else:
            key = f"backbone.stages.{stage}.{rest}"
    return rename(key)


def rename(key: str) -> str:
    """Our names of the modules that both generations share, in a key whose stage is ours already."""
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, lambda its: ARGUMENTS.translate(its.config), _key, state, adapt)

# The bare class has defaults of its own.
_BACKBONE_DEFAULTS = {
    "C": 12,
    "group_divisor": 1,
    "out_channels": 512,
    "stages_setup": [
        (1, 2, 1, [(3, 3)], None),
        (2, 3, 1, [(3, 3)], None),
        (3, 4, 1, [(3, 3)], 8),
        (2, 5, 1, [(3, 3)], 8),
        (1, 5, 1, [(7, 1)], 8),
        (2, 3, 1, [(3, 3)], 8),
    ],
}


def make_backbone(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> ReDimNet:
    """The backbone class alone (`ReDimNet` there): keys without "backbone.", also sub-networks. In eval mode.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings = ReDimNetConfig(**ARGUMENTS.translate({**_BACKBONE_DEFAULTS, **config}))
    backbone = ReDimNet(settings)
    load_backbone(backbone, asdict(settings), TRANSLATION, Description("redimnet", config, state_dict))
    return backbone


def load_backbone(backbone: nn.Module, settings: Settings, translation: Translation, its: Description) -> None:
    """Put the weights of an official backbone class into ours, and that into eval mode."""
    whole = {f"backbone.{key}": value for key, value in its.state.items()}

    def translate(key: str) -> str:
        return translation.key(key, settings).removeprefix("backbone.")

    state = translation.state(replace(its, state=whole), settings)
    load_weights(backbone, f"{its.architecture} backbone", state, translate, translation.adapt)
    backbone.eval()
