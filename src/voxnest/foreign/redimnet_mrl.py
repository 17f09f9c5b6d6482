"""Checkpoints of sappho192/redimnet-mrl: the official ReDimNet with a Matryoshka head."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError
from voxnest.foreign.description import Description
from voxnest.zoo.registry import CARDS


def describe_mrl(checkpoint: Mapping[str, Any], source: object) -> Description:
    """What a checkpoint of redimnet-mrl (`model_state_dict`) holds.

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
        config = infer_config(weights)
    except (KeyError, IndexError) as error:
        raise CheckpointError(source, f"no weight {error}", "a ReDimNet with a Matryoshka head") from error
    if not pretrained and model.get("block_2d_type"):
        config["block_2d_type"] = model["block_2d_type"]  # of two activations the shapes do not tell which
    size = advanced.get("model_name", "b2") if pretrained else model.get("name")
    full = config["embed_dim"]
    dims = {dim for dim in model.get("mrl_dims") or (64, 128, 192, 256) if dim <= full} | {full}
    return Description("redimnet", config, weights, registry_name("redimnet", size), tuple(sorted(dims)))


def registry_name(architecture: str, size: str | None) -> str | None:
    """The registry's name of a size such as "b2", or None if it has none."""
    name = f"{architecture}-{size}".lower()
    return name if name in CARDS else None


def _official_key(key: str) -> str:
    key = key.removeprefix("module.")  # of a DataParallel model
    if key.startswith("projection."):
        return key.removeprefix("projection.")
    return key.removeprefix("backbone.")


def infer_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
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
