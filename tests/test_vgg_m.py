"""VGG-M has the layers of the VoxCeleb paper."""

import pytest
import torch

from voxnest.errors import AudioError, ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.vgg_m import FAMILY
from voxnest.zoo.cards.vgg_m import CARDS
from voxnest.zoo.counting import count_macs, count_parameters

PAPER = {  # layer: (channels, bins, frames) of its output for 3 s, as table 5 of the paper gives them
    "0": (96, 254, 148),
    "1": (96, 126, 73),
    "2": (256, 62, 36),
    "3": (256, 30, 17),
    "4": (384, 30, 17),
    "5": (256, 30, 17),
    "6": (256, 30, 17),
    "7": (256, 9, 8),
}


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    return FAMILY.build({}).eval()


def test_every_layer_has_the_size_that_the_paper_gives(encoder: SpeakerEncoder) -> None:
    sizes = {}
    for name, layer in encoder.backbone.layers.named_children():  # type: ignore[union-attr]
        layer.register_forward_hook(lambda _, __, output, name=name: sizes.update({name: tuple(output.shape[1:])}))
    with torch.inference_mode():
        assert encoder.backbone(torch.randn(1, 512, 300)).shape == (1, 8, 4096)
    assert sizes == PAPER
    assert encoder.embedding_dim == 1024


def test_parameters_fill_the_published_number_of_mebibytes(encoder: SpeakerEncoder) -> None:
    classes = 1251
    parameters = count_parameters(encoder) + (1024 + 1) * classes
    published = CARDS["vgg-m"].published.parameters
    assert published is not None
    assert 4 * parameters / 2**20 == pytest.approx(published, rel=0.02)
    weights = 96 * 49 + 256 * 25 * 96 + 9 * (384 * 256 + 256 * 384 + 256 * 256) + 4096 * 9 * 256 + 1024 * 4096
    norms = 2 * (96 + 256 + 384 + 256 + 256 + 4096 + 1024)
    assert count_parameters(encoder) == weights + norms
    assert count_macs(encoder) / 1e9 == pytest.approx(1.82, rel=0.01)


def test_frames_that_leave_none_at_the_end_are_an_audio_error(encoder: SpeakerEncoder) -> None:
    with pytest.raises(AudioError, match=r"64 frames.*at least 65"):
        encoder.backbone(torch.randn(1, 512, 64))


def test_a_longer_utterance_is_averaged_over_time(encoder: SpeakerEncoder) -> None:
    with torch.inference_mode():
        frames = encoder.backbone(torch.randn(1, 512, 120))
        expected = encoder.head(frames.mean(dim=1))
        torch.testing.assert_close(encoder.head(encoder.pooling(frames)), expected)


@pytest.mark.parametrize("settings", [{"bins": 30}, {"bins": 600}, {"dims": ()}])
def test_wrong_settings_are_config_errors(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        FAMILY.build(settings)
