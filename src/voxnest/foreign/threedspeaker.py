"""Read a checkpoint of 3D-Speaker: a bare state dict, whose keys and shapes tell which model it belongs to.

Source: the released models of modelscope/3D-Speaker (`campplus_cn_common.bin`, `pretrained_eres2netv2.ckpt`, ...; the
table is in its `speakerlab/bin/infer_sv.py`) and what its training writes (`embedding_model.ckpt`).
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError
from voxnest.foreign.description import Description
from voxnest.models.eres2net import ERes2NetConfig
from voxnest.zoo.cards.eres2net import SIZES

_EXPECTED = "a CAM++, ERes2Net or ERes2NetV2 checkpoint of 3D-Speaker"
_BINS = 80
"""Of every released model and recipe."""


def describe_3dspeaker(contents: Mapping[Any, Tensor], source: object) -> Description:
    """What a bare state dict of 3D-Speaker is.

    Args:
        contents: of a file, `"module."` before its keys or not.
        source: what errors are about, usually its path.

    Raises:
        CheckpointError: if it is something else; it says what.
    """
    weights = {str(key).removeprefix("module."): value for key, value in contents.items()}  # of a DataParallel model
    for mark in ("projection.weight", "layer3.0.conv2_1.weight"):
        if mark in weights:
            raise CheckpointError(source, f"weights of wespeaker ({mark!r})", "its directory, with config.yaml")
    for mark, infer in _FAMILIES.items():
        if mark not in weights:
            continue
        try:
            architecture, config = infer(weights)
        except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
            raise CheckpointError(source, f"{mark!r}, but no usable weight {error}", _EXPECTED) from error
        if config["feat_dim"] != _BINS:
            # Another pooling, which no key tells, or another front end.
            raise CheckpointError(source, f"layers for {config['feat_dim']:g} bins", f"{_BINS} bins and TSTP pooling")
        return Description(architecture, {**config, "feat_dim": _BINS}, weights)
    names = ", ".join(map(repr, list(weights)[:4]))
    raise CheckpointError(source, f"weights of another model ({names}, ...)", _EXPECTED)


def _infer_campplus(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    channels, front_width, _ = weights["xvector.tdnn.linear.weight"].shape
    growth, hidden, _ = weights["xvector.block1.tdnnd1.cam_layer.linear_local.weight"].shape
    return "campplus", {
        "feat_dim": 8 * front_width / weights["head.conv1.weight"].shape[0],
        "embedding_size": weights["xvector.dense.linear.weight"].shape[0],
        "growth_rate": growth,
        "bn_size": hidden // growth,
        "init_channels": channels,
    }


def _infer_eres2net(weights: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    channels = weights["conv1.weight"].shape[0]
    deepest = weights["layer4.0.conv3.weight"].shape[0]
    embedding, pooled = weights["seg_1.weight"].shape
    blocks = [len({key.split(".")[1] for key in weights if key.startswith(f"layer{stage}.")}) for stage in range(1, 5)]
    config = {
        # Of each channel there are an eighth of the bins, and mean and deviation of these.
        "feat_dim": 8 * pooled / (2 * deepest),
        "embedding_size": embedding,
        "m_channels": channels,
        "num_blocks": blocks,
        "baseWidth": weights["layer4.0.convs.0.weight"].shape[0] * 8 // channels,
        "scale": len({key for key in weights if key.startswith("layer1.0.convs.")}),
        "expansion": deepest // (8 * channels),
        "two_emb_layer": "seg_2.weight" in weights,
    }
    fuse_from = 3 if "layer3_ds.weight" in weights else 1
    size = (channels, config["baseWidth"], config["scale"], config["expansion"], fuse_from)
    # A size without a name is called as the usual one of its kind: its settings go with it.
    name = "eres2netv2" if fuse_from == 3 else "eres2net-base"
    for known, settings in SIZES.items():
        other = ERes2NetConfig(**settings)
        if size == (other.channels, other.width, other.scale, other.expansion, other.fuse_from):
            name = known
    return name, config


_FAMILIES: dict[str, Callable[[Mapping[str, Tensor]], tuple[str, dict[str, Any]]]] = {
    "xvector.dense.linear.weight": _infer_campplus,
    "layer1_downsample.weight": _infer_eres2net,
    "layer3_ds.weight": _infer_eres2net,
}
"""A key that only models of a family have, and what their shapes tell."""
