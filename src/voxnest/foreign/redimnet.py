"""Translate official ReDimNet checkpoints: their constructor arguments and state-dict keys to ours.

Facts about the foreign layout (`ReDimNetWrap` of IDRnD/ReDimNet, also carried by wespeaker) live here and, for the
second generation, in `redimnet2_official`. It keeps 2-D maps as `[batch, channels, bins, frames]`, ours are
`[batch, frames, bins, channels]`: kernels change their axes, pointwise convolutions become linear layers.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from voxnest.errors import ConfigError, one_of
from voxnest.foreign.translation import ENDING, apply_renames, load_weights, squeeze_axes
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.redimnet import ReDimNet, ReDimNetConfig, build

FRONTENDS = {
    "pt": "mel",
    "pt_mel": "mel",
    "tf": "tf_mel",
    "tf_mel": "tf_mel",
    "tf_spec": "tf_spectrogram",
    "fbank": "fbank",
}
"""Our names of `feat_type`."""

_SPEC_PARAMS = {
    "sample_rate": "sample_rate",
    "n_fft": "n_fft",
    "win_length": "window_length",
    "hop_length": "hop_length",
    "f_min": "f_min",
    "f_max": "f_max",
    "norm_signal": "normalize_signal",
    "window": "window",
    "pool_freqs": "pool",
    "eps": "eps",
}

_SPEC_AUGMENT = {
    "freq_mask_width": "frequency_width",
    "time_mask_width": "time_width",
    "freq_start_bin": "first_bin",
    "num_apply_spec_aug": "times",
}

_SETTINGS = {
    "F": "bins",
    "C": "channels",
    "block_1d_type": "block_1d",
    "block_2d_type": "block_2d",
    "group_divisor": "group_divisor",
    "out_channels": "out_channels",
    "offset_fm_weights": "previous_maps",
    "feat_agg_dropout": "aggregation_dropout",
    "hop_length": "hop_length",
    "pooling_func": "pooling",
    "global_context_att": "global_context",
    "emb_bn": "out_norm",
}

# What no embedding depends on: all of them belong to the class head, or change what else is returned.
_WITHOUT_EFFECT = (
    "num_classes",
    "class_dropout",
    "head_activation",
    "return_all_outputs",
    "is_subnet",
    "tf_optimized_arch",
)

# In order; each rule is tried on what the ones before have made of the key.
_RENAMES = [
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


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "redimnet"
) -> SpeakerEncoder:
    """Build the encoder that an official checkpoint holds, in eval mode.

    A class head (`num_classes`) is dropped: the encoder gives the embedding that the head would have taken.

    Args:
        config: constructor arguments of the official class (`model_config` of a released file).
        state_dict: its weights; constant buffers of its front end (`spec.*`) may be there or not.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    encoder = build(name, translate_settings(config))
    blocks = [stage[1] for stage in encoder.config["stages"]]
    load_official(encoder, name, config, state_dict, lambda key: translate_key(key, blocks))
    return encoder.eval()


def backbone_from_official(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> ReDimNet:
    """As `from_official` for the backbone class alone (`ReDimNet` there): keys without "backbone.", also sub-networks.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: as `from_official`.
    """
    # The bare class has defaults of its own.
    defaults = {
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
    settings = ReDimNetConfig(**translate_settings({**defaults, **config}))
    backbone = ReDimNet(settings)
    blocks = [stage[1] for stage in settings.stages]

    def translate(key: str) -> str:
        return translate_key("backbone." + key, blocks).removeprefix("backbone.")

    load_official(backbone, "redimnet backbone", config, state_dict, translate)
    return backbone.eval()


def load_official(
    module: nn.Module,
    name: str,
    config: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    translate: Callable[[str], str],
) -> None:
    """Put the weights of an official ReDimNet or ReDimNet2 of this `config` into ours; see `load_weights`.

    Constant buffers of the front end are left out, and the class head if there is one. Kernels of the layout for
    TensorFlow (`tf_optimized_arch`) are read as (frames, bins): no class for it was published.
    """
    left_out = ("spec.torchfbank.", "spec.spectrogram.") + ("cls_head.",) * bool(config.get("num_classes"))
    time_first = bool(config.get("tf_optimized_arch"))

    def adapt(value: Tensor, target: Tensor, key: str) -> Tensor:
        if value.ndim == 4 and key.endswith("weigh.weight"):
            return value.reshape(value.shape[1], value.shape[2])
        if value.ndim == 4 and time_first:
            value = value.swapdims(2, 3)
        if value.ndim == 4 and key.endswith("patch.linear.weight"):
            return value[..., 0].transpose(1, 2).flatten(1)
        if value.ndim == target.ndim == 4:
            return value.transpose(2, 3)
        return squeeze_axes(value, target, key)

    weights = {key: value for key, value in state_dict.items() if not key.startswith(left_out)}
    load_weights(module, name, weights, translate, adapt)


def translate_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Constructor arguments of the official class as fields of `ReDimNetConfig`.

    Raises:
        ConfigError: for an argument that the class does not have, or with which it cannot be built.
    """
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if key in _SETTINGS:
            settings[_SETTINGS[key]] = value
        elif key == "stages_setup":
            # The fourth entry, kernel sizes, is read by no block of the official class.
            settings["stages"] = [(stride, count, exp, red) for stride, count, exp, _, red in value]
        elif key == "embed_dim":
            settings["dims"] = [value]
        elif key == "feat_type":
            settings["frontend"] = translate_frontend(value)
        elif key == "spec_params":
            continue
        elif key not in _WITHOUT_EFFECT and value:
            raise ConfigError(key, repr(value), one_of(value, _SETTINGS))
    if "spec_params" in config:
        put_spec_params(settings, config["spec_params"])
    return settings


def translate_frontend(feat_type: str) -> str:
    """Our name of a `feat_type`.

    Raises:
        ConfigError: for one that the official classes cannot build either.
    """
    if feat_type not in FRONTENDS:
        raise ConfigError("feat_type", repr(feat_type), one_of(feat_type, FRONTENDS))
    return FRONTENDS[feat_type]


def put_spec_params(settings: dict[str, Any], params: Mapping[str, Any]) -> None:
    """Add the arguments of the official front ends (`spec_params`) to settings of ours.

    Raises:
        ConfigError: for an argument that they do not have.
    """
    options: dict[str, Any] = {}
    masking: dict[str, Any] = {}
    for key, value in params.items():
        if key == "hop_length":
            settings["hop_length"] = value
        elif key in _SPEC_PARAMS:
            options[_SPEC_PARAMS[key]] = value
        elif key in _SPEC_AUGMENT:
            masking[_SPEC_AUGMENT[key]] = value
        elif key == "do_preemph":
            options["pre_emphasis"] = 0.97 if value else None
        elif key == "spec_norm":
            if value not in ("mn", "mvn", "bn"):
                raise ConfigError("spec_params: spec_norm", repr(value), "'mn', 'mvn' or 'bn'")
            options["normalization"] = value
        elif key not in ("do_spec_aug", "n_mels", "mode", "fft_mode", "normalize_spectrogram", "normalize_signal"):
            raise ConfigError(f"spec_params: {key}", repr(value), "an argument of the official front end")
        elif key == "mode" and value != "fft":
            raise ConfigError("spec_params: mode", repr(value), "'fft' (for mel features, feat_type 'tf')")
    if params.get("do_spec_aug"):
        options["spec_augment"] = masking
    settings["frontend_options"] = options


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
    return rename(key)


def rename(key: str) -> str:
    """Our names of the modules that both generations share, in a key whose stage is ours already."""
    return apply_renames(key, _RENAMES)
