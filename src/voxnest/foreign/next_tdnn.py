"""The official NeXt-TDNN: its arguments and keys as ours, and its checkpoints, whose shapes tell the size.

Source: dmlguq456/NeXt_TDNN_ASV. Its training writes Lightning checkpoints, and those in its folder `experiments/` are
read in the same way: under "state_dict" lies its `SpeakerNet` as "speaker_net.", in it "feature_extractor.", "model.",
"aggregate." and "loss_function.". Its configurations are Python files (`configs/*.py`); they are never run.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import Renames, apply_renames
from voxnest.frontends import ReDimNetMel
from voxnest.models.next_tdnn import FAMILY

_MARK = "model.MFA.0.weight"
"""A key that only models of this family have."""
_WRAPPERS = re.compile(r"^(?:module\.|speaker_net\.)+")
_PARTS = ("feature_extractor.", "model.", "aggregate.")
_EXPECTED = "the weights of an official NeXt-TDNN"


def _channels(value: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    if len(set(value)) != 1 or len(value) != len(config["depths"]):
        raise ConfigError("dims", repr(value), "the same number for each of `depths`")
    return {"channels": value[0]}


_ARGUMENTS = Arguments(
    {
        "in_chans": "bins",
        "depths": lambda value, _: {"blocks": tuple(value)},
        "dims": _channels,
        "kernel_size": lambda value, _: {"kernel_sizes": (value,) if isinstance(value, int) else tuple(value)},
        "block": ("light", {"TSConvNeXt": False, "TSConvNeXt_light": True}),
        "embeding_size": dims,
    },
    only={"aggregation": ["vap_bn_tanh_fc_bn"]},
    # Stochastic depth acts in training, the sizes inside the aggregation follow from C.
    ignored=["drop_path_rate", "channel_size", "intermediate_size"],
)
"""`MODEL_CONFIG` and `AGGREGATION_CONFIG` of an official configuration, and `aggregation`, the module they are for."""
_DEFAULTS = {"depths": [1, 1, 1], "dims": [256, 256, 256], "kernel_size": 7, "block": "TSConvNeXt_light"}

_RENAMES: Renames = [
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
    (r"^aggregate\.conv_1\.", "pooling.attend."),
    (r"^aggregate\.bn1\.", "pooling.norm."),
    (r"^aggregate\.conv_2\.", "pooling.score."),
    (r"^aggregate\.bn2\.", "head.norm."),
    (r"^aggregate\.fc\.", "head.linear."),
    (r"^aggregate\.bn3\.", "head.out_norm."),
]


def _settings(description: Description) -> dict[str, Any]:
    return _ARGUMENTS.translate({**_DEFAULTS, **description.config})


def _state(description: Description, _: Settings) -> dict[str, Tensor]:
    """Without front end, losses and counters."""
    weights = {new: value for key, value in description.state.items() if (new := _plain(key)).startswith(_PARTS[1:])}
    if not weights:
        found = f"no weights under 'model.' among {len(description.state)} keys"
        raise CheckpointError(description.architecture, found, "an official SpeakerNet")
    return weights


def _key(key: str, _: Settings) -> str:
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, _settings, _key, _state)


def is_next_tdnn(state_dict: Mapping[Any, Any]) -> bool:
    """Whether a state dict is that of an official NeXt-TDNN, with or without "speaker_net." and "module."."""
    return any(_plain(key) == _MARK for key in state_dict)


def describe_next_tdnn(state_dict: Mapping[Any, Any], source: object) -> Description:
    """What a state dict of the official NeXt-TDNN describes.

    The shapes tell bins, channels, blocks, kernel sizes, light or not, and the embedding size. What they do not tell
    is as in every official configuration: GELU, the aggregation's activation (tanh), the epsilons, and the front end
    (FFT of 512, Hamming window of 400 and hop of 160 samples at 16 kHz, pre-emphasis 0.97, 20 to 7600 Hz). Constants
    of a front end in the file must be of these settings.

    Args:
        state_dict: of a file; class weights and other parts of the training may be there or not.
        source: what errors are about, usually the file's path.

    Raises:
        CheckpointError: if keys that tell the size are missing, or the front end is another.
    """
    weights = {new: value for key, value in state_dict.items() if (new := _plain(key)).startswith(_PARTS)}
    for key, value in weights.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(source, f"{key!r} is a {type(value).__name__}", "a tensor")
    config = _infer(weights, source)
    _check_frontend(weights, config["in_chans"], source)
    return Description("next-tdnn", config, weights)


def _plain(key: object) -> str:
    return re.sub(r"^aggregation\.", "aggregate.", _WRAPPERS.sub("", str(key)))


def _infer(weights: Mapping[str, Tensor], source: object) -> dict[str, Any]:
    """`MODEL_CONFIG` and `AGGREGATION_CONFIG` of the official model with weights of these shapes."""

    def size(key: str, axis: int) -> int:
        if key not in weights:
            raise CheckpointError(source, f"a NeXt-TDNN without {key!r}", _EXPECTED)
        shape = list(weights[key].shape)
        if axis >= len(shape):
            raise CheckpointError(source, f"{key!r} of shape {shape}", f"{axis + 1} axes")
        return shape[axis]

    blocks = {match.groups() for key in weights if (match := re.match(r"model\.stages\.(\d+)\.(\d+)\.", key))}
    stages = len({stage for stage, _ in blocks})
    first = "model.stages.0.0."
    light = f"{first}dwconv.weight" in weights
    scales = sum(bool(re.match(rf"{re.escape(first)}mscconv\.\d+\.weight", key)) for key in weights)
    return {
        "in_chans": size("model.stem.0.0.weight", 1),
        "depths": [sum(int(of) == stage for of, _ in blocks) for stage in range(stages)],
        "dims": [size("model.stem.0.0.weight", 0)] * stages,
        "kernel_size": size(f"{first}dwconv.weight", 2)
        if light
        else [size(f"{first}mscconv.{scale}.weight", 2) for scale in range(max(scales, 1))],
        "block": "TSConvNeXt_light" if light else "TSConvNeXt",
        "aggregation": _aggregation(weights),
        "embeding_size": size("aggregate.fc.weight", 0),
    }


def _aggregation(weights: Mapping[str, Tensor]) -> str:
    """Which file in `aggregation/` of the official implementation has such weights.

    `vap_bn_fc_bn` and `vap_tanh_fc_bn` are the same there.
    """
    for kind in ("asp", "sap"):
        if f"aggregate.{kind}_linear.weight" in weights:
            return f"{kind}_fc"
    if "aggregate.bn1.weight" in weights and "aggregate.bn3.weight" not in weights:
        # Without a normalisation inside the attention, the first one is of the statistics.
        channels, pooled = weights[_MARK].shape[0], weights["aggregate.bn1.weight"].numel()
        if pooled in (channels, 2 * channels):
            return "vsap_bn_fc_bn" if pooled == channels else "vap_bn_fc_bn"
    return "vap_bn_tanh_fc_bn"


def _check_frontend(weights: Mapping[str, Tensor], bins: int, source: object) -> None:
    """Constants of the front end, of those that are there; it is built for as many bins as the file has filters."""
    filters = "mel_spectrogram.mel_scale.fb"
    sizes = {"pre_emphasis.flipped_filter": 2, "mel_spectrogram.spectrogram.window": 400, filters: 257 * bins}
    found = {part: weights[key] for part in sizes if (key := f"feature_extractor.{part}") in weights}
    right = {part: value.numel() == sizes[part] for part, value in found.items()}
    if all(right.values()):
        frontend = ReDimNetMel(bins if filters in found else 1)
        constants = [torch.tensor([-(frontend.pre_emphasis or 0.0), 1.0]), frontend.window, frontend.filters]
        for part, ours in zip(sizes, constants, strict=True):
            if part in found:
                right[part] = torch.allclose(found[part].float().flatten(), ours.flatten(), atol=5e-3)
    for part, fits in right.items():
        if not fits:
            message = f"'feature_extractor.{part}' of other features"
            raise CheckpointError(source, message, "those of the official configurations: n_fft 512, coef 0.97, ...")
