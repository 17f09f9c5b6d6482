"""The registry: what can be built by name, and what was published about it. A model's card is data."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from voxnest.errors import ConfigError
from voxnest.models import redimnet, redimnet2
from voxnest.models.encoder import SpeakerEncoder


@dataclass(frozen=True)
class Published:
    """What the source says of a model.

    Attributes:
        parameters: in millions.
        gmacs: multiply-accumulates for 2 s of speech, in thousands of millions.
        eer: equal error rate in percent per test list, without score normalisation.
        eer_as_norm: the same with adaptive score normalisation.
        source: where it says so.
        note: why the built model's counts differ from the published ones by more than 3%.
    """

    parameters: float | None = None
    gmacs: float | None = None
    eer: dict[str, float] = field(default_factory=dict)
    eer_as_norm: dict[str, float] = field(default_factory=dict)
    source: str = ""
    note: str = ""


@dataclass(frozen=True)
class Card:
    """One entry of the registry.

    Attributes:
        summary: one line.
        build: makes the encoder from the name and settings.
        config_type: dataclass of the settings; its fields are what `create_encoder` accepts.
        settings: those that differ from the defaults of `config_type`.
        published: figures of the source.
    """

    summary: str
    build: Callable[[str, dict[str, Any]], SpeakerEncoder]
    config_type: type
    settings: dict[str, Any]
    published: Published = Published()


def _redimnet(summary: str, published: Published = Published(), **settings: Any) -> Card:
    return Card(summary, redimnet.build, redimnet.ReDimNetConfig, settings, published)


def _redimnet2(summary: str, published: Published, **settings: Any) -> Card:
    return Card(summary, redimnet2.build, redimnet2.ReDimNet2Config, settings, published)


_VOX1 = ("Vox1-O", "Vox1-E", "Vox1-H")


def _vox1(
    parameters: float, gmacs: float, eer: tuple[float, ...], as_norm: tuple[float, ...], note: str = ""
) -> Published:
    """Of ReDimNet's paper; EERs in the order of `_VOX1`, without and with score normalisation."""
    source = "arXiv 2407.18223, large-margin fine-tuned on VoxCeleb2"
    lists = dict(zip(_VOX1, eer, strict=True)), dict(zip(_VOX1, as_norm, strict=True))
    return Published(parameters, gmacs, *lists, source, note)


def _vox1_second(parameters: float, gmacs: float, eer: tuple[float, ...], note: str = "") -> Published:
    """Of ReDimNet2's paper, which gives no rates with score normalisation."""
    source = "arXiv 2603.11841, large-margin fine-tuned on VoxCeleb2"
    return Published(parameters, gmacs, dict(zip(_VOX1, eer, strict=True)), source=source, note=note)


def _cross(*eer: float) -> Published:
    lists = (*_VOX1, "SITW", "VOiCES", "CN-Celeb")
    source = "EVALUATION.md of IDRnD/ReDimNet, ft_mix on VoxBlink2, VoxCeleb2 and CN-Celeb; it gives no counts"
    return Published(eer=dict(zip(lists, eer, strict=True)), source=source)


_POOLING = "attentive pooling takes the utterance's statistics once, not at every frame as the official code does"
_WESPEAKER = "wespeaker's configuration; the official one is only in the released checkpoint"
_B5_STAGES = [(1, 4, 2, 48), (2, 4, 2, 48), (1, 6, 2, 48), (2, 6, 1, 32), (1, 8, 1, 24), (2, 4, 1, 16)]


def _size_stages(reduction: int) -> list[redimnet.Stage]:
    """The stages of sizes S and M, whose channels differ."""
    blocks = [(1, 4, 2), (2, 5, 2), (1, 6, 2), (2, 8, 1), (1, 8, 1), (2, 3, 1)]
    return [(stride, count, expansion, reduction) for stride, count, expansion in blocks]


def _second_stages(blocks: Sequence[tuple[int, int, int]]) -> list[redimnet2.Stage]:
    """Six stages from the number of 2-D blocks, expansion and reduction of each."""
    strides = [(1, 1), (2, 1), (1, 2), (2, 1), (1, 2), (2, 1)]
    return [
        (stride, count, expansion, [(3, 3)], reduction)
        for stride, (count, expansion, reduction) in zip(strides, blocks, strict=True)
    ]


