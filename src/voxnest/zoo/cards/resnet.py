"""Cards of ResNet, SimAM-ResNet and Res2Net, in wespeaker's sizes.

EERs that ReDimNet's paper does not print are those of wespeaker's results on VoxCeleb (examples/voxceleb/v2).
"""

from typing import Any

from voxnest.zoo.card import VOX1, Card, Published, vox1

SIZES: dict[str, dict[str, Any]] = {
    "resnet18": {"blocks": (2, 2, 2, 2)},
    "resnet34": {},
    "resnet50": {"block": "bottleneck"},
    "resnet101": {"block": "bottleneck", "blocks": (3, 4, 23, 3)},
    "resnet152": {"block": "bottleneck", "blocks": (3, 8, 36, 3)},
    "resnet221": {"block": "bottleneck", "blocks": (6, 16, 48, 3)},
    "resnet293": {"block": "bottleneck", "blocks": (10, 20, 64, 3)},
    "simam-resnet34": {"block": "simam", "channels": 64, "pooling": "ASP"},
    "simam-resnet100": {"block": "simam", "channels": 64, "blocks": (6, 16, 24, 3), "pooling": "ASP"},
    "res2net34": {"block": "res2net"},
    "res2net34-large": {"block": "res2net", "channels": 64},
}
"""Settings of the published sizes."""

_WESPEAKER = "wespeaker, examples/voxceleb/v2"
_FAMILIES = {"resnet": "ResNet", "simam-resnet": "SimAM-ResNet", "res2net": "Res2Net"}


def _card(name: str, summary: str, published: Published | None = None) -> Card:
    return Card(
        _FAMILIES[name.removesuffix("-large").rstrip("0123456789")],
        summary,
        "resnet",
        SIZES[name],
        published or Published(),
    )


def _uncounted(parameters: float, eer: tuple[float, ...], as_norm: tuple[float, ...]) -> Published:
    rates = [dict(zip(VOX1, values, strict=True)) for values in (eer, as_norm)]
    source = f"{_WESPEAKER}, trained on VoxBlink2, large-margin fine-tuned on VoxCeleb2; it gives no GMACs"
    return Published(parameters, None, rates[0], rates[1], source)


CARDS: dict[str, Card] = {
    "resnet18": _card("resnet18", "small servers"),
    "resnet34": _card(
        "resnet34",
        "the field's baseline",
        vox1(
            6.63,
            4.55,
            (0.82, 0.93, 1.68),
            (0.723, 0.867, 1.532),
            source=f"arXiv 2407.18223, large-margin fine-tuned on VoxCeleb2; with AS-norm and counts: {_WESPEAKER}",
        ),
    ),
    "resnet50": _card("resnet50", "bottleneck blocks"),
    "resnet101": _card("resnet101", "bottleneck blocks, deep"),
    "resnet152": _card("resnet152", "bottleneck blocks, deep"),
    "resnet221": _card(
        "resnet221",
        "accurate, deep",
        vox1(
            23.79,
            21.29,
            (0.580, 0.729, 1.351),
            (0.505, 0.676, 1.213),
            source=f"{_WESPEAKER}, large-margin fine-tuned on VoxCeleb2",
        ),
    ),
    "resnet293": _card(
        "resnet293",
        "most accurate, deep",
        vox1(
            28.62,
            28.10,
            (0.53, 0.71, 1.30),
            (0.447, 0.657, 1.183),
            source="arXiv 2407.18223, large-margin fine-tuned on VoxCeleb2; with AS-norm and counts (the paper prints "
            f"ResNet221's): {_WESPEAKER}",
        ),
    ),
    "simam-resnet34": _card(
        "simam-resnet34",
        "wide, with SimAM attention",
        _uncounted(25.2, (0.415, 0.615, 1.121), (0.372, 0.581, 1.049)),
    ),
    "simam-resnet100": _card(
        "simam-resnet100",
        "wide and deep, with SimAM attention",
        _uncounted(50.2, (0.229, 0.458, 0.868), (0.207, 0.424, 0.804)),
    ),
    "res2net34": _card(
        "res2net34",
        "Res2Net blocks, light",
        vox1(
            4.68,
            1.77,
            (1.351, 1.347, 2.478),
            (1.234, 1.232, 2.162),
            source=f"{_WESPEAKER}, without large-margin fine-tuning",
            note="the published GMACs count normalisations too, and 200 frames where 2 s give 198",
        ),
    ),
    "res2net34-large": _card("res2net34-large", "Res2Net blocks, wide"),
}
