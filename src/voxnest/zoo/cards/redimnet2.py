"""Cards of ReDimNet2 (arXiv 2603.11841).

The configurations that wespeaker publishes (b4, b6) and that of the official recipe (b3). For b0, b1, b2 and b5
wespeaker's have fewer output channels and too few parameters; these numbers of output channels give the published
parameters and GMACs together.
"""

from collections.abc import Sequence
from typing import Any

from voxnest.zoo.card import Card, Published, vox1
from voxnest.zoo.cards.redimnet import POOLING


def _card(summary: str, published: Published, **settings: Any) -> Card:
    return Card("ReDimNet2", summary, "redimnet2", settings, published)


def _vox1(parameters: float, gmacs: float, eer: tuple[float, ...], note: str = "") -> Published:
    source = "arXiv 2603.11841, large-margin fine-tuned on VoxCeleb2"
    return vox1(parameters, gmacs, eer, source=source, note=note)


def _stages(blocks: Sequence[tuple[int, int, int]]) -> list[tuple[Any, ...]]:
    """Six stages from the number of 2-D blocks, expansion and reduction of each."""
    strides = [(1, 1), (2, 1), (1, 2), (2, 1), (1, 2), (2, 1)]
    return [
        (stride, count, expansion, [(3, 3)], reduction)
        for stride, (count, expansion, reduction) in zip(strides, blocks, strict=True)
    ]


CARDS: dict[str, Card] = {
    "redimnet2-b0": _card(
        "small devices",
        _vox1(1.1, 0.33, (1.04, 1.16, 1.97), f"{POOLING} (with that: 0.33)"),
        channels=12,
        stages=_stages([(2, 2, 36), (3, 1, 36), (4, 1, 36), (5, 1, 36), (4, 1, 18), (3, 1, 18)]),
        out_channels=288,
    ),
    "redimnet2-b1": _card(
        "small servers",
        _vox1(2.1, 0.56, (0.78, 0.96, 1.72)),
        channels=16,
        stages=_stages([(2, 2, 32), (3, 1, 32), (4, 1, 32), (5, 1, 32), (4, 1, 16), (3, 1, 16)]),
        out_channels=480,
    ),
    "redimnet2-b2": _card(
        "a good default",
        _vox1(3.6, 0.95, (0.57, 0.76, 1.41)),
        channels=20,
        stages=[
            ((1, 1), 2, 2, [(3, 5)], 40),
            ((2, 1), 3, 1, [(3, 5)], 30),
            ((1, 2), 4, 1, [(3, 5)], 30),
            ((3, 1), 5, 1, [(3, 5)], 20),
            ((1, 2), 4, 1, [(3, 7)], 20),
            ((2, 1), 3, 1, [(3, 7)], 10),
        ],
        out_channels=512,
    ),
    "redimnet2-b3": _card(
        "accurate, few parameters",
        _vox1(4.1, 2.70, (0.42, 0.66, 1.22), f"{POOLING} (with that: 2.70)"),
        channels=24,
        norm_groups=24,
        mix_2d=True,
    ),
    "redimnet2-b4": _card(
        "larger",
        _vox1(6.6, 4.62, (0.37, 0.58, 1.07)),
        channels=32,
    ),
    "redimnet2-b5": _card(
        "larger still",
        _vox1(8.9, 9.62, (0.33, 0.56, 1.07)),
        channels=48,
        stages=_stages([(2, 4, 48), (3, 3, 48), (4, 2, 48), (5, 1, 48), (4, 1, 32), (3, 1, 32)]),
        out_channels=512,
    ),
    "redimnet2-b6": _card(
        "most accurate of all",
        _vox1(12.3, 13.05, (0.29, 0.52, 0.99)),
        channels=64,
        stages=[
            ((1, 1), 3, 3, [(3, 3)], 64),
            ((2, 1), 4, 2, [(3, 3)], 64),
            ((1, 2), 5, 2, [(3, 3)], 48),
            ((2, 1), 5, 1, [(3, 3)], 48),
            ((1, 2), 4, 0.75, [(3, 3)], 32),
            ((2, 1), 3, 0.5, [(3, 3)], 24),
        ],
        out_channels=224,
        mix_2d=True,
    ),
}
