"""Cards of DF-ResNet (Interspeech 2022) and Gemini DF-ResNet (arXiv 2312.03620)."""

from typing import Any

from voxnest.zoo.card import Card, Published, vox1

_PLAIN: dict[str, Any] = {"strides": ((1, 1), (2, 2), (2, 2), (2, 2))}
_SMALL: dict[str, Any] = {**_PLAIN, "kernel_size": 2}

SIZES: dict[str, dict[str, Any]] = {
    "df-resnet56": {**_SMALL, "blocks": (3, 3, 9, 3)},
    "df-resnet110": {**_SMALL, "blocks": (3, 3, 27, 3)},
    "df-resnet179": {**_PLAIN, "blocks": (3, 8, 45, 3)},
    "df-resnet233": {**_PLAIN, "blocks": (3, 8, 63, 3)},
    "gemini-dfresnet60": {"blocks": (3, 3, 9, 3)},
    "gemini-dfresnet114": {"blocks": (3, 3, 27, 3)},
    "gemini-dfresnet183": {"blocks": (3, 8, 45, 3)},
    "gemini-dfresnet237": {"blocks": (3, 8, 63, 3)},
}
"""Settings of the published sizes."""

_NORMS = "the published GMACs count normalisations too, and 200 frames where 2 s give 198"
_TABLE = "as ReDimNet's table (arXiv 2407.18223) cites it"


def _card(name: str, summary: str, published: Published) -> Card:
    family = "Gemini DF-ResNet" if name.startswith("gemini") else "DF-ResNet"
    return Card(family, summary, "df-resnet", SIZES[name], published)


def _plain(parameters: float, gmacs: float, as_norm: tuple[float, ...]) -> Published:
    return vox1(parameters, gmacs, as_norm=as_norm, source=f"DF-ResNet, Interspeech 2022, {_TABLE}", note=_NORMS)


def _gemini(parameters: float, gmacs: float, as_norm: tuple[float, ...], note: str) -> Published:
    return vox1(parameters, gmacs, as_norm=as_norm, source=f"arXiv 2312.03620, {_TABLE}", note=note)


CARDS: dict[str, Card] = {
    "df-resnet56": _card("df-resnet56", "deep and narrow", _plain(4.5, 2.66, (0.96, 1.09, 1.99))),
    "df-resnet110": _card(
        "df-resnet110", "deeper and narrow", Published(source="DF-ResNet, Interspeech 2022; weights were not published")
    ),
    "df-resnet179": _card(
        "df-resnet179", "deeper and narrow", Published(source="DF-ResNet, Interspeech 2022; weights were not published")
    ),
    "df-resnet233": _card("df-resnet233", "deepest and narrow", _plain(12.3, 11.17, (0.58, 0.76, 1.44))),
    "gemini-dfresnet60": _card(
        "gemini-dfresnet60",
        "keeps more of time",
        _gemini(4.05, 2.50, (0.94, 1.05, 1.80), "the published GMACs are an estimate of ReDimNet's authors"),
    ),
    "gemini-dfresnet114": _card(
        "gemini-dfresnet114",
        "keeps more of time, deeper",
        _gemini(6.53, 5.00, (0.69, 0.86, 1.49), "wespeaker counts 5.42 GMACs, with normalisations"),
    ),
    "gemini-dfresnet183": _card(
        "gemini-dfresnet183",
        "keeps more of time, deep",
        _gemini(9.20, 8.25, (0.60, 0.81, 1.44), _NORMS),
    ),
    "gemini-dfresnet237": _card(
        "gemini-dfresnet237",
        "keeps more of time, deepest",
        Published(source="wespeaker's configuration; no results were published"),
    ),
}
