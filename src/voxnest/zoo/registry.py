"""The registry: what can be built by name."""

import reprlib
from collections.abc import Sequence
from typing import Any

from voxnest.errors import ConfigError, one_of
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.families import FAMILIES
from voxnest.zoo.cards import CARDS

__all__ = ["CARDS", "create_encoder", "list_models"]


def list_models() -> list[str]:
    """The names that `create_encoder` knows."""
    return list(CARDS)


LEVEL = -25.0
"""In dB relative to full scale: the median of 1.5 s of the speech in `voices`."""


def create_encoder(
    name: str, *, dims: Sequence[int] | None = None, level: float | None = LEVEL, **overrides: Any
) -> SpeakerEncoder:
    """Build an untrained encoder.

    Args:
        name: one of `list_models()`; or an architecture, such as "redimnet", for the defaults of its configuration. It
            is the encoder's label unless a setting is replaced that makes another network: then its architecture is.
        dims: sizes of the embeddings; several make a Matryoshka head, each a prefix of the largest.
        level: that every waveform is brought to, in dB relative to full scale, so that quiet recordings are embedded
            as loud ones are; None for the waveform as it is, which published weights were trained on.
        overrides: settings that replace the registry's, by the field names of the model's configuration (the
            `config_type` of its family, such as `voxnest.models.redimnet.ReDimNetConfig`).

    Raises:
        ConfigError: for an unknown name or setting (it names the nearest right one), a value of another type, or sizes
            that do not fit together.

    Examples:
        >>> encoder = create_encoder("redimnet-b0", dims=(64, 128, 192, 256))
        >>> encoder(torch.randn(1, 32000), dim=64).shape
        torch.Size([1, 64])
    """
    if name in CARDS:
        family, settings = CARDS[name].network, CARDS[name].settings
    elif name in FAMILIES:
        family, settings = FAMILIES[name], {}
    else:
        raise ConfigError("model", repr(name), one_of(name, [*CARDS, *FAMILIES]))
    for key in overrides:
        if key not in family.settings:
            raise ConfigError(f"{name}: {key}", "unknown setting", one_of(key, family.settings))
    if dims is not None:
        overrides["dims"] = dims
    label = family.architecture if set(overrides) - _SAME_NETWORK else name
    try:
        encoder = family.build({"level": level, **settings, **overrides}, name)
    except ConfigError as error:
        if error.subject.removeprefix(f"{name}: ").partition("[")[0] in (*overrides, "level"):
            raise  # it names the setting
        asked = ", ".join(f"{key}={reprlib.repr(value)}" for key, value in overrides.items())
        found = error.found if error.subject == name else f"{error.subject}: {error.found}"
        raise ConfigError(f"{name}: {asked}" if asked else name, found, error.expected) from error
    encoder.name = label
    return encoder


_SAME_NETWORK = {"dims", "mask_bins", "mask_frames"}
"""What a published size may have otherwise and still be called by its name."""
