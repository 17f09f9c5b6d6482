"""Read a model directory of wespeaker: `avg_model.pt`, the weights, and `config.yaml`, the training's configuration.

Source: `load_model_pt` of wespeaker (cli/speaker.py), its `get_speaker_model`, and the configurations of its recipes.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from voxnest.errors import CheckpointError, one_of
from voxnest.foreign import redimnet, redimnet2
from voxnest.foreign.description import Description
from voxnest.foreign.kinds import WESPEAKER
from voxnest.foreign.pickles import read_pickle
from voxnest.zoo.registry import CARDS

CONFIG, WEIGHTS = WESPEAKER

CLASSES: dict[str, str] = {
    **{f"ECAPA_TDNN_{context}c{size}": f"ecapa-tdnn-{size}" for size in (512, 1024) for context in ("", "GLOB_")},
    "CAMPPlus": "campplus",
    **{f"ResNet{depth}": f"resnet{depth}" for depth in (18, 34, 50, 101, 152, 221, 293)},
    **{f"SimAM_ResNet{depth}_ASP": f"simam-resnet{depth}" for depth in (34, 100)},
    "Res2Net34_Base": "res2net34",
    "Res2Net34_Large": "res2net34-large",
    **{f"Gemini_DF_ResNet{depth}": f"gemini-dfresnet{depth}" for depth in (60, 114, 183, 237)},
    **{f"ERes2Net34_{size}": f"eres2net-{size.lower()}" for size in ("Base", "Large", "aug")},
    **{f"ReDimNetB{size}": "redimnet" for size in range(7)},
    **{f"ReDimNet2B{size}": "redimnet2" for size in range(7)},
    "XVEC": "xvector",
}
"""Architecture, as `voxnest.hub.convert` calls it, of each of wespeaker's classes."""

_FBANK = {"frame_length": 25, "frame_shift": 10}
_CMVN = {"norm_mean": True, "norm_var": False}


def read_wespeaker(directory: str | Path) -> Description:
    """What a wespeaker directory holds.

    The class head (`projection.*`) is left out. Dither is not looked at: wespeaker extracts without.

    Raises:
        CheckpointError: if a file is missing, damaged or unsafe to read, or the model is of an unknown class (it lists
            the known ones) or was trained on features that cannot be made here.
    """
    path = Path(directory) / CONFIG
    settings = _read_config(path)
    name = settings.get("model")
    if name not in CLASSES:
        raise CheckpointError(path, f"model {name!r}", one_of(name, CLASSES))
    arguments = _section(path, settings, "model_args")
    dataset = _section(path, settings, "dataset_args")
    contents = read_pickle(Path(directory) / WEIGHTS, "the weights of a wespeaker model")
    if isinstance(contents, dict) and "state_dict" in contents:
        contents = contents["state_dict"]
    if not isinstance(contents, dict) or not all(isinstance(value, Tensor) for value in contents.values()):
        raise CheckpointError(Path(directory) / WEIGHTS, "no state dict", "the weights of a wespeaker model")
    weights = {key: value for key, value in contents.items() if not key.startswith(("projection.", "frontend."))}
    architecture = CLASSES[name]
    features = _features(path, dataset, arguments, tfmel=architecture == "redimnet2")
    if architecture in ("redimnet", "redimnet2"):
        arguments = {**_redimnet_arguments(path, architecture, name[-1], arguments), **features}
    return Description(architecture, arguments, _redimnet_weights(weights) if architecture == "redimnet" else weights)


def _read_config(path: Path) -> dict[str, Any]:
    import yaml  # here, for most models have none

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}", f"{CONFIG} of wespeaker") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(path, "not plain YAML", f"{CONFIG} of wespeaker") from error
    if not isinstance(settings, dict):
        raise CheckpointError(path, f"holds a {type(settings).__name__}", f"{CONFIG} of wespeaker")
    return settings


