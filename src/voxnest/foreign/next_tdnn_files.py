"""Read a checkpoint of the official NeXt-TDNN: its keys and shapes tell the size, its configuration file is not needed.

Source: dmlguq456/NeXt_TDNN_ASV. Its training writes Lightning checkpoints, and those in its folder `experiments/` are
read in the same way: under "state_dict" lies its `SpeakerNet` as "speaker_net.", in it "feature_extractor.", "model.",
"aggregate." and "loss_function.". Its configurations are Python files (`configs/*.py`); they are never run.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from voxnest.errors import CheckpointError
from voxnest.foreign.conversion import convert
from voxnest.foreign.next_tdnn import translate_settings
from voxnest.frontends import ReDimNetMel
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards.next_tdnn import CARDS

_MARK = "model.MFA.0.weight"
"""A key that only models of this family have."""
_WRAPPERS = re.compile(r"^(?:module\.|speaker_net\.)+")
_PARTS = ("feature_extractor.", "model.", "aggregate.")
_EXPECTED = "the weights of an official NeXt-TDNN"


def is_next_tdnn(state_dict: Mapping[Any, Any]) -> bool:
    """Whether a state dict is that of an official NeXt-TDNN, with or without "speaker_net." and "module."."""
    return any(_plain(key) == _MARK for key in state_dict)


def read_next_tdnn(state_dict: Mapping[Any, Any], source: object, name: str | None = None) -> SpeakerEncoder:
    """The encoder that a state dict of the official NeXt-TDNN describes, in eval mode.

    The shapes tell bins, channels, blocks, kernel sizes, light or not, and the embedding size. What they do not tell
    is as in every official configuration: GELU, the aggregation's activation (tanh), the epsilons, and the front end
    (FFT of 512, Hamming window of 400 and hop of 160 samples at 16 kHz, pre-emphasis 0.97, 20 to 7600 Hz). Constants
    of a front end in the file must be of these settings.

    Args:
        state_dict: of a file; class weights and other parts of the training may be there or not.
        source: what errors are about, usually the file's path.
        name: what to call the encoder; by default the registry's name of its size, "next-tdnn-256-b3" if it has none.

    Raises:
        CheckpointError: if keys are missing or unexpected, shapes differ, or the front end is another.
        ConfigError: for another aggregation than `vap_bn_tanh_fc_bn`, or a size that cannot be.
    """
    weights = {new: value for key, value in state_dict.items() if (new := _plain(key)).startswith(_PARTS)}
    for key, value in weights.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(source, f"{key!r} is a {type(value).__name__}", "a tensor")
    config = _infer(weights, source)
    encoder = convert("next-tdnn", config, weights, name=name or _registry_name(config))
    assert isinstance(encoder.frontend, ReDimNetMel)
    _check_frontend(weights, encoder.frontend, source)
    return encoder


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


def _registry_name(config: Mapping[str, Any]) -> str | None:
    settings = translate_settings(config)
    for name, card in CARDS.items():
        if all(settings[key] == value for key, value in card.settings.items()):
            return name
    return None


def _check_frontend(weights: Mapping[str, Tensor], frontend: ReDimNetMel, source: object) -> None:
    constants = {
        "pre_emphasis.flipped_filter": torch.tensor([-(frontend.pre_emphasis or 0.0), 1.0]),
        "mel_spectrogram.spectrogram.window": frontend.window,
        "mel_spectrogram.mel_scale.fb": frontend.filters,
    }
    for key, ours in constants.items():
        found = weights.get(f"feature_extractor.{key}")
        if found is None:
            continue
        if found.numel() != ours.numel() or not torch.allclose(found.float().flatten(), ours.flatten(), atol=5e-3):
            message = f"'feature_extractor.{key}' of other features"
            raise CheckpointError(source, message, "those of the official configurations: n_fft 512, coef 0.97, ...")
