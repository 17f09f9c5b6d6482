"""ResNet and its relatives give what wespeaker gives, and behave as speaker encoders."""

from pathlib import Path

import pytest
import torch

import golden_files
from voxnest.errors import CheckpointError, ConfigError
from voxnest.hub import convert
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.pooling import POOLINGS
from voxnest.models.resnet import FAMILY
from voxnest.models.resnet_blocks import BasicBlock, ConvNorm, Stride, simam
from voxnest.zoo.cards.resnet import CARDS, SIZES
from voxnest.zoo.counting import count_parameters


def small(**settings: object) -> SpeakerEncoder:
    return FAMILY.build({"bins": 24, "channels": 8, "blocks": (1, 1, 1, 1), "dims": (16,), **settings})


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet293"])
def test_embedding_equals_that_of_wespeaker(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"{name}.json.gz")
    encoder = convert(name, file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert count_parameters(encoder) == file["parameters"]


def test_every_size_has_a_card() -> None:
    assert list(CARDS) == list(SIZES)


@pytest.mark.parametrize("pooling", [*POOLINGS, "ASP"])
def test_every_pooling_gives_an_embedding(pooling: str) -> None:
    assert small(pooling=pooling).eval()(torch.randn(2, 4000)).shape == (2, 16)


def test_normalisation_is_the_same_within_the_convolution_and_after_it() -> None:
    layer = ConvNorm(3, 8, stride=2)
    for value in layer.norm.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    layer.eval()
    x = torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(layer(x), layer.norm(layer.conv(x)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(1, 3, 1), (4, 3, (2, 1)), (4, 1, 2)])
def test_inputs_of_any_size_are_convolved_alike(batch: int, channels: int, kernel: int, stride: Stride) -> None:
    """PyTorch and oneDNN share the work by size; in use, and where a gradient or another precision is asked for."""
    torch.manual_seed(0)
    layer = ConvNorm(channels, 16, kernel, stride=stride).eval()
    for frames in (20, 240, 1200):
        x = torch.randn(batch, channels, 20, frames)
        expected = layer.norm(layer.conv(x))
        torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
        with torch.inference_mode():
            torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=0)
            with torch.autocast("cpu", torch.bfloat16):
                assert layer(x).dtype == torch.bfloat16


def test_simam_weighs_by_distance_from_the_mean_of_a_channel() -> None:
    x = torch.tensor([[[[1.0, 1.0], [1.0, 5.0]]]])
    distance = torch.tensor([[1.0, 1.0], [1.0, 9.0]])
    expected = x * torch.sigmoid(distance / (4 * (12.0 / 3 + 1e-4)) + 0.5)
    torch.testing.assert_close(simam(x), expected)


def test_blocks_leave_their_input_as_it_was() -> None:
    block, x = BasicBlock(4, 4).eval(), torch.randn(1, 4, 6, 6)
    before = x.clone()
    with torch.inference_mode():
        block(x)
    torch.testing.assert_close(x, before)


@pytest.mark.parametrize("frames", [9, 10, 15, 17])
def test_short_and_odd_lengths_give_an_embedding(frames: int) -> None:
    encoder = small().eval()
    assert encoder.embed_features(torch.randn(1, 24, frames)).isfinite().all()
    assert encoder.backbone(torch.randn(1, 24, frames)).shape[1] == -(-frames // 8)


def test_bins_need_not_be_a_multiple_of_eight() -> None:
    assert small(bins=23).eval()(torch.randn(1, 4000)).shape == (1, 16)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"block": "resnext"}, "bottleneck"),
        ({"blocks": (1, 1, 1, 1, 1)}, "four"),
        ({"blocks": (1, 0, 1, 1)}, "four positive"),
        ({"bins": 0}, "bins"),
        ({"channels": 0}, "channels"),
        ({"block": "res2net", "channels": 7}, "even"),
        ({"pooling": "max"}, "TSTP"),
        ({"dims": ()}, "dims"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small(**settings)


def test_an_argument_or_size_that_wespeaker_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"m_channels.*feat_dim"):
        convert("resnet18", {"m_channels": 3}, {})
    with pytest.raises(ConfigError, match=r"resnet19.*resnet34"):
        convert("resnet19", {}, {})


def test_weights_that_do_not_fit_are_refused_with_a_list(golden: Path) -> None:
    file = golden_files.read(golden / "resnet18.json.gz")
    weights = golden_files.make_state_dict(file)
    del weights["layer2.0.bn1.weight"]
    weights |= {"extra": torch.zeros(1), "seg_1.bias": torch.zeros(7)}
    problems = (
        r"unexpected key: 'extra'; 1 wrong shape: 'seg_1\.bias' of shape \[7\] rather than \[256\]; 1 missing key: "
    )
    with pytest.raises(CheckpointError, match=problems + r"backbone\.stages\.1\.0\.conv1\.norm\.weight"):
        convert("resnet18", file["config"], weights)
    with pytest.raises(CheckpointError, match=r"resnet34.*missing keys"):
        convert("resnet34", file["config"], golden_files.make_state_dict(file))


def test_weights_without_counters_are_read(golden: Path) -> None:
    # As exports to safetensors are published.
    file = golden_files.read(golden / "resnet18.json.gz")
    weights = golden_files.make_state_dict(file)
    kept = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    assert len(kept) < len(weights)
    features = torch.randn(1, 80, 20)
    with torch.inference_mode():
        torch.testing.assert_close(
            convert("resnet18", file["config"], kept).embed_features(features),
            convert("resnet18", file["config"], weights).embed_features(features),
        )
