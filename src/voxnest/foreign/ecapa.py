"""Translate ECAPA-TDNN checkpoints of wespeaker and SpeechBrain: their arguments and state-dict keys to ours.

Facts about the foreign layouts live here: `wespeaker.models.ecapa_tdnn.ECAPA_TDNN` and
`speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.translation import ENDING, apply_renames, load_weights
from voxnest.models.ecapa import build
from voxnest.models.encoder import SpeakerEncoder

_WESPEAKER = {
    "channels": "channels",
    "feat_dim": "bins",
    "pooling_func": "pooling",
    "global_context_att": "global_context",
    "emb_bn": "out_norm",
}

_WESPEAKER_KEYS = [
    (r"^layer1\.", "backbone.stem."),
    (r"^layer(\d+)\.se_res2block\.0\.", r"backbone.blocks.\1.before."),
    (r"^layer(\d+)\.se_res2block\.1\.(conv|bn)s\.(\d+)\.", r"backbone.blocks.\1.split.blocks.\3.\2."),
    (r"^layer(\d+)\.se_res2block\.2\.", r"backbone.blocks.\1.after."),
    (r"^layer(\d+)\.se_res2block\.3\.linear1\.", r"backbone.blocks.\1.se.squeeze."),
    (r"^layer(\d+)\.se_res2block\.3\.linear2\.", r"backbone.blocks.\1.se.excite."),
    (r"^conv\.", "backbone.aggregate.conv."),
    (r"\.bn\.", ".norm."),
]

_SPEECHBRAIN = {
    "input_size": "bins",
    "kernel_sizes": "kernel_sizes",
    "dilations": "dilations",
    "attention_channels": "attention_channels",
    "res2net_scale": "scale",
    "se_channels": "se_channels",
    "global_context": "global_context",
}

_SPEECHBRAIN_KEYS = [
    (r"^blocks\.0\.", "backbone.stem."),
    (r"^blocks\.(\d+)\.", r"backbone.blocks.\1."),
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

_FBANK = {"f_min": "f_min", "f_max": "f_max", "n_fft": "n_fft", "sample_rate": "sample_rate"}


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "ecapa-tdnn-512"
) -> SpeakerEncoder:
    """Build the encoder that a wespeaker checkpoint holds, in eval mode.

    Args:
        config: `model_args`. What the name of the class says there, the weights say too: `channels` and
            `global_context_att` need not be given.
        state_dict: its weights, without the class head.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that the class does not have.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    settings: dict[str, Any] = {"global_context": False}
    if "layer1.conv.weight" in state_dict:
        settings["channels"] = state_dict["layer1.conv.weight"].shape[0]
    if "pool.linear1.weight" in state_dict and "conv.weight" in state_dict:
        # Attention that sees the context takes mean and deviation beside every frame.
        settings["global_context"] = state_dict["pool.linear1.weight"].shape[1] > state_dict["conv.weight"].shape[0]
    for key, value in config.items():
        if key == "embed_dim":
            settings["dims"] = [value]
        elif key in _WESPEAKER:
            settings[_WESPEAKER[key]] = value
        else:
            raise ConfigError(key, repr(value), "one of embed_dim, " + ", ".join(_WESPEAKER))
    encoder = build(name, settings)
    load_weights(encoder, name, state_dict, _translate_wespeaker)
    return encoder.eval()