# b-sizes: the configurations that wespeaker publishes, with the official analysis hop of 240 samples. Two are known to
# be the released ones, from the number of tensors and weights in the files (b2-vox2-*.pt 556 and 5,100,983;
# b5-vox2-ft_lm.pt 1,052 and 7,709,351, reported by a CoreML conversion of them): b5 as it is, b2 with other strides. S
# and M are as printed from the released files (shanguanma/speaker_diarization).
CARDS: dict[str, Card] = {
    "redimnet-tiny": _redimnet(
        "tests, demo",
        bins=40,
        channels=8,
        stages=[(1, 1, 1, None), (2, 2, 1, None), (2, 2, 1, 8)],
        block_1d="conv+att",
        group_divisor=8,
        out_channels=128,
        hop_length=240,
        dims=(16, 32, 64),
    ),
    "redimnet-b0": _redimnet(
        "small devices",
        _vox1(1.0, 0.43, (1.16, 1.25, 2.20), (1.07, 1.18, 2.01), f"{_POOLING} (with that: 0.41)"),
        bins=60,
        channels=10,
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=[(1, 2, 1, 30), (2, 3, 2, 30), (1, 3, 3, 30), (2, 4, 2, 10), (1, 3, 1, 10)],
        group_divisor=1,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b1": _redimnet(
        "small servers",
        _vox1(2.2, 0.54, (0.85, 0.97, 1.73), (0.73, 0.89, 1.57), _WESPEAKER),
        channels=12,
        block_1d="conv+att",
        stages=[(1, 2, 1, None), (2, 3, 1, None), (3, 4, 1, 12), (2, 5, 1, 12), (2, 3, 1, 8)],
        group_divisor=8,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b2": _redimnet(
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
    "redimnet-b3": _redimnet(
        "deep, narrow",
        _vox1(3.0, 3.00, (0.50, 0.73, 1.33), (0.47, 0.69, 1.23), _WESPEAKER),
        block_1d="conv+att",
        block_2d="basic_resnet_fwse",
        stages=[(1, 6, 4, 32), (2, 6, 2, 32), (1, 8, 2, 32), (2, 10, 2, 16), (1, 10, 1, 16), (2, 8, 1, 16)],
        group_divisor=1,
        hop_length=240,
        global_context=True,
    ),
    "redimnet-b4": _redimnet(
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
    "redimnet-b5": _redimnet(
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
    "redimnet-b6": _redimnet(
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
    "redimnet-s": _redimnet(
        "speech unlike VoxCeleb",
        _cross(0.936, 0.874, 1.510, 1.310, 2.774, 8.043),
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=_size_stages(16),
        group_divisor=8,
        global_context=True,
    ),
    "redimnet-m": _redimnet(
        "speech unlike VoxCeleb",
        _cross(0.835, 0.745, 1.284, 1.203, 2.703, 7.474),
        channels=24,
        block_1d="conv+att",
        block_2d="basic_resnet",
        stages=_size_stages(24),
        group_divisor=8,
        global_context=True,
    ),
    # The configurations that wespeaker publishes (b4, b6) and that of the official recipe (b3). For b0, b1, b2 and b5
    # wespeaker's have fewer output channels and too few parameters; these numbers of output channels give the published
    # parameters and GMACs together.
    "redimnet2-b0": _redimnet2(
        "small devices",
        _vox1_second(1.1, 0.33, (1.04, 1.16, 1.97), f"{_POOLING} (with that: 0.33)"),
        channels=12,
        stages=_second_stages([(2, 2, 36), (3, 1, 36), (4, 1, 36), (5, 1, 36), (4, 1, 18), (3, 1, 18)]),
        out_channels=288,
    ),
    "redimnet2-b1": _redimnet2(
        "small servers",
        _vox1_second(2.1, 0.56, (0.78, 0.96, 1.72)),
        channels=16,
        stages=_second_stages([(2, 2, 32), (3, 1, 32), (4, 1, 32), (5, 1, 32), (4, 1, 16), (3, 1, 16)]),
        out_channels=480,
    ),
    "redimnet2-b2": _redimnet2(
        "a good default",
        _vox1_second(3.6, 0.95, (0.57, 0.76, 1.41)),
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
    "redimnet2-b3": _redimnet2(
        "accurate, few parameters",
        _vox1_second(4.1, 2.70, (0.42, 0.66, 1.22), f"{_POOLING} (with that: 2.70)"),
        channels=24,
        norm_groups=24,
        mix_2d=True,
    ),
    "redimnet2-b4": _redimnet2(
        "larger",
        _vox1_second(6.6, 4.62, (0.37, 0.58, 1.07)),
        channels=32,
    ),
    "redimnet2-b5": _redimnet2(
        "larger still",
        _vox1_second(8.9, 9.62, (0.33, 0.56, 1.07)),
        channels=48,
        stages=_second_stages([(2, 4, 48), (3, 3, 48), (4, 2, 48), (5, 1, 48), (4, 1, 32), (3, 1, 32)]),
        out_channels=512,
    ),
    "redimnet2-b6": _redimnet2(
        "most accurate of all",
        _vox1_second(12.3, 13.05, (0.29, 0.52, 0.99)),
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


def list_models() -> list[str]:
    """The names that `create_encoder` knows."""
    return list(CARDS)


def create_encoder(name: str, *, dims: Sequence[int] | None = None, **overrides: Any) -> SpeakerEncoder:
    """Build an untrained encoder.

    Args:
        name: one of `list_models()`.
        dims: sizes of the embeddings; several make a Matryoshka head, each a prefix of the largest.
        overrides: settings that replace the registry's, by the field names of the model's configuration
            (`voxnest.models.redimnet.ReDimNetConfig`, `voxnest.models.redimnet2.ReDimNet2Config`).

    Raises:
        ConfigError: for an unknown name or setting; it names the nearest right one.

    Example:
        >>> encoder = create_encoder("redimnet-b0", dims=(64, 128, 192, 256))
        >>> encoder(torch.randn(1, 32000), dim=64).shape
        torch.Size([1, 64])
    """
    if name not in CARDS:
        raise ConfigError("model", repr(name), _nearest(name, list_models()))
    card = CARDS[name]
    known = [item.name for item in fields(card.config_type)]
    for key in overrides:
        if key not in known:
            raise ConfigError(f"{name}: {key}", "unknown setting", _nearest(key, known))
    settings = {**card.settings, **overrides}
    if dims is not None:
        settings["dims"] = tuple(dims)
    return card.build(name, settings)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"{close[0]!r}?" if close else "one of " + ", ".join(known)