def _section(path: Path, settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    section = settings.get(key) or {}
    if not isinstance(section, dict):
        raise CheckpointError(path, f"{key}: {section!r}", "a mapping")
    return dict(section)


def _features(path: Path, dataset: Mapping[str, Any], arguments: Mapping[str, Any], *, tfmel: bool) -> dict[str, Any]:
    """Check that our front end makes the features a model was trained on, and say which one it is, for ReDimNet."""

    def require(key: str, found: object, expected: object) -> None:
        if found != expected:
            raise CheckpointError(path, f"{key}: {found!r}", f"{expected!r}, as the models here take it")

    frontend = dataset.get("frontend", "fbank")
    require("resample_rate", dataset.get("resample_rate", 16000), 16000)
    if tfmel and frontend == "tfmel":
        return {"feat_type": "tf", "spec_params": _section(path, dataset, "tfmel_args")}
    require("frontend", frontend, "fbank")
    fbank, cmvn = _section(path, dataset, "fbank_args"), _section(path, dataset, "cmvn_args")
    for key, value in _FBANK.items():
        require(key, fbank.get(key, value), value)
    require("cmvn", dataset.get("cmvn", True), True)
    for key, value in _CMVN.items():
        require(key, cmvn.get(key, value), value)
    for key in ("feat_dim", "acoustic_dim"):
        if key in arguments and "num_mel_bins" in fbank:
            require("num_mel_bins", fbank["num_mel_bins"], arguments[key])
    return {"feat_type": "fbank"}


# Where wespeaker's sizes differ from the registry's, beside the analysis hop.
_DIFFERENT: dict[str, dict[str, Any]] = {
    "redimnet-b2": {"stages": [(1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (2, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4)]},
    "redimnet2-b0": {"out_channels": 64},
    "redimnet2-b1": {"out_channels": 64},
    "redimnet2-b2": {"out_channels": 64},
    "redimnet2-b3": {
        "stages": [
            ((1, 1), 2, 2, [(3, 3)], 36),
            ((2, 1), 3, 1, [(3, 3)], 36),
            ((1, 2), 4, 1, [(3, 3)], 36),
            ((2, 1), 5, 1, [(3, 3)], 36),
            ((1, 2), 4, 1, [(3, 3)], 18),
            ((2, 1), 3, 1, [(3, 3)], 18),
        ],
        "out_channels": 64,
        "mix_2d": False,
        "norm_groups": 0,
    },
    "redimnet2-b5": {"out_channels": 256},
}


def _redimnet_arguments(path: Path, architecture: str, size: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the official ReDimNet or ReDimNet2 for one of wespeaker's sizes; the directory's own come on top."""
    if architecture == "redimnet" and arguments.get("two_emb_layer"):
        raise CheckpointError(path, "two_emb_layer: True", "a ReDimNet with one embedding layer")
    name = f"{architecture}-b{size}"
    settings = {**CARDS[name].settings, **_DIFFERENT.get(name, {})}
    settings.pop("hop_length", None)
    own = {key: value for key, value in arguments.items() if key not in ("feat_dim", "two_emb_layer", "spec")}
    if arguments.get("feat_dim") is not None:
        own["F"] = arguments["feat_dim"]
    if architecture == "redimnet2":
        return {**redimnet2.ARGUMENTS.restore(settings), **own}
    stages = [(*stage[:3], [(3, 3)], stage[3]) for stage in settings["stages"]]
    return {**redimnet.ARGUMENTS.restore(settings), "stages_setup": stages, **own}


def _redimnet_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the official ReDimNet for those of wespeaker's, which has no normalisation before the embedding."""
    last = max((int(key.rsplit(".", 1)[1]) for key in weights if ".inputs_weights." in key), default=0)
    result = {}
    for key, value in weights.items():
        if match := re.fullmatch(r"backbone\.inputs_weights\.(\d+)", key):
            index = int(match[1])
            key = "backbone.fin_wght1d.w" if index == last else f"backbone.stage{index}.0.w"
        # A stage there begins with its convolution, the official one with the weights and a change of view.
        key = re.sub(r"^(backbone\.stage\d+)\.(\d+)\.(?!w$)", lambda match: f"{match[1]}.{int(match[2]) + 2}.", key)
        result[re.sub(r"^seg_1\.", "linear.", key)] = value
    if "linear.weight" in result:
        size, eps = result["linear.weight"].shape[1], 1e-5
        zeros, ones = torch.zeros(size), torch.ones(size)
        identity = {"weight": ones, "bias": zeros, "running_mean": zeros, "running_var": ones - eps}
        identity["num_batches_tracked"] = torch.tensor(0)
        result |= {f"bn.{key}": value for key, value in identity.items()}
    return result
