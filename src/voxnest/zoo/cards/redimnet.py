"""Cards of ReDimNet (arXiv 2407.18223).

b-sizes have the configurations that wespeaker publishes, with the official analysis hop of 240 samples. Two are known
to be those of the released files, from their number of tensors and weights (b2-vox2-*.pt 556 and 5,100,983;
b5-vox2-ft_lm.pt 1,052 and 7,709,351, reported by a CoreML conversion of them): b5 as it is, b2 with other strides. S
and M are as printed from the released files (shanguanma/speaker_diarization).
"""

from typing import Any

from voxnest.zoo.card import VOX1, Card, Published, vox1

POOLING = "attentive pooling takes the utterance's statistics once, not at every frame as the official code does"
_WESPEAKER = "wespeaker's configuration; the official one is only in the released checkpoint"
_B5_STAGES = [(1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48), (2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16)]


def _card(summary: str, published: Published, **settings: Any) -> Card:
    return Card("ReDimNet", summary, "redimnet", settings, published)


def _vox1(
    parameters: float, gmacs: float, eer: tuple[float, ...], as_norm: tuple[float, ...], note: str = ""
) -> Published:
    source = "arXiv 2407.18223, large-margin fine-tuned on VoxCeleb2"
    return vox1(parameters, gmacs, eer, as_norm, source=source, note=note)


def _cross(*eer: float) -> Published:
    lists = (*VOX1, "SITW", "VOiCES", "CN-Celeb")
    source = "EVALUATION.md of IDRnD/ReDimNet, ft_mix on VoxBlink2, VoxCeleb2 and CN-Celeb; it gives no counts"
    return Published(eer=dict(zip(lists, eer, strict=True)), source=source)


def _size_stages(reduction: int) -> list[tuple[int, int, int, int]]:
    """The stages of sizes S and M, whose channels differ."""
    blocks = [(1, 4, 2), (2, 5, 2), (1, 6, 2), (2, 8, 1), (1, 8, 1), (2, 3, 1)]
    return [(stride, count, expansion, reduction) for stride, count, expansion in blocks]


CARDS: dict[str, Card] = {
    "redimnet-tiny": _card(
        "tests, demo",
        Published(),
        bins=40,
        channels=8,
        stages=[(1, 1, 1, None), (2, 2, 1, None), (2, 2, 1, 8)],
        block_1d="conv+att",
        group_divisor=8,
        out_channels=128,
        hop_length=240,
        dims=(16, 32, 64),
    ),
    "redimnet-b0": _card(
        "small devices",
        _vox1(1.0, 0.43, (1.16, 1.25, 2.20), (1.07, 1.18, 2.01), f"{POOLING} (with that: 0.41)"),
        bins=60,
        channels=10,
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=[(1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10)],
        group_divisor=1,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b1": _card(
        "small servers",
        _vox1(2.2, 0.54, (0.85, 0.97, 1.73), (0.73, 0.89, 1.57), _WESPEAKER),
        channels=12,
        block_1d="conv+att",
        stages=[(1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8)],
        group_divisor=8,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b2": _card(
        "the usual choice",
        _vox1(
            4.7,
            0.90,
            (0.57, 0.76, 1.32),
            (0.52, 0.74, 1.27),
            "the released checkpoint holds 5.07 M parameters; these strides give just its number of weights",
        ),
        block_1d="conv+att",
        stages=[(1, 2, 1, 12), (2, 2, 1, 12), (1, 3, 1, 12), (3, 4, 1, 8), (1, 4, 1, 8), (2, 4, 1, 4)],
        group_divisor=4,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b3": _card(
        "deep, narrow",
        _vox1(3.0, 3.00, (0.50, 0.73, 1.33), (0.47, 0.69, 1.23), _WESPEAKER),
        block_1d="conv+att",
        block_2d="basic_resnet_fwse",
        stages=[(1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32), (2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16)],
        group_divisor=1,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b4": _card(
        "larger",
        _vox1(6.3, 4.80, (0.51, 0.68, 1.26), (0.44, 0.64, 1.17)),
        channels=32,
        block_1d="conv+att",
        block_2d="basic_resnet_fwse",
        stages=_B5_STAGES,
        group_divisor=1,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b5": _card(
        "larger still",
        _vox1(
            9.2,
            9.87,
            (0.43, 0.61, 1.08),
            (0.39, 0.59, 1.05),
            "the released checkpoint holds 7.66 M parameters, as this configuration does",
        ),
        channels=32,
        block_1d="conv+att",
        block_2d="basic_resnet_fwse",
        stages=_B5_STAGES,
        group_divisor=16,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b6": _card(
        "most accurate",
        _vox1(15.0, 20.27, (0.40, 0.55, 1.05), (0.37, 0.53, 1.00)),
        channels=32,
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=[(1, 4, 4, 32), (2, 6, 2, 32), (1, 6, 2, 24), (3, 8, 1, 24), (1, 8, 1, 16), (2, 8, 1, 16)],
        group_divisor=32,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-s": _card(
        "speech unlike VoxCeleb",
        _cross(0.936, 0.874, 1.510, 1.310, 2.774, 8.043),
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=_size_stages(16),
        group_divisor=8,
        global_context=True,
    ),
    "redimnet-m": _card(
        "speech unlike VoxCeleb",
        _cross(0.835, 0.745, 1.284, 1.203, 2.703, 7.474),
        channels=24,
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=_size_stages(24),
        group_divisor=8,
        global_context=True,
    ),
}
