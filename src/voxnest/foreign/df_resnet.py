"""wespeaker's Gemini DF-ResNet: its keys as ours."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.foreign.resnet import translate_key, translate_settings
from voxnest.foreign.translation import Renames, load_weights
from voxnest.models.df_resnet import build
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards.df_resnet import SIZES

_RENAMES: Renames = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", lambda match: f"downsampling.{int(match[1]) - 1}."),
    (r"^(stem|downsampling\.\d)\.0\.", r"\1.conv."),
    (r"^(stem|downsampling\.\d)\.1\.", r"\1.norm."),
    (r"\bconv(\d)\.(?=weight)", r"conv\1.conv."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"^(stem|downsampling|stages)\.", r"backbone.\1."),
]


def from_official(
    config: Mapping[str, Any], state_dict: Mapping[str, Tensor], name: str = "gemini-dfresnet114"
) -> SpeakerEncoder:
    """Build the encoder that a checkpoint of wespeaker's `Gemini_DF_ResNet*` holds, in eval mode.

    Args:
        config: arguments of wespeaker's function.
        state_dict: its weights.
        name: which of `SIZES` it is, and what to call the encoder.

    Raises:
        ConfigError: for another name, or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    encoder = build(name, translate_settings(config, SIZES, name))
    load_weights(encoder, name, state_dict, lambda key: translate_key(key, _RENAMES, encoder))
    return encoder.eval()
