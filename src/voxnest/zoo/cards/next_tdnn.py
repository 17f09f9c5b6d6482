"""Cards of NeXt-TDNN (arXiv 2312.08603).

Counts and EERs of its table 2; the table counts multiply-accumulates for 3 s, two thirds of which are given here.
"""

from voxnest.zoo.card import Card, vox1


def _card(
    summary: str,
    channels: int,
    blocks: int,
    light: bool,
    parameters: float,
    gmacs_3s: float,
    eer: tuple[float, ...],
    note: str = "",
) -> Card:
    settings = {
        "channels": channels,
        "blocks": (blocks,) * 3,
        "kernel_sizes": (65,) if light else (7, 65),
        "light": light,
    }
    published = vox1(parameters, round(gmacs_3s * 2 / 3, 3), eer, source="arXiv 2312.08603, table 2", note=note)
    return Card("NeXt-TDNN", summary, "next-tdnn", settings, published)


CARDS: dict[str, Card] = {
    "next-tdnn-light-192-b1": _card("small devices", 192, 1, True, 1.6, 0.417, (1.39, 1.52, 2.49)),
    "next-tdnn-light-128-b3": _card(
        "small devices", 128, 3, True, 1.6, 0.441, (1.10, 1.24, 2.12), "1.65 M, of which the table prints 1.6"
    ),
    "next-tdnn-192-b1": _card("small devices", 192, 1, False, 1.8, 0.478, (1.31, 1.39, 2.28)),
    "next-tdnn-128-b3": _card("small servers", 128, 3, False, 1.9, 0.519, (1.03, 1.17, 1.98)),
    "next-tdnn-light-384-b1": _card("few layers", 384, 1, True, 5.9, 1.609, (1.05, 1.18, 2.02)),
    "next-tdnn-light-256-b3": _card("larger, plain blocks", 256, 3, True, 6.0, 1.695, (0.81, 1.04, 1.86)),
    "next-tdnn-384-b1": _card("few layers", 384, 1, False, 6.7, 1.862, (0.93, 1.11, 1.89)),
    "next-tdnn-256-b3": _card("most accurate of these", 256, 3, False, 7.1, 2.027, (0.79, 1.04, 1.82)),
}