def from_speechbrain(
    hyperparameters: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "ecapa-tdnn-1024"
) -> SpeakerEncoder:
    """Build the encoder that SpeechBrain's `embedding_model.ckpt` holds, in eval mode, with its own filter bank.

    Args:
        hyperparameters: as `read_hyperparameters` gives them: arguments of `embedding_model`, of `compute_features` and
            of `mean_var_norm`, each a mapping; the last two may be missing where they are the recipe's.
        state_dict: weights of `embedding_model`.
        name: what to call the encoder.

    Raises:
        ConfigError: for an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    model = hyperparameters.get("embedding_model")
    if not isinstance(model, Mapping):
        raise ConfigError("embedding_model", "no arguments", "those of SpeechBrain's ECAPA_TDNN")
    settings = _speechbrain_model(model)
    settings["frontend_options"] = _speechbrain_features(hyperparameters.get("compute_features") or {})
    _check_normalization(hyperparameters.get("mean_var_norm") or {})
    encoder = build(name, settings)
    ordered = _reorder_parts(state_dict, settings["channels"] // encoder.config["scale"])
    load_weights(encoder, name, ordered, _translate_speechbrain)
    return encoder.eval()


def read_hyperparameters(text: str) -> dict[str, Any]:
    """Read the sections of SpeechBrain's `hyperparams.yaml` that say what a model is; no code in it is run.

    Objects (`!new:`) become mappings of their arguments, references (`!ref <name>`) the values that they name.

    Raises:
        CheckpointError: if it is not YAML of that kind.
    """

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

    sections = {key: contents.get(key) for key in ("embedding_model", "compute_features", "mean_var_norm")}
    return {
        key: {argument: resolve(value) for argument, value in section.items()}
        for key, section in sections.items()
        if isinstance(section, dict)
    }


def _speechbrain_model(arguments: Mapping[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "padding": "reflect",
        "aggregation_norm": True,
        "pooling": "CAS",
        "frontend": "speechbrain_fbank",
    }
    channels: Sequence[int] = (512, 512, 512, 512, 1536)
    for key, value in arguments.items():
        if key in _SPEECHBRAIN:
            settings[_SPEECHBRAIN[key]] = value
        elif key == "channels":
            channels = value
        elif key == "lin_neurons":
            settings["dims"] = [value]
        elif key == "groups":
            if set(value) != {1}:
                raise ConfigError("groups", repr(value), "1 everywhere")
        elif key == "activation":
            if str(value).strip("<>'").rsplit(".", 1)[-1] != "ReLU":
                raise ConfigError("activation", str(value), "torch.nn.ReLU")
        elif key not in ("device", "dropout"):  # no embedding depends on these
            raise ConfigError(key, repr(value), "an argument of SpeechBrain's ECAPA_TDNN")
    *inner, settings["out_channels"] = channels
    settings["channels"] = inner[0]
    if set(inner) != {inner[0]} or len(channels) != len(settings.get("kernel_sizes", channels)):
        raise ConfigError("channels", repr(list(channels)), "the same number for all layers but the last")
    return settings


def _speechbrain_features(arguments: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    rate = arguments.get("sample_rate", 16000)
    for key, value in arguments.items():
        if key in _FBANK:
            options[_FBANK[key]] = value
        elif key in ("win_length", "hop_length"):
            options[{"win_length": "window_length"}.get(key, key)] = round(rate / 1000 * value)  # from milliseconds
        elif key in ("deltas", "context", "requires_grad", "param_rand_factor"):
            if value:
                raise ConfigError(f"compute_features: {key}", repr(value), "off")
        elif key not in ("n_mels", "left_frames", "right_frames", "param_change_factor", "filter_shape"):
            raise ConfigError(f"compute_features: {key}", repr(value), "an argument of SpeechBrain's Fbank")
    return options


def _check_normalization(arguments: Mapping[str, Any]) -> None:
    if arguments.get("norm_type", "sentence") != "sentence" or arguments.get("std_norm", False):
        raise ConfigError("mean_var_norm", repr(dict(arguments)), "norm_type sentence, std_norm false")


def _translate_wespeaker(key: str) -> str:
    return apply_renames(_translate(key, _WESPEAKER_KEYS, first_block=2), ENDING)


def _translate_speechbrain(key: str) -> str:
    return _translate(key, _SPEECHBRAIN_KEYS, first_block=1)


def _translate(key: str, rules: Sequence[tuple[str, str]], first_block: int) -> str:
    key = apply_renames(key, rules)
    return re.sub(r"^(backbone\.blocks\.)(\d+)", lambda match: f"{match[1]}{int(match[2]) - first_block}", key)


def _reorder_parts(state_dict: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """SpeechBrain's Res2Net split leaves out the first part of the channels, ours the last: turn the parts by one."""
    result = dict(state_dict)
    for key, value in state_dict.items():
        if re.match(r"blocks\.\d+\.tdnn1\.", key) and value.ndim:
            result[key] = value.roll(-width, 0)
        elif re.match(r"blocks\.\d+\.tdnn2\.conv\.conv\.weight$", key) and value.ndim == 3:
            result[key] = value.roll(-width, 1)
    return result
