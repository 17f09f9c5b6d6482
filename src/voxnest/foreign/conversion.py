"""Turn the state dict of a reference implementation into an encoder.

The layouts of the architectures are known to `voxnest.models.*_official`; what wraps them is known here.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards import df_resnet, eres2net, resnet
from voxnest.zoo.registry import CARDS

# Architecture -> module with `from_official`, and the registry's name for one whose size is not known: its settings
# are all stored with it, so that any name of the family builds it again.
_ARCHITECTURES = {
    "redimnet": ("voxnest.foreign.redimnet", "redimnet-m"),
    "redimnet2": ("voxnest.foreign.redimnet2", "redimnet2-b0"),
    "next-tdnn": ("voxnest.foreign.next_tdnn", "next-tdnn-256-b3"),
    **{name: ("voxnest.foreign.ecapa", name) for name in ("ecapa-tdnn-512", "ecapa-tdnn-1024")},
    "xvector": ("voxnest.foreign.xvector", "xvector"),
    "campplus": ("voxnest.foreign.campplus", "campplus"),
    **{name: ("voxnest.foreign.eres2net", name) for name in eres2net.SIZES},
    **{name: ("voxnest.foreign.resnet", name) for name in resnet.SIZES},
    **{name: ("voxnest.foreign.df_resnet", name) for name in df_resnet.SIZES if name.startswith("gemini")},
}

_REDIMNET2_ONLY = {
    "causal",
    "spec_in_channels",
    "compress_tconvs",
    "return_2d_output",
    "use_freq_pos_enc",
    "fm_weigthing_type",
    "dual_agg",
    "agg_gnorm",
    "att_dos",
    "pad_right_samples",
    "before_pool_offset",
}


def convert(
    architecture: str, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], *, name: str | None = None
) -> SpeakerEncoder:
    """Build the encoder that a reference implementation's weights describe, in eval mode.

    Args:
        architecture: "redimnet", "redimnet2", "ecapa-tdnn-512", "resnet34", "gemini-dfresnet60", "next-tdnn", ...: an
            unknown one is an error that lists those there are.
        config: constructor arguments of the reference's class.
        state_dict: its weights; constant buffers of its front end (`spec.*`) may be there or not.
        name: what to call the encoder, a name of the registry.

    Raises:
        ConfigError: for an unknown architecture or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected (it lists them), or shapes differ.
    """
    if architecture not in _ARCHITECTURES:
        raise ConfigError("architecture", repr(architecture), one_of(architecture, _ARCHITECTURES, few=99))
    module, default = _ARCHITECTURES[architecture]
    encoder: SpeakerEncoder = import_module(module).from_official(config, state_dict, name or default)
    _flush_subnormals(encoder)
    return encoder


def _flush_subnormals(encoder: SpeakerEncoder) -> None:
    """Make weights below 1.2e-38 zero.

    Weight decay leaves channels that died with such weights (released ReDimNet2 files have them). No embedding shows
    the difference, but a CPU computes with them many times slower.
    """
    tiny = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for weight in encoder.parameters():
            weight[weight.abs() < tiny] = 0.0


def recognise(config: Mapping[str, Any]) -> str:
    """Which of the two official classes takes these constructor arguments (`model_config` of a released file)."""
    stages = config.get("stages_setup") or [[1]]
    strides_in_time = isinstance(stages[0][0], (list, tuple))
    return "redimnet2" if strides_in_time or _REDIMNET2_ONLY & set(config) else "redimnet"


def registry_name(architecture: str, size: str | None) -> str | None:
    """The registry's name of a size such as "b2", or None if it has none."""
    name = f"{architecture}-{size}".lower()
    return name if name in CARDS else None


