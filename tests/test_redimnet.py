"""ReDimNet gives what the official implementation gives, and behaves as a speaker encoder."""

from pathlib import Path

import pytest
import torch

import golden_files
from voxnest import create_encoder
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.models.counting import count_macs, count_parameters
from voxnest.models.redimnet import BLOCKS_1D, BLOCKS_2D
from voxnest.models.redimnet_official import from_official
from voxnest.models.registry import CARDS, list_models

REFERENCES = ["default", "conv", "b0", "b1", "b2", "b3", "b5", "b6"]


@pytest.mark.parametrize("name", REFERENCES)
def test_embedding_equals_the_official_one(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"redimnet-{name}.json.gz")
    encoder = from_official(file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder(golden_files.make_input(file))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert sum(p.numel() for p in encoder.parameters()) == file["parameters"]


def test_embedding_is_the_same_in_training_form_and_in_inference_form(golden: Path) -> None:
    # Attention takes another path while training; with frozen batch statistics it must give the same numbers.
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    encoder = from_official(file["config"], golden_files.make_state_dict(file)).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    with torch.no_grad():
        embedding = encoder(golden_files.make_input(file))
    torch.testing.assert_close(embedding, golden_files.expected(file), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [n for n in list_models() if n not in ("redimnet-tiny", "redimnet-m")])
def test_size_is_near_the_published_one(name: str) -> None:
    encoder, published = create_encoder(name), CARDS[name].published
    # The configuration of the released b5 is in its checkpoint only: published 9.2 M, this one has 7.7 M.
    within = 0.2 if name == "redimnet-b5" else 0.09
    assert published.parameters is not None
    assert published.gmacs is not None
    assert count_parameters(encoder) / 1e6 == pytest.approx(published.parameters, rel=within)
    assert count_macs(encoder) / 1e9 == pytest.approx(published.gmacs, rel=0.13)


@pytest.mark.parametrize("block_1d", BLOCKS_1D)
@pytest.mark.parametrize("block_2d", BLOCKS_2D)
@pytest.mark.parametrize("group_divisor", [None, 4])
def test_every_block_type_learns(block_1d: str, block_2d: str, group_divisor: int | None) -> None:
    encoder = create_encoder(
        "redimnet-tiny",
        block_1d=block_1d,
        block_2d=block_2d,
        group_divisor=group_divisor,
        stages=[(2, 1, 2, 8), (2, 1, 1, None)],
    ).train()
    encoder(torch.randn(2, 8000)).square().sum().backward()
    untouched = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not untouched


@pytest.mark.parametrize("pooling", ["TAP", "TSDP", "TSTP", "ASTP"])
def test_every_pooling_gives_an_embedding(pooling: str) -> None:
    encoder = create_encoder("redimnet-tiny", pooling=pooling).eval()
    assert encoder(torch.randn(2, 8000)).shape == (2, 64)


def test_a_prefix_is_the_beginning_of_the_full_embedding() -> None:
    encoder = create_encoder("redimnet-tiny", dims=(24, 48, 96)).eval()
    waveform = torch.randn(3, 8000)
    full = encoder(waveform)
    prefixes = encoder(waveform, all_dims=True)
    assert encoder.dims == (24, 48, 96)
    assert list(prefixes) == [24, 48, 96]
    for dim, prefix in prefixes.items():
        torch.testing.assert_close(prefix, full[:, :dim])
        torch.testing.assert_close(encoder(waveform, dim=dim), full[:, :dim])


def test_a_dimension_the_model_lacks_is_an_error_that_lists_those_it_has() -> None:
    encoder = create_encoder("redimnet-tiny", dims=(24, 48))
    with pytest.raises(ConfigError, match=r"32.*24, 48"):
        encoder(torch.randn(1, 8000), dim=32)


def test_a_waveform_of_the_wrong_shape_or_too_short_is_an_audio_error() -> None:
    encoder = create_encoder("redimnet-tiny").eval()
    with pytest.raises(AudioError, match=r"\[1, 1, 8000\].*\[batch, samples\]"):
        encoder(torch.randn(1, 1, 8000))
    with pytest.raises(AudioError, match=r"256 samples.*at least 257"):
        encoder(torch.randn(1, 256))
    assert encoder(torch.randn(1, encoder.min_samples)).isfinite().all()


def test_bfloat16_autocast_changes_scores_little(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    encoder = from_official(file["config"], golden_files.make_state_dict(file))
    waveform = golden_files.make_input(file)
    with torch.inference_mode():
        exact = encoder(waveform)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(waveform)
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded).item() > 0.999


def test_unknown_names_and_settings_are_errors_that_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="redimnet-b2"):
        create_encoder("redimnet_b2")
    with pytest.raises(ConfigError, match="hop_length"):
        create_encoder("redimnet-b0", hoplength=160)
    with pytest.raises(ConfigError, match="basic_resnet"):
        create_encoder("redimnet-b0", block_2d="resnet")
    with pytest.raises(ConfigError, match="divisor"):
        create_encoder("redimnet-b0", bins=61, stages=[(2, 1, 1, None)])
    with pytest.raises(ConfigError, match="positive"):
        create_encoder("redimnet-b0", dims=())


def test_a_foreign_checkpoint_that_does_not_fit_is_refused(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    with pytest.raises(CheckpointError, match=r"missing keys.*head\.linear\.bias"):
        from_official(file["config"], {key: value for key, value in weights.items() if key != "linear.bias"})
    with pytest.raises(CheckpointError, match=r"unexpected key 'projection\.weight'"):
        from_official(file["config"], {**weights, "projection.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"linear\.weight.*\[192, 7\]"):
        from_official(file["config"], {**weights, "linear.weight": torch.zeros(192, 7)})
    with pytest.raises(ConfigError, match="tf_optimized_arch"):
        from_official({**file["config"], "tf_optimized_arch": True}, weights)
