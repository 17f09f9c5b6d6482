"""From a `Description` to an encoder: the families that are known, and the label that an encoder gets."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from voxnest.errors import ConfigError, one_of
from voxnest.foreign import (
    autospeech,
    campplus,
    ecapa,
    eres2net,
    next_tdnn,
    redimnet,
    redimnet2,
    resnet,
    speechbrain,
    xvector,
)
from voxnest.foreign.description import Description
from voxnest.foreign.translation import Translation
from voxnest.foreign.weights import load_weights
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards import autospeech as autospeech_cards
from voxnest.zoo.cards import df_resnet as df_resnet_cards
from voxnest.zoo.cards import eres2net as eres2net_cards
from voxnest.zoo.cards import resnet as resnet_cards
from voxnest.zoo.registry import CARDS

TRANSLATIONS: dict[str, Translation] = {
    "redimnet": redimnet.TRANSLATION,
    "redimnet2": redimnet2.TRANSLATION,
    "next-tdnn": next_tdnn.TRANSLATION,
    **dict.fromkeys(("ecapa-tdnn-512", "ecapa-tdnn-1024"), ecapa.TRANSLATION),
    speechbrain.ARCHITECTURE: speechbrain.TRANSLATION,
    "xvector": xvector.TRANSLATION,
    "campplus": campplus.TRANSLATION,
    **dict.fromkeys(eres2net_cards.SIZES, eres2net.TRANSLATION),
    **dict.fromkeys(resnet_cards.SIZES, resnet.TRANSLATION),
    "autospeech": autospeech.TRANSLATION,
    **dict.fromkeys(autospeech_cards.SIZES, autospeech.RESNET_TRANSLATION),
    **{name: resnet.DF_TRANSLATION for name in df_resnet_cards.SIZES if name.startswith("gemini")},
}
"""By architecture."""


def convert(
    architecture: str, config: Mapping[str, Any], state_dict: Mapping[str, Tensor], *, name: str | None = None
) -> SpeakerEncoder:
    """Build the encoder that a reference implementation's weights describe, in eval mode.

    Args:
        architecture: "redimnet", "redimnet2", "ecapa-tdnn-512", "resnet34", "gemini-dfresnet60", "next-tdnn", ...: an
            unknown one is an error that lists those there are.
        config: constructor arguments of the reference's class.
        state_dict: its weights; constant buffers of its front end (`spec.*`) may be there or not.
        name: what to call the encoder: any label; by default that of the size with these settings, or the architecture.

    Raises:
        ConfigError: for an unknown architecture or an argument that is not supported.
        CheckpointError: if keys are missing or unexpected (it lists them), or shapes differ.
    """
    return make_encoder(Description(architecture, config, state_dict, name))


def make_encoder(description: Description) -> SpeakerEncoder:
    """The encoder of a description, in eval mode; see `convert`."""
    architecture = description.architecture
    if architecture not in TRANSLATIONS:
        raise ConfigError("architecture", repr(architecture), one_of(architecture, TRANSLATIONS, few=99))
    translation = TRANSLATIONS[architecture]
    settings = translation.settings(description)
    if description.dims:
        settings["dims"] = description.dims
    encoder = translation.family.build(settings, description.name or architecture)
    state = translation.state(description, encoder.config)
    load_weights(encoder, encoder.name, state, lambda key: translation.key(key, encoder.config), translation.adapt)
    encoder.name = _label(description, translation, encoder.config)
    _flush_subnormals(encoder)
    return encoder.eval()


def _label(description: Description, translation: Translation, settings: Mapping[str, Any]) -> str:
    """What to call an encoder: as was asked, by its size, or as the card with its settings (but for `dims`)."""
    if description.name is not None:
        return description.name
    if description.architecture in CARDS:
        return description.architecture
    family = translation.family
    for name, card in CARDS.items():
        if card.architecture == family.architecture and _plain(asdict(family.config_type(**card.settings))) == _plain(
            settings
        ):
            return name
    return family.architecture


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings that can be compared: lists for tuples."""
    return json.loads(json.dumps({key: value for key, value in settings.items() if key != "dims"}))


def _flush_subnormals(encoder: SpeakerEncoder) -> None:
    """Make weights below 1.2e-38 zero.

    Weight decay leaves channels that died with such weights (released ReDimNet2 files have them). No embedding shows
    the difference, but a CPU computes with them many times slower.
    """
    tiny = torch.finfo(torch.float32).tiny
    with torch.no_grad():
        for weight in encoder.parameters():
            weight[weight.abs() < tiny] = 0.0