def convert_mrl(checkpoint: Mapping[str, Any], source: object) -> SpeakerEncoder:
    """The encoder of a checkpoint of sappho192/redimnet-mrl (`model_state_dict`): a ReDimNet with a Matryoshka head.

    Its configuration file does not say what the backbone is (that came from a downloaded model), so the shapes of the
    weights do. Its training always leaves the analysis hop at 160 samples.

    Raises:
        CheckpointError: if the weights are not such a model's.
    """
    weights = {_official_key(key): value for key, value in checkpoint["model_state_dict"].items()}
    settings = checkpoint.get("config") or {}
    model, advanced = settings.get("model") or {}, settings.get("advanced") or {}
    pretrained = advanced.get("use_pretrained", True)
    try:
        config = _infer(weights)
    except (KeyError, IndexError) as error:
        raise CheckpointError(source, f"no weight {error}", "a ReDimNet with a Matryoshka head") from error
    if not pretrained and model.get("block_2d_type"):
        config["block_2d_type"] = model["block_2d_type"]  # of two activations the shapes do not tell which
    size = advanced.get("model_name", "b2") if pretrained else model.get("name")
    encoder = convert("redimnet", config, weights, name=registry_name("redimnet", size))
    full = encoder.embedding_dim
    dims = {dim for dim in model.get("mrl_dims") or (64, 128, 192, 256) if dim <= full} | {full}
    encoder.head.dims = tuple(sorted(dims))
    encoder.config = {**encoder.config, "dims": encoder.head.dims}
    return encoder


def _official_key(key: str) -> str:
    key = key.removeprefix("module.")  # of a DataParallel model
    if key.startswith("projection."):
        return key.removeprefix("projection.")
    return key.removeprefix("backbone.")


def _infer(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Constructor arguments of the official ReDimNet with weights of these shapes."""
    channels = weights["backbone.stem.0.weight"].shape[0]
    width = weights["backbone.fin_wght1d.w"].shape[2]
    stages: list[tuple[int, int, float, list[tuple[int, int]], int | None]] = []
    grouped: list[tuple[int, int]] = []
    kinds_1d: set[str] = set()
    kind_2d = "convnext_like"
    out = channels
    while f"backbone.stage{len(stages)}.2.weight" in weights:
        prefix = f"backbone.stage{len(stages)}."
        keys = [key for key in weights if key.startswith(prefix)]
        patch = weights[f"{prefix}2.weight"]
        stride = patch.shape[2]
        out *= stride
        expansion = patch.shape[0] / out
        blocks = {key.split(".")[2] for key in keys if ".conv_block." in key}
        reduction = None
        for key in keys:
            if key.endswith(".red_dim_conv.0.weight"):
                reduction = width // weights[key].shape[0]
            elif key.endswith((".conv_block.dwconvs.0.weight", ".conv_block.conv1.weight")):
                grouped.append((weights[key].shape[0], weights[key].shape[1]))
            kinds_1d |= {kind for mark, kind in _MARKS_1D.items() if re.search(mark, key)}
            if ".conv_block.conv1." in key and kind_2d == "convnext_like":
                kind_2d = "basic_resnet"
            elif ".conv_block." in key and ".exitation." in key:
                kind_2d = "basic_resnet_fwse"
        whole = int(expansion) if expansion == int(expansion) else expansion
        stages.append((stride, len(blocks), whole, [(3, 3)], reduction))
    mixed = weights.get("backbone.mfa.0.weight")
    pooled = width if mixed is None else mixed.shape[0]
    return {
        "F": width // channels,
        "C": channels,
        "block_1d_type": "conv+att" if {"conv", "att"} <= kinds_1d else min(kinds_1d, default="fc"),
        "block_2d_type": kind_2d,
        "stages_setup": stages,
        "group_divisor": _group_divisor(grouped),
        "out_channels": None if mixed is None else pooled,
        "embed_dim": weights["linear.weight"].shape[0],
        "hop_length": 160,
        "global_context_att": weights["pool.linear1.weight"].shape[1] == 3 * pooled,
    }


def _group_divisor(convolutions: list[tuple[int, int]]) -> int | None:
    """From channels and channels per group of the 2-D convolutions; there are `channels // divisor` groups."""
    if all(channels == width for channels, width in convolutions):
        return None
    return min(width for _, width in convolutions)


_MARKS_1D = {r"\.tcm\.\d+\.dwconvs\.": "conv", r"\.tcm\.\d+\.attention\.": "att"}
