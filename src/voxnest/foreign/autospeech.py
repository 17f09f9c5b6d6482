"""The official AutoSpeech: searched networks, their residual baselines, and the checkpoints of its training scripts.

Source: TAMU-VITA/AutoSpeech. `train_*.py` write a dictionary with "state_dict", "genotype" (of searched networks only,
a named tuple `utils.Genotype`) and what a training goes on with. The class layer (`classifier.*`) is left out: an
embedding is the pooled feature before it.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import Renames, apply_renames, numbered
from voxnest.models import autospeech, autospeech_resnet
from voxnest.zoo.cards.autospeech import SIZES

_ARGUMENTS = Arguments(
    {"C": "channels", "layers": "layers", "genotype": lambda value, _: {"genotype": str(value)}},
    ignored=["num_classes"],
)
_RESNET_ARGUMENTS = Arguments({}, ignored=["num_classes", "pretrained"])

_MEAN, _DEVIATION = "frontend.mean", "frontend.deviation"
STATISTICS = {_MEAN: "mean.npy", _DEVIATION: "std.npy"}
"""Files of the original's features, a number for each of 257 bins: it keeps them beside those, not in a checkpoint."""

_RENAMES: Renames = [
    (r"^stem0\.([03])\.", lambda match: f"stem.{int(match[1]) // 3}.conv."),
    (r"^stem0\.([14])\.", lambda match: f"stem.{int(match[1]) // 3}.norm."),
    (r"^stem1\.1\.", "stem.2.conv."),
    (r"^stem1\.2\.", "stem.2.norm."),
    (r"\.preprocess([01])\.", r".inputs.\1."),
    (r"\._ops\.", ".edges."),
    (r"\.op\.", "."),
    (r"\.bn\.", ".2."),
    (r"^(?!frontend\.)", "backbone."),
]
_RESNET_RENAMES: Renames = [
    (r"^conv1\.", "conv."),
    (r"^bn1\.", "norm."),
    (r"^layer(\d)\.", numbered("stages.")),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"^(?!frontend\.)", "backbone."),
]


def _plain(state: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).removeprefix("module."): value for key, value in state.items()}


