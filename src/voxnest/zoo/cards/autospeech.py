"""Cards of AutoSpeech: the network that the paper searched, and the residual networks that it is compared with.

Top-1 is the share of the test recordings of VoxCeleb1's 1,251 speakers that are told right.
"""

from typing import Any

from voxnest.zoo.card import Card, Published

SIZES: dict[str, dict[str, Any]] = {
    "autospeech-resnet18": {"blocks": (2, 2, 2, 2)},
    "autospeech-resnet34": {},
}
"""Settings of the residual networks."""


def _card(
    family: str,
    summary: str,
    architecture: str,
    settings: dict[str, Any],
    parameters: float,
    with_classes: str,
    top1: float,
    eer: float,
) -> Card:
    return Card(
        family,
        summary,
        architecture,
        settings,
        Published(
            parameters=parameters,
            eer={"Vox1-O": eer},
            source=f"arXiv 2005.03215, trained on VoxCeleb1, original trial list; Top-1 {top1}%",
            note=f"the published count is with the class layer of 1,251 speakers: {with_classes} M with it here",
        ),
    )


CARDS: dict[str, Card] = {
    "autospeech": _card("AutoSpeech", "searched for speakers", "autospeech", {}, 18.0, "17.67", 87.66, 8.95),
    "autospeech-resnet18": _card(
        "AutoSpeech ResNet",
        "its baseline",
        "autospeech-resnet",
        SIZES["autospeech-resnet18"],
        12.0,
        "11.81",
        79.48,
        12.30,
    ),
    "autospeech-resnet34": _card(
        "AutoSpeech ResNet",
        "its baseline",
        "autospeech-resnet",
        SIZES["autospeech-resnet34"],
        22.0,
        "21.92",
        81.34,
        11.99,
    ),
}
