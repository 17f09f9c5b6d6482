"""ERes2Net and ERes2NetV2 give what wespeaker and 3D-Speaker give, and behave as speaker encoders."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import golden_files
from voxnest.errors import CheckpointError, ConfigError
from voxnest.hub import convert
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.eres2net import FAMILY, AttentionalFusion, ERes2NetBlock, ERes2NetConfig
from voxnest.zoo.cards.eres2net import CARDS, SIZES
from voxnest.zoo.counting import count_parameters

# Made from the references as they are published, some in a smaller size.
GOLDEN = ["eres2net-base", "eres2net-aug-small", "eres2netv2-small"]


def small(**settings: object) -> SpeakerEncoder:
    return FAMILY.build({"bins": 24, "channels": 8, "blocks": (1, 1, 1, 1), "dims": (16,), **settings})


def embed(encoder: SpeakerEncoder, features: Tensor) -> Tensor:
    embedding = encoder.embed_features(features)
    assert isinstance(embedding, Tensor)
    return embedding


@cache
def read_golden(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    file = golden_files.read(path)
    return file, golden_files.make_state_dict(file)


@pytest.mark.parametrize("name", GOLDEN)
def test_embedding_equals_that_of_the_reference(golden: Path, name: str) -> None:
    file, weights = read_golden(golden / f"{name}.json.gz")
    encoder = convert(file["architecture"], file["config"], weights)
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = embed(encoder, golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    # Left out are the offsets that a batch normalisation takes out again.
    offsets = [shape[0] for key, shape in file["keys"] if key.endswith((".local_att.0.bias", ".local_att.3.bias"))]
    assert count_parameters(encoder) + sum(offsets) == file["parameters"]


def test_model_of_3dspeaker_has_its_filter_bank_and_settings_build_it_again(golden: Path) -> None:
    file, weights = read_golden(golden / "eres2net-aug-small.json.gz")
    encoder = convert("eres2net-aug", file["config"], weights)
    assert encoder.frontend.scale == 1.0
    again = FAMILY.build(encoder.config)
    again.load_state_dict(encoder.state_dict())
    waveform = torch.randn(1, 6000)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(waveform), encoder(waveform))


def test_wrong_weights_and_arguments_are_listed(golden: Path) -> None:
    file, weights = read_golden(golden / "eres2netv2-small.json.gz")
    config, name = file["config"], file["architecture"]
    with pytest.raises(CheckpointError, match=r"10 missing keys: .*backbone\.fusions\.0\.squeeze\.norm\.running_mean"):
        convert(name, config, {key: value for key, value in weights.items() if "fuse34" not in key})
    with pytest.raises(CheckpointError, match=r"unexpected key: 'fuse5\.weight'"):
        convert(name, config, {**weights, "fuse5.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="shape"):
        convert(name, {**config, "baseWidth": 32}, weights)
    with pytest.raises(ConfigError, match="depth"):
        convert(name, {**config, "depth": 3}, weights)
    with pytest.raises(ConfigError, match="eres2net34"):
        convert("eres2net34", config, weights)


def test_every_size_has_a_card() -> None:
    assert list(CARDS) == list(SIZES)


def test_fusion_is_the_weighed_sum_of_the_paper() -> None:
    fusion, x, y = AttentionalFusion(8).eval(), torch.randn(2, 8, 3, 5), torch.randn(2, 8, 3, 5)
    hidden = fusion.squeeze(torch.cat([x, y], dim=1))
    attention = torch.tanh(fusion.excite(hidden * torch.sigmoid(hidden)))
    torch.testing.assert_close(fusion(x, y), (1 + attention) * x + (1 - attention) * y)


def test_fusion_and_blocks_leave_their_input_as_it_was() -> None:
    x, y = torch.randn(1, 8, 6, 6), torch.randn(1, 8, 6, 6)
    before = x.clone(), y.clone()
    with torch.inference_mode():
        AttentionalFusion(8).eval()(x, y)
        for fuse in (False, True):
            ERes2NetBlock(8, 8, 4, 2, 1, fuse=fuse).eval()(x)
    torch.testing.assert_close((x, y), before)


@pytest.mark.parametrize("frames", [9, 10, 15, 17])
def test_short_and_odd_lengths_give_an_embedding(frames: int) -> None:
    for encoder in (small().eval(), small(fuse_from=3, bins=21).eval()):
        features = torch.randn(1, encoder.config["bins"], frames)
        assert embed(encoder, features).isfinite().all()
        assert encoder.backbone(features).shape[1] == -(-frames // 8)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bins", 0),
        ("channels", 0),
        ("expansion", 0),
        ("width", 0),
        ("width", 1),
        ("scale", 1),
        ("blocks", (3, 4, 6)),
        ("blocks", (3, 4, 6, 0)),
        ("fuse_from", 4),
        ("fuse_from", 0),
    ],
)
def test_bad_settings_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        ERes2NetConfig(**{setting: value})
