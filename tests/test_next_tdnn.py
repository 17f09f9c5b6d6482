"""NeXt-TDNN gives what the official implementation gives, and takes its checkpoints as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

import golden_files
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.foreign.description import Description
from voxnest.foreign.next_tdnn import TRANSLATION
from voxnest.hub import convert
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.next_tdnn import FAMILY, GlobalResponseNorm
from voxnest.zoo.cards.next_tdnn import CARDS
from voxnest.zoo.counting import count_parameters, kept_counts

SMALL: dict[str, Any] = {"bins": 24, "channels": 16, "blocks": (1, 2), "kernel_sizes": (3, 9), "dims": (8, 32)}
OFFICIAL: dict[str, Any] = {"in_chans": 24, "depths": [1] * 3, "dims": [8] * 3, "kernel_size": 5, "embeding_size": 16}


def small(**settings: Any) -> SpeakerEncoder:
    return FAMILY.build({**SMALL, **settings})


@pytest.mark.parametrize("name", ["c128-b3", "c256-b3", "light-c128-b3", "light-c256-b3"])
def test_embedding_equals_the_official_one(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"next-tdnn-{name}.json.gz")
    encoder = convert("next-tdnn", file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file))
    assert isinstance(embedding, torch.Tensor)
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert count_parameters(encoder) == file["parameters"]


@pytest.mark.parametrize("name", list(CARDS))
def test_parameters_are_those_of_the_table_to_its_two_digits(name: str) -> None:
    card = CARDS[name]
    parameters, _ = kept_counts(name)
    assert parameters == pytest.approx(card.published.parameters, abs=0.05)


def test_a_lightning_file_loads_with_its_prefix_front_end_and_losses(golden: Path) -> None:
    file = golden_files.read(golden / "next-tdnn-light-c128-b3.json.gz")
    weights = golden_files.make_state_dict(file)
    released = {f"speaker_net.{key.replace('aggregation.', 'aggregate.')}": value for key, value in weights.items()}
    released["speaker_net.feature_extractor.mel_spectrogram.mel_scale.fb"] = torch.zeros(257, 80)
    released["speaker_net.loss_function.weight"] = released["loss_function.weight"] = torch.zeros(5994, 192)
    same, features = convert("next-tdnn", file["config"], released), golden_files.make_input(file)
    with torch.inference_mode():
        expected = convert("next-tdnn", file["config"], weights).embed_features(features)
        torch.testing.assert_close(same.embed_features(features), expected, atol=0, rtol=0)


def test_an_encoder_of_a_checkpoint_can_be_built_again_from_its_settings() -> None:
    arguments = {**OFFICIAL, "drop_path_rate": 0.1, "aggregation": "vap_bn_tanh_fc_bn"}
    settings = TRANSLATION.settings(Description("next-tdnn", arguments, {}))
    encoder = FAMILY.build(settings)
    assert encoder.config["light"] is True  # as in the official class where `block` is not given
    assert encoder.config["channels"] == 8
    assert encoder.config["kernel_sizes"] == (5,)
    assert FAMILY.build(encoder.config).config == encoder.config
    assert encoder.embedding_dim == 16


def test_a_wrong_checkpoint_is_an_error_that_lists_the_keys() -> None:
    weights = {"model.stem.0.0.weight": torch.zeros(8, 24, 4), "model.stem.9.weight": torch.zeros(1)}
    with pytest.raises(
        CheckpointError,
        match=r"1 unexpected key: 'model\.stem\.9\.weight'; 55 missing keys: backbone\.mix\.bias, .*, \.\.\.",
    ):
        convert("next-tdnn", OFFICIAL, weights)
    with pytest.raises(CheckpointError, match=r"\[8, 24, 5\]"):
        convert("next-tdnn", OFFICIAL, {"model.stem.0.0.weight": torch.zeros(8, 24, 5)})
    with pytest.raises(CheckpointError, match=r"no weights under 'model\.' among 1 keys"):
        convert("next-tdnn", OFFICIAL, {"encoder.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block": "ConvNeXt"}, "TSConvNeXt, TSConvNeXt_light"),
        ({"aggregation": "asp_fc"}, "vap_bn_tanh_fc_bn"),
        ({"dims": [8, 16, 16]}, "the same number"),
        ({"width": 3}, "width"),
    ],
)
def test_unsupported_arguments_of_the_official_classes_are_config_errors(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        convert("next-tdnn", {**OFFICIAL, **arguments}, {})


@pytest.mark.parametrize(
    "settings",
    [
        {"blocks": ()},
        {"blocks": (1, 0)},
        {"kernel_sizes": (4, 7)},
        {"kernel_sizes": ()},
        {"light": True},
        {"channels": 15},
        {"channels": 2},
        {"dims": ()},
    ],
)
def test_wrong_settings_are_config_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        small(**settings)


def test_the_stem_takes_four_frames_at_once() -> None:
    backbone = small().eval().backbone
    assert backbone(torch.randn(1, 24, 11)).shape == (1, 8, 32)
    with pytest.raises(AudioError, match=r"3 frames.*at least 4"):
        backbone(torch.randn(1, 24, 3))


def test_response_of_a_silent_channel_has_a_finite_gradient() -> None:
    norm, x = GlobalResponseNorm(6), torch.randn(2, 5, 6)
    x[:, :, 2] = 0.0
    x.requires_grad_()
    torch.nn.init.ones_(norm.weight)
    norm(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
