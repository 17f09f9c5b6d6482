"""The registry: what can be built by name."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from voxnest.errors import ConfigError, one_of
from voxnest.models.cards import CARDS
from voxnest.models.encoder import SpeakerEncoder

__all__ = ["CARDS", "create_encoder", "list_models"]


def list_models() -> list[str]:
    """The names that `create_encoder` knows."""
    return list(CARDS)


def create_encoder(name: str, *, dims: Sequence[int] | None = None, **overrides: Any) -> SpeakerEncoder:
    """Build an untrained encoder.

    Args:
        name: one of `list_models()`.
        dims: sizes of the embeddings; several make a Matryoshka head, each a prefix of the largest.
        overrides: settings that replace the registry's, by the field names of the model's configuration (the
            `config_type` of its card, such as `voxnest.models.redimnet.ReDimNetConfig`).

    Raises:
        ConfigError: for an unknown name or setting; it names the nearest right one.

    Example:
        >>> encoder = create_encoder("redimnet-b0", dims=(64, 128, 192, 256))
        >>> encoder(torch.randn(1, 32000), dim=64).shape
        torch.Size([1, 64])
    """
    if name not in CARDS:
        raise ConfigError("model", repr(name), one_of(name, list_models()))
    card = CARDS[name]
    known = [item.name for item in fields(card.config_type)]
    for key in overrides:
        if key not in known:
            raise ConfigError(f"{name}: {key}", "unknown setting", one_of(key, known))
    settings = {**card.settings, **overrides}
    if dims is not None:
        settings["dims"] = tuple(dims)
    return card.build(name, settings)
