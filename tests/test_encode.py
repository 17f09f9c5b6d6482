"""Recordings in any form give the embedding that their samples have; what cannot be used is said in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from torch import nn

from voxnest import load_encoder, read_audio, similarity
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


def test_samples_whose_sum_is_not_finite_are_themselves() -> None:
    assert load_encoder().eval()(torch.full((1, 16000), 3e38)).isfinite().all()


def test_memory_of_one_recording_is_there_for_the_next() -> None:
    """In a process where nothing larger was allocated before."""
    program = """
import resource, numpy, torch, voxnest
torch.set_num_threads(1)
encoder, samples = voxnest.load_encoder(), numpy.random.default_rng(0).normal(size=8 * 16000)
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    encoder.encode(samples)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults))
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 200  # pages of 4 KiB, where the network writes five megabytes at the least


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


def test_recordings_of_any_kind_and_rate_mix_in_one_list(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    wide = soxr.resample(SAMPLES, 16000, 44100)
    soundfile.write(tmp_path / "a.wav", wide, 44100, subtype="FLOAT")
    whole = (wide * 2**15).round().astype(np.int16)
    mixed = [tmp_path / "a.wav", (wide, 44100), SAMPLES, (np.stack([whole, whole], axis=1), np.int64(44100))]
    embeddings = encoder.encode(mixed)
    assert embeddings == pytest.approx(np.concatenate([embed(encoder, SAMPLES)] * 4), abs=0.02)
    assert encoder.encode(mixed[1]) == pytest.approx(embeddings[1:2], abs=1e-5)  # a pair is one recording, not two
    with pytest.raises(AudioError, match=r"recordings\[1\]: -8000"):
        encoder.encode([SAMPLES, (SAMPLES, -8000)])


@pytest.mark.parametrize("batch", [1, 2, 3, 64])
def test_embeddings_do_not_depend_on_the_batch(batch: int, tmp_path: Path, encoder: SpeakerEncoder) -> None:
    recordings: list[Any] = [np.roll(SAMPLES, index)[: (8000, 9000, 12345)[index % 3]] for index in range(10)]
    soundfile.write(tmp_path / "a.wav", recordings[0], 16000, subtype="FLOAT")
    recordings.append(tmp_path / "a.wav")
    sizes: list[tuple[int, ...]] = []
    hook = encoder.register_forward_pre_hook(lambda _, arguments: sizes.append(arguments[0].shape))
    try:
        embeddings = encoder.encode(recordings, batch=batch)
    finally:
        hook.remove()
    assert max(size for size, _ in sizes) == min(batch, 5)
    alone = [encoder.encode(item)[0] for item in recordings]
    assert embeddings == pytest.approx(np.stack(alone), abs=1e-5)


def test_progress_is_told_or_drawn(encoder: SpeakerEncoder, capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[int, int]] = []
    expected = encoder.encode([SAMPLES] * 3, progress=lambda *now: told.append(now))
    assert told == [(1, 3), (2, 3), (3, 3)]
    encoder.encode(SAMPLES, progress=lambda *now: told.append(now))
    assert told[-1] == (1, 1)
    assert np.array_equal(encoder.encode([SAMPLES] * 3, progress=True), expected)
    assert capsys.readouterr() == ("", "")  # no terminal


def test_a_recording_that_is_too_short_is_repeated_if_asked(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    least = encoder.min_samples
    click = SAMPLES[: least // 3]
    soundfile.write(tmp_path / "click.wav", click, 16000, subtype="FLOAT")
    expected = embed(encoder, np.tile(click, 4)[:least])
    assert encoder.encode([click, tmp_path / "click.wav", SAMPLES], short="repeat") == pytest.approx(
        np.concatenate([expected, expected, embed(encoder, SAMPLES)]), abs=1e-5
    )
    for short, says in (("error", "click.wav: lasts"), ("repeat", "recording: 0 samples")):
        with pytest.raises(AudioError, match=says):
            encoder.encode(tmp_path / "click.wav" if short == "error" else SAMPLES[:0], short=short)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"short: 'repeta' .expected 'repeat'"):
        encoder.encode(click, short="repeta")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch: 0"):
        encoder.encode(click, batch=0)


def test_the_first_bad_recording_of_several_is_named(tmp_path: Path, encoder: SpeakerEncoder) -> None:
    loud = np.full(16000, 1e30, np.float32)
    for batch in (1, 4):
        with pytest.raises(AudioError, match=r"recordings\[2\]: its embedding is NaN or infinite"):
            encoder.encode([SAMPLES, SAMPLES, loud, SAMPLES[:10], tmp_path / "none.wav"], batch=batch)
    assert torch.get_num_threads() == 1


def test_similarity_is_of_vectors_and_of_matrices() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((3, 8)).astype(np.float32), random.standard_normal((2, 8))
    expected = [[x @ y / np.linalg.norm(x) / np.linalg.norm(y) for y in b] for x in a]
    assert similarity(a, b) == pytest.approx(np.array(expected), abs=1e-6)
    assert similarity(a[0], b[1]) == pytest.approx(expected[0][1], abs=1e-6)
    assert (similarity(a, b[0]).shape, similarity(a[0], b).shape, np.shape(similarity(a[0], b[0]))) == ((3,), (2,), ())
    assert similarity(torch.from_numpy(a), b, dim=4) == pytest.approx(similarity(a[:, :4], b[:, :4]))
    assert similarity(np.zeros(8), b).tolist() == [0, 0]
    assert similarity(a[0] * 1e-3, a[0] * 1e3) <= 1
    for wrong in ((a, b[:, :4]), (a, 3.0), (a[None], b)):
        with pytest.raises(ValueError, match="of one size"):
            similarity(*wrong)
    with pytest.raises(ValueError, match="a prefix of 9 numbers of embeddings with 8"):
        similarity(a, b, dim=9)
