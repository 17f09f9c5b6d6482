"""AutoSpeech's networks give what the official implementation gives, and behave as speaker encoders."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import golden_files
from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import AudioError, ConfigError
from voxnest.hub import convert
from voxnest.matryoshka.rotation import with_dims
from voxnest.models.autospeech import PAPER, AutoSpeech, AutoSpeechConfig, drop_items
from voxnest.models.operations import OPERATIONS, SeparableConv
from voxnest.zoo.counting import count_parameters

SMALL: dict[str, Any] = {"bins": 33, "channels": 8, "layers": 3}


@pytest.mark.parametrize("name", ["c128", "resnet18", "resnet34"])
def test_pooled_feature_equals_that_of_the_original(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"autospeech-{name}.json.gz")
    encoder = convert(file["architecture"], file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    classes = 1251 * (expected.shape[1] + 1)
    assert count_parameters(encoder) == file["parameters"] - classes
    assert encoder.name == file["name"].removesuffix("-c128")


def test_a_mistake_in_an_edge_shows_in_the_feature(golden: Path) -> None:
    file = golden_files.read(golden / "autospeech-c128.json.gz")
    expected = golden_files.expected(file)
    other = file["config"]["genotype"].replace("('max_pool_3x3', 1)]", "('max_pool_3x3', 0)]")
    encoder = convert("autospeech", {**file["config"], "genotype": other}, golden_files.make_state_dict(file))
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() > 10 * golden_files.bound(expected)


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(9, 12), (1, 2), (16, 7)])
def test_every_operation_keeps_channels_and_divides_the_size_by_its_stride(
    name: str, stride: int, size: tuple[int, int]
) -> None:
    x = torch.randn(2, 4, *size)
    y = OPERATIONS[name](4, stride, True)(x)
    assert y.shape == (2, 4, *(-(-length // stride) for length in size))
    assert bool(y.any()) == (name != "none")


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_without_affine_has_convolutions_alone_to_learn(name: str) -> None:
    weights = [value for _, value in OPERATIONS[name](4, 2, False).named_parameters()]
    assert all(value.ndim == 4 for value in weights)
    norms = [item for item in OPERATIONS[name](4, 2, True).modules() if isinstance(item, nn.BatchNorm2d)]
    assert all(norm.affine for norm in norms)


@pytest.mark.parametrize(
    ("name", "frames", "bins"),
    [
        ("avg_pool_3x3", 3, 3),
        ("sep_conv_3x3", 5, 5),
        ("sep_conv_5x5", 9, 9),
        ("sep_conv_7x7", 13, 13),
        ("sep_conv_3x1", 5, 1),
        ("sep_conv_1x3", 1, 5),
        ("dil_conv_3x3", 5, 5),
        ("dil_conv_5x5", 9, 9),
        ("dil_conv_3x1", 5, 1),
        ("dil_conv_1x3", 1, 5),
        ("conv_7x1_1x7", 7, 7),
        ("skip_connect", 1, 1),
    ],
)
def test_an_operation_sees_as_far_as_its_name_says(name: str, frames: int, bins: int) -> None:
    torch.manual_seed(0)
    operation = OPERATIONS[name](2, 1, True).eval()
    for layer in operation.modules():  # no ReLU is to hide anything
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.weight, 0.1, 1.0)
    x = torch.rand(1, 2, 31, 31, requires_grad=True)
    operation(x)[0, :, 15, 15].sum().backward()
    assert x.grad is not None
    reached = x.grad[0].abs().sum(dim=0).nonzero()
    seen = (reached.max(dim=0).values - reached.min(dim=0).values + 1).tolist()
    assert seen == [frames, bins]


def test_average_pooling_does_not_count_the_padding() -> None:
    assert torch.equal(OPERATIONS["avg_pool_3x3"](1, 2, True)(torch.ones(1, 1, 5, 5)), torch.ones(1, 1, 3, 3))


@pytest.mark.parametrize("layers", [1, 2, 3, 8])
@pytest.mark.parametrize("frames", [1, 31, 64, 97])
def test_frames_that_are_left_are_those_of_the_stride(layers: int, frames: int) -> None:
    backbone = AutoSpeech(AutoSpeechConfig(channels=4, layers=layers)).eval()
    y = backbone(torch.randn(2, 257, frames))
    assert y.shape == (2, -(-frames // backbone.frame_stride), backbone.out_channels)


def test_a_third_and_two_thirds_down_are_the_reduction_cells() -> None:
    backbone = AutoSpeech(AutoSpeechConfig(channels=4, layers=8))
    strided = [
        any(isinstance(layer, nn.MaxPool2d) and layer.stride == 2 for layer in cell.modules())
        for cell in backbone.cells
    ]
    assert [index for index, reduction in enumerate(strided) if reduction] == [2, 5]
    assert [cell.out_channels for cell in backbone.cells] == [16, 16, 32, 32, 32, 64, 64, 64]  # type: ignore[misc]


def test_drop_path_grows_with_the_training_and_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    encoder = create_encoder("autospeech", **SMALL, drop_path=0.5)
    features = torch.randn(4, 33, 40)

    def varies() -> bool:
        with torch.no_grad():
            return not torch.equal(encoder.embed_features(features), encoder.embed_features(features))

    assert not varies()  # as at the start of a training
    encoder.backbone.progress = 0.5  # type: ignore[assignment]
    assert varies()
    encoder.eval()
    assert not varies()


def test_dropped_items_are_zero_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    dropped = drop_items(torch.ones(4000, 2, 1, 1), 0.25)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert dropped.mean() == pytest.approx(1.0, abs=0.03)


def test_the_embedding_is_the_pooled_feature_or_a_matryoshka_head_on_it() -> None:
    plain = create_encoder("autospeech", **SMALL)
    assert plain.dims == (plain.backbone.out_channels,)
    assert not list(plain.head.parameters())
    small = create_encoder("autospeech", **SMALL, dims=(4, 16)).eval()
    assert small(torch.randn(1, 8000), dim=4).shape == (1, 4)
    with torch.inference_mode():
        assert plain.eval()(torch.randn(2, 8000), lengths=[8000, 6000]).shape == (2, 128)


def test_a_rotation_of_the_pooled_feature_is_a_head_that_is_kept(tmp_path: Path) -> None:
    encoder, waveform = create_encoder("autospeech", **SMALL).eval(), torch.randn(3, 8000)
    turn = torch.linalg.qr(torch.randn(128, 128)).Q
    with torch.inference_mode():
        expected = encoder(waveform) @ turn.T
        save_encoder(with_dims(encoder, (16, 128), turn), tmp_path / "turned.safetensors")
        turned = load_encoder(tmp_path / "turned.safetensors")
        torch.testing.assert_close(turned(waveform, dim=16), expected[:, :16])


def test_the_baselines_need_three_frames() -> None:
    encoder = create_encoder("autospeech-resnet18", bins=33, channels=4).eval()
    assert encoder.embed_features(torch.randn(1, 33, 3)).isfinite().all()
    with pytest.raises(AudioError, match=r"2 frames .expected at least 3"):
        encoder.embed_features(torch.randn(1, 33, 2))


def test_the_genotype_is_kept_as_its_text() -> None:
    config = AutoSpeechConfig(genotype=PAPER.replace(" ", ""))
    assert config.genotype == PAPER
    assert any(isinstance(layer, SeparableConv) for layer in AutoSpeech(AutoSpeechConfig(channels=4)).modules())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"genotype": "Genotype()"}, "genotype: no normal"),
        ({"genotype": 5}, r"autospeech: genotype: 5 \(expected a valid string"),
        ({"channels": 1}, "channels: 1 .expected at least 2"),
        ({"layers": 0}, "layers: 0 .expected at least 1"),
        ({"drop_path": 1.0}, "drop_path: 1.0 .expected a probability below 1"),
        ({"channels": 2**15}, "too large"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        create_encoder("autospeech", **settings)
