"""Cards of ERes2Net (arXiv 2305.12838) and ERes2NetV2 (arXiv 2406.02167), in the sizes of 3D-Speaker.

3D-Speaker reports the original trial list alone, and no GMACs for 2 s.
"""

from typing import Any

from voxnest.zoo.card import Card, Published, vox1

SIZES: dict[str, dict[str, Any]] = {
    "eres2net-base": {},
    "eres2net-large": {"channels": 64},
    "eres2net-aug": {"channels": 64, "width": 24, "scale": 3, "expansion": 4},
    "eres2netv2": {"channels": 64, "width": 26, "fuse_from": 3},
    "eres2netv2-w24s4ep4": {"channels": 64, "width": 24, "scale": 4, "expansion": 4, "fuse_from": 3},
}
"""Settings of the published sizes."""

_3DSPEAKER = "3D-Speaker, large-margin fine-tuned on VoxCeleb2"
_RELEASED = "released by 3D-Speaker, trained on 200,000 Chinese speakers; it gives no figures"


def _card(name: str, summary: str, published: Published) -> Card:
    family = "ERes2NetV2" if name.startswith("eres2netv2") else "ERes2Net"
    return Card(family, summary, "eres2net", SIZES[name], published)


CARDS: dict[str, Card] = {
    "eres2net-base": _card(
        "eres2net-base",
        "2-D, fuses features by attention",
        vox1(
            6.61,
            3.43,
            (0.824, 0.968, 1.776),
            (0.744, 0.896, 1.603),
            source="parameters: 3D-Speaker, which reports an EER of 0.84 on Vox1-O; GMACs and EERs: wespeaker, "
            "examples/voxceleb/v2, large-margin fine-tuned on VoxCeleb2, with an embedding of 512 numbers",
        ),
    ),
    "eres2net-large": _card(
        "eres2net-large",
        "2-D, fuses features by attention, wide",
        Published(22.46, None, {"Vox1-O": 0.52}, source=_3DSPEAKER),
    ),
    "eres2net-aug": _card(
        "eres2net-aug",
        "2-D, fuses features by attention, very wide",
        Published(source=_RELEASED),
    ),
    "eres2netv2": _card(
        "eres2netv2",
        "for short utterances",
        Published(17.8, None, {"Vox1-O": 0.61}, source=f"{_3DSPEAKER}; it counts 12.69 GMACs for 300 frames"),
    ),
    "eres2netv2-w24s4ep4": _card(
        "eres2netv2-w24s4ep4",
        "for short utterances, very wide",
        Published(source=_RELEASED),
    ),
}
