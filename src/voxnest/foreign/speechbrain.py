"""A model directory of SpeechBrain: `embedding_model.ckpt`, the weights of its ECAPA-TDNN, and `hyperparams.yaml`.

Source: the layout that `EncoderClassifier.from_hparams` fetches, such as spkrec-ecapa-voxceleb, and
`speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN`. The encoder has SpeechBrain's filter bank.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.description import Description
from voxnest.foreign.kinds import SPEECHBRAIN
from voxnest.foreign.pickles import read_pickle
from voxnest.foreign.settings import Arguments, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import Renames, apply_renames, numbered
from voxnest.models.ecapa import FAMILY

ARCHITECTURE = "ecapa-tdnn-speechbrain"
SETTINGS, WEIGHTS = SPEECHBRAIN
_SECTIONS = ("embedding_model", "compute_features", "mean_var_norm")


def read_speechbrain(directory: Path) -> Description:
    """What a SpeechBrain directory holds; the arguments are those of the sections `read_hyperparameters` gives.

    Raises:
        CheckpointError: if a file is damaged or unsafe to read.
    """
    try:
        text = (directory / SETTINGS).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(directory / SETTINGS, "not a text file", "SpeechBrain's hyperparameters") from error
    expected = "the weights of SpeechBrain's ECAPA_TDNN"
    weights = read_pickle(directory / WEIGHTS, expected)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(directory / WEIGHTS, "no state dict", expected)
    return Description(ARCHITECTURE, read_hyperparameters(text), weights)


def read_hyperparameters(text: str) -> dict[str, Any]:
    """Read the sections of SpeechBrain's `hyperparams.yaml` that say what a model is; no code in it is run.

    Objects (`!new:`) become mappings of their arguments, references (`!ref <name>`) the values that they name.

    Raises:
        CheckpointError: if it is not YAML of that kind.
    """
    import yaml  # here, for most models have none

    class Loader(yaml.SafeLoader):
        """Takes the tags of HyperPyYAML for what stands behind them."""

    def construct(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
        if isinstance(node, yaml.MappingNode):
            return loader.construct_mapping(node, deep=True)
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node) or tag if isinstance(node, yaml.ScalarNode) else None

    Loader.add_multi_constructor("!", construct)
    try:
        contents = yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise CheckpointError("hyperparams.yaml", "not YAML", "SpeechBrain's hyperparameters") from error
    if not isinstance(contents, dict):
        raise CheckpointError("hyperparams.yaml", "no settings", "SpeechBrain's hyperparameters")

    def resolve(value: Any) -> Any:
        if isinstance(value, str) and (match := re.fullmatch(r"<([^<>]+)>", value)) and match[1] in contents:
            return contents[match[1]]
        return value

    return {
        key: {argument: resolve(value) for argument, value in contents[key].items()}
        for key in _SECTIONS
        if isinstance(contents.get(key), dict)
    }


def _channels(value: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    *inner, last = value
    if set(inner) != {inner[0]} or len(value) != len(arguments.get("kernel_sizes", value)):
        raise ConfigError("channels", repr(list(value)), "the same number for all layers but the last")
    return {"channels": inner[0], "out_channels": last}


def _groups(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    if set(value) != {1}:
        raise ConfigError("groups", repr(value), "1 everywhere")
    return {}


def _activation(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    if str(value).strip("<>'").rsplit(".", 1)[-1] != "ReLU":
        raise ConfigError("activation", str(value), "torch.nn.ReLU")
    return {}


def _samples(value: Any, arguments: Mapping[str, Any]) -> int:
    """From milliseconds."""
    return round(arguments.get("sample_rate", 16000) / 1000 * value)


_OFF = [False, None]
_MODEL = Arguments(
    {
        "input_size": "bins",
        "channels": _channels,
        "kernel_sizes": "kernel_sizes",
        "dilations": "dilations",
        "attention_channels": "attention_channels",
        "res2net_scale": "scale",
        "se_channels": "se_channels",
        "global_context": "global_context",
        "lin_neurons": dims,
        "groups": _groups,
        "activation": _activation,
    },
    ignored=["device", "dropout"],
)
_FEATURES = Arguments(
    {
        **{key: key for key in ("f_min", "f_max", "n_fft", "sample_rate")},
        "win_length": lambda value, arguments: {"window_length": _samples(value, arguments)},
        "hop_length": lambda value, arguments: {"hop_length": _samples(value, arguments)},
    },
    only=dict.fromkeys(("deltas", "context", "requires_grad", "param_rand_factor"), _OFF),
    ignored=["n_mels", "left_frames", "right_frames", "param_change_factor", "filter_shape"],
    where="compute_features: ",
)
_RENAMES: Renames = [
    (r"^blocks\.0\.", "backbone.stem."),
    (r"^blocks\.(\d+)\.", numbered("backbone.blocks.")),
    (r"\.tdnn1\.", ".before."),
    (r"\.res2net_block\.", ".split."),
    (r"\.tdnn2\.", ".after."),
    (r"\.se_block\.conv1\.", ".se.squeeze."),
    (r"\.se_block\.conv2\.", ".se.excite."),
    (r"^mfa\.", "backbone.aggregate."),
    (r"^asp\.tdnn\.conv\.", "pooling.attend."),
    (r"^asp\.tdnn\.norm\.", "pooling.norm."),
    (r"^asp\.conv\.", "pooling.score."),
    (r"^asp_bn\.", "head.norm."),
    (r"^fc\.", "head.linear."),
    (r"\.(conv|norm|squeeze|excite|attend|score|linear)\.(?:conv|norm)\.", r".\1."),
]


def _settings(description: Description) -> dict[str, Any]:
    model, features, norm = (description.config.get(key) or {} for key in _SECTIONS)
    if not isinstance(model, Mapping) or not model:
        raise ConfigError("embedding_model", "no arguments", "those of SpeechBrain's ECAPA_TDNN")
    if norm.get("norm_type", "sentence") != "sentence" or norm.get("std_norm", False):
        raise ConfigError("mean_var_norm", repr(dict(norm)), "norm_type sentence, std_norm false")
    return {
        "padding": "reflect",
        "aggregation_norm": True,
        "pooling": "CAS",
        "frontend": "speechbrain_fbank",
        "frontend_options": _FEATURES.translate(features),
        **_MODEL.translate({"channels": (512, 512, 512, 512, 1536), **model}),
    }


def _state(description: Description, settings: Settings) -> dict[str, Tensor]:
    """SpeechBrain's Res2Net split leaves out the first part of the channels, ours the last: turn the parts by one."""
    width = settings["channels"] // settings["scale"]
    result = dict(description.state)
    for key, value in description.state.items():
        if re.match(r"blocks\.\d+\.tdnn1\.", key) and value.ndim:
            result[key] = value.roll(-width, 0)
        elif re.match(r"blocks\.\d+\.tdnn2\.conv\.conv\.weight$", key) and value.ndim == 3:
            result[key] = value.roll(-width, 1)
    return result


def _key(key: str, _: Settings) -> str:
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, _settings, _key, _state)
