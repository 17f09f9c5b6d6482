"""CAM++ gives what wespeaker and 3D-Speaker give, and behaves as a speaker encoder."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import golden_files
from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.campplus import TRANSLATION
from voxnest.hub import convert
from voxnest.models.campplus import (
    FAMILY,
    CAMPPlusConfig,
    ContextMask,
    DilatedConv,
    NormReLU,
)
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.pooling import TemporalStatisticsPooling
from voxnest.zoo.counting import count_parameters

SMALL: dict[str, Any] = {"bins": 24, "channels": 16, "growth": 8, "bottleneck": 2, "layers": (2, 3, 2), "dims": (16,)}


def small(**settings: object) -> SpeakerEncoder:
    return FAMILY.build({**SMALL, **settings})


def randomise(module: torch.nn.Module) -> None:
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)


def embed(encoder: SpeakerEncoder, features: Tensor) -> Tensor:
    embedding = encoder.embed_features(features)
    assert isinstance(embedding, Tensor)
    return embedding


@cache
def read_golden(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    file = golden_files.read(path)
    return file, golden_files.make_state_dict(file)


@pytest.mark.parametrize("name", ["campplus", "campplus-3dspeaker"])
def test_embedding_equals_that_of_the_reference(golden: Path, name: str) -> None:
    file, weights = read_golden(golden / f"{name}.json.gz")
    encoder = convert("campplus", file["config"], weights)
    expected = golden_files.expected(file)
    for gradient in (False, True):  # without, the dense blocks write into one buffer
        with torch.set_grad_enabled(gradient):
            embedding = embed(encoder, golden_files.make_input(file).transpose(1, 2))
        assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert count_parameters(encoder) == file["parameters"]


def test_model_of_3dspeaker_has_its_filter_bank_and_settings_build_it_again(golden: Path) -> None:
    file, weights = read_golden(golden / "campplus-3dspeaker.json.gz")
    encoder = convert("campplus", file["config"], weights)
    again = FAMILY.build(encoder.config)
    again.load_state_dict(encoder.state_dict())
    waveform = torch.randn(1, 4000)
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(waveform), encoder(waveform))
        # Kaldi's window and no scaling: not what wespeaker's filter bank gives.
        other = small(bins=80).frontend(waveform)
    assert (encoder.frontend(waveform) - other).abs().max() > 0.01


def test_other_pooling_of_wespeaker_is_read_from_either_of_its_two_names(golden: Path) -> None:
    config = {"feat_dim": 24, "embed_dim": 16, "pooling_func": "ASTP", "growth_rate": 8, "bn_size": 2}
    settings = {**SMALL, "channels": 128, "layers": (12, 24, 16), "pooling": "ASTP"}
    encoder = FAMILY.build(settings).eval()
    randomise(encoder)
    ours = encoder.state_dict()
    keys = [key for key, _ in golden_files.read(golden / "campplus.json.gz")["keys"]]
    keys += [
        f"{pool}.linear{n}.{leaf}" for pool in ("pool", "xvector.stats") for n in (1, 2) for leaf in ("weight", "bias")
    ]
    weights = {key: ours[TRANSLATION.key(key, {})] for key in keys}
    weights = {key: value[..., None] if value.ndim == 2 else value for key, value in weights.items()}
    again = convert("campplus", config, weights)
    torch.testing.assert_close(again.state_dict(), ours, rtol=0, atol=0)


def test_wrong_weights_and_arguments_are_listed(golden: Path) -> None:
    file, weights = read_golden(golden / "campplus.json.gz")
    with pytest.raises(CheckpointError, match=r"1 missing key: head\.linear\.weight"):
        convert("campplus", file["config"], {key: value for key, value in weights.items() if "dense.linear" not in key})
    with pytest.raises(CheckpointError, match=r"'xvector\.block4"):
        convert("campplus", file["config"], {**weights, "xvector.block4.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="shape"):
        convert("campplus", {**file["config"], "embed_dim": 192}, weights)
    for key, value in (("depth", 3), ("config_str", "batchnorm-prelu"), ("pooling_func", "mean")):
        with pytest.raises(ConfigError, match=str(value)):
            convert("campplus", {**file["config"], key: value}, weights)
    with pytest.raises(ConfigError, match="pooling_func"):
        convert("campplus", {"embedding_size": 512, "pooling_func": "ASTP"}, weights)


def test_gradient_flows_in_evaluation_mode() -> None:
    features = torch.randn(1, 24, 40, requires_grad=True)
    embed(small().eval(), features).sum().backward()
    assert features.grad is not None
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("frames", [3, 4, 5, 199, 200, 201, 202, 401])
def test_one_buffer_gives_what_concatenation_gives(frames: int) -> None:
    torch.manual_seed(0)
    encoder, features = small().eval(), torch.randn(2, 24, frames)
    with torch.inference_mode():
        buffered = encoder.backbone(features)
    torch.testing.assert_close(buffered, encoder.backbone(features))
    assert buffered.shape == (2, (frames + 1) // 2, encoder.backbone.out_channels)


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("dilation", [1, 2])
def test_convolution_by_matrix_products_is_that_of_torch(frames: int, dilation: int) -> None:
    conv, x = DilatedConv(5, 4, dilation), torch.randn(2, frames, 5)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), conv.weight, padding=dilation, dilation=dilation)
    torch.testing.assert_close(conv(x), expected.transpose(1, 2))


def test_mask_sees_its_segment_and_the_utterance() -> None:
    mask, x = ContextMask(6, 4), torch.randn(2, 230, 6)
    expected = []
    for segment in x.split(100, dim=1):
        context = segment.mean(dim=1) + x.mean(dim=1)
        gates = torch.sigmoid(mask.excite(torch.relu(mask.squeeze(context))))
        expected.append(gates[:, None].expand(-1, segment.shape[1], -1))
    torch.testing.assert_close(mask(x), torch.cat(expected, dim=1))


def test_normalisation_is_the_same_in_evaluation_as_that_of_torch() -> None:
    norm, x = NormReLU(6), torch.randn(2, 9, 12)
    randomise(norm)
    expected = torch.relu(super(NormReLU, norm.eval()).forward(x[..., :6].unsqueeze(2)).squeeze(2))
    torch.testing.assert_close(norm(x[..., :6]), expected)


def test_silent_channel_has_the_deviation_of_the_floor_and_a_finite_gradient() -> None:
    for floor, expected in ((0.0, 0.0), (1e-8, 1e-4)):
        x = torch.zeros(1, 5, 2, requires_grad=True)
        pooled = TemporalStatisticsPooling(2, floor)(x)
        torch.testing.assert_close(pooled, torch.tensor([[0.0, 0.0, expected, expected]]))
        pooled.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bins", 0),
        ("bins", 42),
        ("channels", 0),
        ("growth", 0),
        ("bottleneck", 0),
        ("layers", (12, 24)),
        ("layers", (12, 24, 0)),
    ],
)
def test_bad_settings_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        CAMPPlusConfig(**{setting: value})
