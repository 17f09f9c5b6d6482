"""DF-ResNet and Gemini DF-ResNet give what wespeaker gives, and behave as speaker encoders."""

from pathlib import Path

import pytest
import torch

import golden_files
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.hub import convert
from voxnest.models.df_resnet import FAMILY
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards.df_resnet import CARDS, SIZES
from voxnest.zoo.counting import count_parameters


def small(**settings: object) -> SpeakerEncoder:
    fixed = {"bins": 32, "channels": (8, 8, 16, 16), "blocks": (1, 1, 1, 1), "dims": (16,)}
    return FAMILY.build({**fixed, **settings})


@pytest.mark.parametrize("depth", [60, 114, 183])
def test_embedding_equals_that_of_wespeaker(golden: Path, depth: int) -> None:
    name = f"gemini-dfresnet{depth}"
    file = golden_files.read(golden / f"{name}.json.gz")
    encoder = convert(name, file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert count_parameters(encoder) == file["parameters"]


def test_every_size_has_a_card() -> None:
    assert list(CARDS) == list(SIZES)


@pytest.mark.parametrize("frames", [3, 4, 5, 8, 17])
def test_gemini_keeps_half_of_the_frames_rounded_up(frames: int) -> None:
    encoder = small().eval()
    features = torch.randn(1, 32, frames)
    assert encoder.backbone(features).shape == (1, -(-frames // 2), 32)
    assert encoder.embed_features(features).isfinite().all()


@pytest.mark.parametrize(("kernel_size", "fewest"), [(2, 16), (3, 9)])
def test_too_few_frames_are_an_audio_error(kernel_size: int, fewest: int) -> None:
    encoder = small(strides=SIZES["df-resnet56"]["strides"], kernel_size=kernel_size).eval()
    assert encoder.backbone(torch.randn(1, 32, fewest)).shape[1] == 2
    with pytest.raises(AudioError, match=rf"{fewest - 1} frames.*at least {fewest}"):
        encoder.embed_features(torch.randn(1, 32, fewest - 1))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blocks": (1, 1)}, "the same number"),
        ({"blocks": (1, 1, 0, 1)}, "positive"),
        ({"strides": ((2, 1), (2, 0), (2, 1), (2, 1))}, "positive"),
        ({"kernel_size": 4}, "2 or 3"),
        ({"kernel_size": 2, "bins": 15}, "at least 16"),
        ({"bins": 0}, "at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        small(**settings)


def test_weights_that_do_not_fit_are_refused(golden: Path) -> None:
    file = golden_files.read(golden / "gemini-dfresnet60.json.gz")
    weights = golden_files.make_state_dict(file)
    with pytest.raises(CheckpointError, match=r"missing keys: backbone\.stages\.2\."):
        convert("gemini-dfresnet114", file["config"], weights)
    with pytest.raises(ConfigError, match="gemini-dfresnet237"):
        convert("gemini-dfresnet61", file["config"], weights)