def join_reductions(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One convolution for the two halves of each `FactorizedReduce`; see `voxnest.models.operations.ReLUConvNorm`."""
    joined = dict(state)
    for key in state:
        first, second = joined.get(key), joined.get(other := key.replace(".conv_1.", ".conv_2."))
        if other != key and first is not None and second is not None and first.shape[1:] == second.shape[1:]:
            del joined[other]
            joined[key.replace(".conv_1.", ".1.")] = torch.cat([joined.pop(key), second])
    return joined


def _state(description: Description, settings: Settings) -> dict[str, Tensor]:
    """Without classes, and with a front end that leaves features as they are unless it was told mean and deviation."""
    weights = {key: value for key, value in _plain(description.state).items() if not key.startswith("classifier.")}
    bins = settings["bins"]
    return {_MEAN: torch.zeros(bins), _DEVIATION: torch.ones(bins), **join_reductions(weights)}


def _settings(description: Description) -> dict[str, Any]:
    """Channels and layers can be seen from the weights, the edges of the genotype cannot."""
    weights = _plain(description.state)
    settings: dict[str, Any] = {"layers": len({key.split(".")[1] for key in weights if key.startswith("cells.")})}
    if "stem0.3.weight" in weights:
        settings["channels"] = weights["stem0.3.weight"].shape[0]
    settings |= _ARGUMENTS.translate(description.config)
    if "genotype" not in settings:
        raise ConfigError("genotype", f"not given; {_shown(weights)}", "the genotype that the network was trained with")
    return settings


def _resnet_settings(description: Description) -> dict[str, Any]:
    first = _plain(description.state).get("conv1.weight")
    channels = {} if first is None else {"channels": len(first)}
    return {**SIZES[description.architecture], **channels, **_RESNET_ARGUMENTS.translate(description.config)}


def _shown(weights: Mapping[str, Tensor]) -> str:
    """What the weights show of the genotype: the operations that have some."""
    cells: dict[bool, dict[int, str]] = {}
    layers = 1 + max((int(key.split(".")[1]) for key in weights if key.startswith("cells.")), default=-1)
    for key, value in weights.items():
        if match := re.fullmatch(r"cells\.(\d+)\._ops\.(\d+)\.(?:op\.)?1\.weight", key):
            reduction = int(match[1]) in (layers // 3, 2 * layers // 3)
            operations = cells.setdefault(reduction, {})
            operations[int(match[2])] = _operation(weights, key, list(value.shape[2:]))
    told = []
    for reduction, operations in sorted(cells.items()):
        edges = ", ".join(operations.get(index, "?") for index in range(max(operations) + 1))
        told.append(f"{'reduce' if reduction else 'normal'}: {edges}")
    return "the weights show " + ("; ".join(told) or "no operation")


def _operation(weights: Mapping[str, Tensor], key: str, kernel_size: list[int]) -> str:
    if ".op." not in key:
        return "conv_7x1_1x7"
    twice = key.removesuffix("1.weight") + "5.weight" in weights
    return f"{'sep' if twice else 'dil'}_conv_{'x'.join(map(str, kernel_size))}"


TRANSLATION = Translation(autospeech.FAMILY, _settings, lambda key, _: apply_renames(key, _RENAMES), _state)
RESNET_TRANSLATION = Translation(
    autospeech_resnet.FAMILY,
    _resnet_settings,
    lambda key, _: apply_renames(key, _RESNET_RENAMES),
    _state,
)


def is_autospeech(state: Mapping[Any, Any]) -> bool:
    """Whether a state dict is that of one of AutoSpeech's networks."""
    weights = _plain(state)
    first = weights.get("conv1.weight")
    baseline = isinstance(first, Tensor) and list(first.shape[1:]) == [1, 7, 7] and "layer4.0.conv1.weight" in weights
    return baseline or any(key.startswith("cells.0.preprocess1.") for key in weights)


def describe_autospeech(state: Mapping[Any, Any], genotype: object, source: Path) -> Description:
    """What a file with the state dict of an AutoSpeech network describes.

    Without `STATISTICS` in its folder, `encoder.frontend.wants_statistics`, and its embeddings are not the original's.

    Args:
        state: of the file.
        genotype: what the file has beside it; None for nothing.
        source: the file's path.

    Raises:
        CheckpointError: for a supernet, and a searched network without its genotype; it tells which operations the
            weights show.
    """
    weights = _plain(state) | _read_statistics(source.parent)
    if odd := [key for key, value in weights.items() if not isinstance(value, Tensor)]:
        raise CheckpointError(source, f"{odd[0]!r} is a {type(weights[odd[0]]).__name__}", "a tensor")
    if "alphas_normal" in weights:
        raise CheckpointError(source, "the supernet of a search of AutoSpeech", "a network that it derived and trained")
    if "conv1.weight" in weights:
        size = 34 if "layer1.2.conv1.weight" in weights else 18
        return Description(f"autospeech-resnet{size}", {}, weights)
    if genotype is None:
        expected = (
            "that of its training under \"genotype\" in the file, as text, or voxnest.hub.convert('autospeech', "
            "{'genotype': 'Genotype(...)'}, state_dict)"
        )
        raise CheckpointError(source, f"an AutoSpeech network without its genotype; {_shown(weights)}", expected)
    return Description("autospeech", {"genotype": genotype}, weights)


def _read_statistics(folder: Path) -> dict[str, Tensor]:
    """Mean and deviation of the corpus that a network was trained on, if they lie beside it."""
    paths = {key: folder / name for key, name in STATISTICS.items()}
    if not all(path.exists() for path in paths.values()):
        return {}
    found = {}
    for key, path in paths.items():
        try:
            found[key] = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float32))
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise CheckpointError(path, "damaged, or not an array of NumPy", "a number for each of 257 bins") from error
    return found
