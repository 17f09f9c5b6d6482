"""Recordings in any form give the embedding that their samples have; what cannot be used is said in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import nn

from voxnest import load_encoder, read_audio
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.inference import embed_files
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.registry import create_encoder

SAMPLES = (0.1 * np.random.default_rng(0).standard_normal(24000)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return create_encoder("redimnet-tiny", level=None, dims=(16, 64)).eval()  # without a level the scale shows


def embed(encoder: SpeakerEncoder, samples: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return encoder(torch.from_numpy(samples)[None]).numpy()


def test_readme_s_way_gives_numbers_without_detach(speech: Path) -> None:
    encoder = load_encoder()
    embedding = encoder.encode(speech, dim=64)
    assert (embedding.shape, embedding.dtype) == ((1, 64), np.float32)
    assert embedding == pytest.approx(embed_files(encoder, [speech])[str(speech)][None, :64], abs=1e-5)


@pytest.mark.parametrize("mode", [True, False])
def test_an_encoder_stays_trainable_in_both_modes(mode: bool, encoder: SpeakerEncoder) -> None:
    trained = load_encoder().train(mode)
    trained(torch.randn(2, 16000)).square().sum().backward()
    assert trained.head.linear.weight.grad is not None
    assert trained.encode(SAMPLES).shape == (1, 256)
    assert trained.training is mode
    assert all(module.training is mode for module in trained.modules())


@pytest.mark.parametrize(
    "samples",
    [
        SAMPLES,
        SAMPLES.astype(np.float64),
        SAMPLES.astype(">f4"),
        SAMPLES[::-1][::-1],
        torch.from_numpy(SAMPLES),
        torch.from_numpy(SAMPLES).double().requires_grad_(),
        SAMPLES[:, None],
        np.stack([1.5 * SAMPLES, 0.5 * SAMPLES], axis=1),
        [SAMPLES],
    ],
)
def test_samples_in_any_form_give_the_same(samples: Any, encoder: SpeakerEncoder) -> None:
    assert encoder.encode(samples) == pytest.approx(embed(encoder, SAMPLES), abs=1e-5)


@pytest.mark.parametrize(("kind", "scale"), [(np.int16, 2**15), (np.int32, 2**31)])
def test_full_scale_of_whole_numbers_is_one(kind: Any, scale: int, encoder: SpeakerEncoder) -> None:
    whole = (0.01 * SAMPLES.astype(np.float64) * scale).astype(kind)  # so quiet that the scale shows
    expected = embed(encoder, (whole / scale).astype(np.float32))
    with torch.inference_mode():
        assert encoder.encode(whole) == pytest.approx(expected, abs=1e-5)
        assert encoder(whole[None]).numpy() == pytest.approx(expected, abs=1e-5)
        assert encoder(torch.from_numpy(whole)[None]).numpy() == pytest.approx(expected, abs=1e-5)


def test_files_and_samples_of_other_rates_mix(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    wide = soxr.resample(SAMPLES, 16000, 48000)
    soundfile.write(tmp_path / "a.wav", wide, 48000, subtype="FLOAT")
    embeddings = encoder.encode([tmp_path / "a.wav", str(tmp_path / "a.wav"), wide], dim=16, sample_rate=48000)
    assert embeddings.shape == (3, 16)
    expected = embed(encoder, read_audio(tmp_path / "a.wav").samples)[0, :16]
    assert embeddings == pytest.approx(np.stack([expected] * 3), abs=1e-4)
    assert encoder.encode([]).shape == (0, 64)


def test_a_long_recording_is_embedded_as_by_embed_files(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    long = np.tile(SAMPLES, 50) * np.linspace(0.1, 1, 50 * len(SAMPLES), dtype=np.float32)  # 75 s
    soundfile.write(tmp_path / "long.wav", long, 16000, subtype="FLOAT")
    expected = embed_files(encoder, [tmp_path / "long.wav"])[str(tmp_path / "long.wav")][None]
    assert encoder.encode(tmp_path / "long.wav") == pytest.approx(expected, abs=1e-5)
    assert encoder.encode(long) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "options", "says"),
    [
        (np.zeros((2, 16000)), {}, r"recording: shape \[2, 16000\] .expected \[samples\] or \[samples, channels\]"),
        (np.zeros((2, 2, 2)), {}, r"shape \[2, 2, 2\]"),
        ([SAMPLES, SAMPLES[:10]], {}, r"recordings\[1\]: 10 samples at 16000 Hz .expected at least"),
        (np.zeros(0), {}, "0 samples"),
        (np.full(16000, np.nan), {}, "NaN or infinite"),
        (np.full(16000, -np.inf), {}, "NaN or infinite"),
        (np.arange(16000), {}, "an array of int64 .expected floating point, or whole numbers of 16 or 32 bits"),
        (np.array(["a"]), {}, "an array of <U1"),
        (np.zeros(16000, complex), {}, "an array of complex128"),
        ([3.0], {}, r"recordings\[0\]: a float .expected a tensor or an array"),
        (None, {}, "recording: a NoneType"),
        (SAMPLES, {"sample_rate": 0}, "sample_rate: 0 .expected a positive"),
        (SAMPLES, {"sample_rate": 10**9}, "0 samples at 16000 Hz"),
        ("nowhere.wav", {}, "nowhere.wav: no such file"),
    ],
)
def test_what_cannot_be_used_is_said(samples: Any, options: dict[str, Any], says: str, encoder: SpeakerEncoder) -> None:
    with pytest.raises(AudioError, match=says):
        encoder.encode(samples, **options)


def test_a_size_that_there_is_not_and_a_diverged_model_are_said(encoder: SpeakerEncoder) -> None:
    with pytest.raises(ConfigError, match="16, 64"):
        encoder.encode(SAMPLES, dim=32)
    broken = create_encoder("redimnet-tiny")
    nn.init.constant_(broken.head.linear.bias, float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        broken.encode(SAMPLES)


def test_samples_that_are_not_finite_are_refused_in_use_and_left_to_the_loss_in_training() -> None:
    encoder, waveform = create_encoder("redimnet-tiny"), torch.randn(2, 8000)
    waveform[1, 5000] = float("nan")
    encoder.train()(waveform)
    for value in (float("nan"), float("inf")):
        waveform[1, 5000] = value
        with pytest.raises(AudioError, match="NaN or infinite samples"):
            encoder.eval()(waveform)


def test_an_encoder_can_still_be_traced_and_compiled_as_a_graph(encoder: SpeakerEncoder) -> None:
    waveform = torch.from_numpy(SAMPLES)[None]
    with torch.inference_mode():
        expected = encoder(waveform)
    for strict in (True, False):
        exported = torch.export.export(encoder, (waveform,), strict=strict)
        assert "isfinite" not in exported.graph_module.code
    torch.testing.assert_close(torch.jit.trace(encoder, waveform, check_trace=False)(waveform), expected)


@pytest.mark.parametrize("lengths", [[8000, 24000, 8000, 12345], np.array([8000, 24000, 8000, 12345])])
def test_each_item_of_a_padded_batch_is_embedded_as_if_alone(lengths: Any, encoder: SpeakerEncoder) -> None:
    batch = np.stack([np.roll(SAMPLES, 100 * index) for index in range(4)])
    for row, length in zip(batch, lengths, strict=True):
        row[length:] = 0
    with torch.inference_mode():
        embeddings = encoder(batch, lengths=lengths)
        for row, length, embedding in zip(batch, lengths, embeddings, strict=True):
            alone = encoder(row[None, :length])[0]
            torch.testing.assert_close(embedding, alone, atol=1e-5, rtol=1e-5)
            if length < 24000:
                assert (encoder(row[None])[0] - alone).abs().max() > 1e-3  # the padding would change it
        prefixes = encoder(batch, all_dims=True, lengths=torch.tensor(lengths))
        torch.testing.assert_close(prefixes[16], embeddings[:, :16])
        torch.testing.assert_close(encoder(batch, 16, lengths=lengths), embeddings[:, :16])


@pytest.mark.parametrize("lengths", [[8000], [8000, 30000], [8000, 10], [8000.0, 8000.0], [[8000, 8000]]])
def test_lengths_that_do_not_fit_are_refused(lengths: Any, encoder: SpeakerEncoder) -> None:
    with pytest.raises(AudioError, match="lengths: "):
        encoder(torch.randn(2, 24000), lengths=lengths)


def test_lengths_are_for_use_and_not_for_training() -> None:
    with pytest.raises(ConfigError, match="eval"):
        create_encoder("redimnet-tiny").train()(torch.randn(2, 24000), lengths=[8000, 9000])


def test_one_waveform_alone_is_told_how_to_be_a_batch(encoder: SpeakerEncoder) -> None:
    with pytest.raises(AudioError, match=r"\[batch, samples\]; waveform\[None\] for one"):
        encoder(SAMPLES)
