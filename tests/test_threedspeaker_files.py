"""Checkpoints of 3D-Speaker are recognised by their weights alone; others are refused with a word on what they are."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import golden_files
from voxnest import load_encoder
from voxnest.errors import CheckpointError
from voxnest.foreign.encoders import make_encoder
from voxnest.foreign.reading import read_foreign
from voxnest.foreign.threedspeaker import describe_3dspeaker
from voxnest.models.eres2net import ERes2NetConfig
from voxnest.zoo.cards.eres2net import SIZES


@cache
def read_golden(golden: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    file = golden_files.read(golden / f"{name}.json.gz")
    return file, golden_files.make_state_dict(file)


@pytest.mark.parametrize(
    ("name", "architecture", "suffix"),
    [
        ("campplus-3dspeaker", "campplus", "campplus_cn_common.bin"),
        ("eres2netv2-small", "eres2netv2", "pretrained_eres2netv2.ckpt"),
        ("eres2net-aug-small", "eres2net-base", "pretrained_eres2net_aug.pt"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_gives_the_embedding_of_3dspeaker(
    golden: Path, tmp_path: Path, name: str, architecture: str, suffix: str, prefix: str
) -> None:
    file, weights = read_golden(golden, name)
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / suffix)
    found = read_foreign(tmp_path / suffix)
    assert found.architecture == architecture
    encoder = make_encoder(found)
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert encoder.frontend.scale == 1.0
    assert {**found.config, **file["config"]} == found.config


@pytest.mark.parametrize("name", list(SIZES))
@pytest.mark.parametrize("dim", [192, 512])
def test_released_sizes_of_eres2net_are_told_apart_by_their_shapes(name: str, dim: int) -> None:
    found = describe_3dspeaker(make_eres2net(ERes2NetConfig(**SIZES[name]), dim), "file")
    config = found.config
    assert found.architecture == name
    assert config["embedding_size"] == dim
    known = ERes2NetConfig(**SIZES[name])
    assert (config["m_channels"], config["baseWidth"], config["scale"]) == (known.channels, known.width, known.scale)
    assert (config["expansion"], config["feat_dim"]) == (known.expansion, 80)


def test_size_without_a_name_is_called_as_its_kind(golden: Path) -> None:
    found = describe_3dspeaker(read_golden(golden, "eres2net-aug-small")[1], "file")
    assert found.architecture == "eres2net-base"
    assert (found.config["m_channels"], found.config["two_emb_layer"]) == (16, True)


@pytest.mark.parametrize(
    ("contents", "found"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({}, "holds nothing"),
        ({"epoch": 3, "optimizer": {}}, "holds epoch, optimizer"),
        ({"blocks.0.conv.conv.weight": torch.zeros(1)}, r"another model \('blocks.0.conv.conv.weight'"),
        ({"conv1.weight": torch.zeros(1), "projection.weight": torch.zeros(1)}, r"wespeaker \('projection.weight'"),
        (
            {"xvector.dense.linear.weight": torch.zeros(1), "xvector.tdnn.linear.weight": torch.zeros(1)},
            "no usable weight",
        ),
        ({"layer1_downsample.weight": torch.zeros(1)}, r"'layer1_downsample.weight', but no usable weight"),
    ],
)
def test_other_contents_are_refused_and_named(tmp_path: Path, contents: object, found: str) -> None:
    torch.save(contents, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=rf"model\.ckpt: .*{found}"):
        read_foreign(tmp_path / "model.ckpt")


def test_layers_for_other_features_or_pooling_are_refused(golden: Path) -> None:
    weights = read_golden(golden, "eres2netv2-small")[1]
    weights = {**weights, "seg_1.weight": weights["seg_1.weight"][:, ::2]}
    with pytest.raises(CheckpointError, match=r"40 bins.*80 bins and TSTP"):
        describe_3dspeaker(weights, "file")


def test_wespeaker_layout_is_refused_with_what_to_do(golden: Path) -> None:
    with pytest.raises(CheckpointError, match=r"conv2_1.*config\.yaml"):
        describe_3dspeaker(read_golden(golden, "eres2net-base")[1], "file")


def test_damaged_file_and_one_with_code_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(CheckpointError, match="damaged"):
        read_foreign(tmp_path / "cut.ckpt")
    torch.save({"weight": torch.nn.Linear(1, 1)}, tmp_path / "code.ckpt")
    with pytest.raises(CheckpointError, match="would run code"):
        read_foreign(tmp_path / "code.ckpt")


def make_eres2net(config: ERes2NetConfig, dim: int) -> dict[str, Tensor]:
    """The weights that tell the size of an ERes2Net of 3D-Speaker, without numbers."""
    deepest = 8 * config.channels * config.expansion
    shapes: dict[str, list[int]] = {
        "conv1.weight": [config.channels, 1, 3, 3],
        "layer4.0.conv3.weight": [deepest, config.scale * config.part_channels(3), 1, 1],
        "seg_1.weight": [dim, 2 * deepest * config.bins // 8],
        "layer1_downsample.weight" if config.fuse_from == 1 else "layer3_ds.weight": [1],
    }
    for stage, count in enumerate(config.blocks):
        for block in range(count):
            for part in range(config.scale):
                part_channels = config.part_channels(stage)
                shapes[f"layer{stage + 1}.{block}.convs.{part}.weight"] = [part_channels, part_channels, 3, 3]
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def test_load_encoder_takes_such_a_file(golden: Path, tmp_path: Path) -> None:
    file = golden_files.read(golden / "campplus-3dspeaker.json.gz")
    path = tmp_path / "campplus_cn_common.bin"
    torch.save(golden_files.make_state_dict(file), path)
    encoder = load_encoder(path)
    assert encoder.name == "campplus"
    assert encoder(torch.randn(1, 16000)).shape == (1, encoder.embedding_dim)
