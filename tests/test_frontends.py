"""The mel front end gives what the official one gives, and masks only in training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from voxnest.audio import read_audio
from voxnest.errors import ConfigError
from voxnest.frontends import (
    FRONTENDS,
    AutoSpeechSpectrogram,
    KaldiFbank,
    ReDimNetMel,
    SpecAugment,
    Spectrogram,
    TFMel,
    TFSpectrogram,
    create_frontend,
    mel_filters,
)


@pytest.fixture
def excerpt(speech: Path) -> Tensor:
    return torch.from_numpy(read_audio(speech).samples[16000:64000])[None]


@pytest.mark.parametrize(("bins", "hop_length"), [(72, 160), (60, 240)])
def test_features_equal_the_official_ones(shared: Path, excerpt: Tensor, bins: int, hop_length: int) -> None:
    expected = np.load(shared / "parity" / "features.npz")[f"redimnet_mel{bins}_hop{hop_length}"]
    features = ReDimNetMel(bins, hop_length=hop_length)(excerpt)[0]
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-4)


def test_features_for_tensorflow_equal_the_official_ones(shared: Path, excerpt: Tensor) -> None:
    expected = np.load(shared / "parity" / "features.npz")["redimnet_tfmel72_hop160"]
    features = TFMel(72, hop_length=160)(excerpt)[0]
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("pool", [None, (2, 1), (4, 2)])
@pytest.mark.parametrize("window", ["hamming", "hann", "sqrt_hann", None])
def test_a_pooled_spectrogram_has_the_bins_it_says(pool: tuple[int, int] | None, window: str | None) -> None:
    bins = 256 // (pool[0] if pool else 1)
    features = TFSpectrogram(bins, pool=pool, window=window)(torch.randn(2, 16000))
    assert features.shape == (2, bins, 99 // (pool[1] if pool else 1))


@pytest.mark.parametrize("name", list(FRONTENDS))
@pytest.mark.parametrize("pad_right", [0, 300, 5000])
def test_the_shortest_waveform_fills_the_frames_that_are_needed(name: str, pad_right: int) -> None:
    bins = 128 if name == "tf_spectrogram" else 40
    frontend = create_frontend(name, bins, min_frames=7, pad_right=pad_right)
    features = frontend(torch.randn(1, frontend.min_samples))
    assert features.isfinite().all()
    assert features.shape[2] == 7 or (pad_right == 5000 and features.shape[2] > 7)


def test_unknown_front_ends_and_options_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="one of mel, tf_mel, tf_spectrogram"):
        create_frontend("stft", 40)
    with pytest.raises(ConfigError, match="window_size"):
        create_frontend("mel", 40, window_size=3)
    with pytest.raises(ConfigError, match="kaiser"):
        create_frontend("tf_spectrogram", 128, window="kaiser")


@pytest.mark.parametrize("bins", [60, 72])
def test_filters_and_window_equal_the_buffers_of_an_official_checkpoint(shared: Path, bins: int) -> None:
    buffers = np.load(shared / "parity" / "redimnet-spec-buffers.npz")
    frontend = ReDimNetMel(bins)
    filters = buffers[f"mels{bins}/spec.torchfbank.2.mel_scale.fb"]
    window = buffers[f"mels{bins}/spec.torchfbank.2.spectrogram.window"]
    np.testing.assert_allclose(frontend.filters.numpy(), filters, atol=1e-5)
    np.testing.assert_allclose(frontend.window.numpy(), window, atol=1e-6)


def test_every_filter_lies_between_its_neighbours() -> None:
    peaks = mel_filters(60, 512, 16000, 20, 7600).argmax(dim=0)
    assert (peaks.diff() >= 0).all()


@pytest.mark.parametrize("normalization", ["mn", "mvn", "bn", None])
def test_normalisation_does_what_it_says(normalization: str | None) -> None:
    frontend = ReDimNetMel(40, normalization=normalization, normalize_signal=True).train()
    features = frontend(torch.randn(4, 16000))
    mean, deviation = features.mean(dim=-1), features.std(dim=-1)
    assert features.shape == (4, 40, 101)
    if normalization in ("mn", "mvn"):
        assert mean.abs().max() < 1e-4
    if normalization == "mvn":
        torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)
    if normalization is None:
        assert mean.abs().max() > 1


def test_normalised_signal_makes_features_independent_of_level() -> None:
    waveform = torch.randn(1, 16000)
    frontend = ReDimNetMel(40, normalization=None, normalize_signal=True)
    torch.testing.assert_close(frontend(waveform), frontend(0.1 * waveform + 0.2), atol=2e-3, rtol=0)


def test_silence_gives_finite_features() -> None:
    assert ReDimNetMel(40)(torch.zeros(1, 8000)).isfinite().all()


def test_masks_hide_bands_in_training_and_nothing_otherwise() -> None:
    torch.manual_seed(0)
    mask, features = SpecAugment((3, 4), (5, 6)), torch.ones(16, 40, 100)
    assert torch.equal(mask.eval()(features), features)
    hidden = mask.train()(features) == 0
    assert (hidden.all(dim=2).sum(dim=1) == 3).all()
    assert (hidden.all(dim=1).sum(dim=1) == 5).all()
    starts = hidden.all(dim=1).int().argmax(dim=1)
    assert len(starts.unique()) > 4
    assert (features == 1).all()  # the input is left alone


def test_masks_have_every_width_and_begin_at_every_frame_and_every_bin_from_the_first_on() -> None:
    torch.manual_seed(0)
    hidden = SpecAugment((1, 4), (2, 6), first_bin=5).train()(torch.ones(2000, 12, 15)) == 0
    for bands, widths, starts in (
        (hidden.all(dim=2), {1, 2, 3}, {5, 6, 7, 8}),  # as in the reference, none reaches the last cell
        (hidden.all(dim=1), {2, 3, 4, 5}, set(range(10))),
    ):
        assert set(bands.sum(dim=1).tolist()) == widths
        assert set(bands.int().argmax(dim=1).tolist()) == starts
        assert (bands.int().diff(dim=1, prepend=torch.zeros(2000, 1)).clamp(min=0).sum(dim=1) == 1).all()  # one band


@pytest.mark.parametrize("times", [1, 3])
def test_as_many_bands_are_hidden_as_asked_for(times: int) -> None:
    torch.manual_seed(0)
    hidden = SpecAugment((1, 2), (1, 2), times=times).train()(torch.ones(500, 40, 60)) == 0
    for axis in (1, 2):
        counts = hidden.all(dim=axis).sum(dim=1)
        assert counts.max() == times
        assert counts.float().mean() > 0.9 * times  # two may fall on one place


def test_masks_longer_than_the_utterance_are_cut() -> None:
    torch.manual_seed(0)
    assert SpecAugment((0, 100), (0, 1000)).train()(torch.ones(2, 40, 10)).shape == (2, 40, 10)


@pytest.mark.parametrize(("normalization", "key"), [(None, "kaldi_fbank80"), ("mn", "kaldi_fbank80_cmn")])
def test_the_filter_bank_equals_kaldi_s(shared: Path, excerpt: Tensor, normalization: str | None, key: str) -> None:
    expected = np.load(shared / "parity" / "features.npz")[key].T
    features = KaldiFbank(80, normalization=normalization)(excerpt)[0]
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


@pytest.mark.parametrize("window", ["hamming", "povey", "hann", None])
def test_the_filter_bank_is_that_of_frames_one_by_one_in_double_precision(excerpt: Tensor, window: str | None) -> None:
    # By the book: offset, pre-emphasis (the first sample precedes itself), window, power, mel, logarithm.
    position = np.arange(400)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * position / 399)
    shapes = {"hamming": 0.08 + 0.92 * hann, "povey": hann**0.85, "hann": hann, None: np.ones(400)}
    frame = 32768.0 * excerpt[0, 1600:2000].double().numpy()
    frame = frame - frame.mean()
    frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
    power = np.abs(np.fft.rfft(frame * shapes[window], 512)) ** 2
    mels = 1127 * np.log1p(np.arange(257) * 31.25 / 700)
    corners = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(8000 / 700), 82)
    expected = [
        np.log(power @ np.interp(mels, corners[i : i + 3], [0.0, 1.0, 0.0], left=0, right=0)) for i in range(80)
    ]
    features = KaldiFbank(80, window=window, normalization=None)(excerpt)[0, :, 10]
    np.testing.assert_allclose(features.numpy(), expected, atol=1e-3)


def test_each_item_of_a_batch_has_the_filter_bank_that_it_has_alone(excerpt: Tensor) -> None:
    batch = torch.cat([excerpt, 0.1 * excerpt.flip(1), torch.zeros_like(excerpt)])
    together = KaldiFbank(80)(batch)
    for item, features in zip(batch, together, strict=True):
        torch.testing.assert_close(KaldiFbank(80)(item[None])[0], features, atol=1e-5, rtol=0)
    assert together.isfinite().all()


def test_the_filter_bank_of_unscaled_samples_differs_by_a_constant_until_the_floor_hides_it(excerpt: Tensor) -> None:
    loud = KaldiFbank(80, normalization=None)(excerpt)
    quiet = KaldiFbank(80, normalization=None, scale=1.0)(excerpt)
    above = quiet > np.log(np.finfo(np.float32).eps) + 1e-3
    assert 0.5 < above.float().mean() < 1
    torch.testing.assert_close(loud[above], quiet[above] + 30 * np.log(2), atol=1e-3, rtol=0)


def test_next_tdnn_s_features_are_the_mel_front_end_s(shared: Path, excerpt: Tensor) -> None:
    expected = np.load(shared / "parity" / "features.npz")["next_tdnn_mel80"]
    np.testing.assert_allclose(ReDimNetMel(80)(excerpt)[0].numpy(), expected, atol=1e-4)


def test_autospeech_s_spectrogram_equals_the_original_s(shared: Path, excerpt: Tensor) -> None:
    expected = np.load(shared / "parity" / "features.npz")["autospeech_spectrogram"].T
    np.testing.assert_allclose(create_frontend("autospeech_spectrogram", 257)(excerpt)[0], expected, atol=1e-4)


def test_autospeech_s_spectrogram_raises_quiet_waveforms_and_never_lowers_loud_ones(excerpt: Tensor) -> None:
    frontend, loud = AutoSpeechSpectrogram(), 10 ** (20 / 20) * excerpt  # -23 dB, and -3 dB
    torch.testing.assert_close(frontend(loud), 10 * frontend(excerpt), atol=1e-4, rtol=1e-4)
    level = 10 ** (-30 / 20)
    raised = frontend(excerpt * level / excerpt.square().mean().sqrt())
    for factor in (1e-1, 1e-3, 1e-30):
        torch.testing.assert_close(frontend(factor * excerpt * 0.4), raised, atol=1e-4, rtol=1e-3)
    half = torch.cat([1e-3 * excerpt, torch.zeros_like(excerpt)], dim=1)  # zeros count: the speech gets louder
    torch.testing.assert_close(frontend(half)[..., :290], 2**0.5 * raised[..., :290], atol=1e-4, rtol=1e-3)
    assert not frontend(torch.zeros(1, 16000)).any()


@pytest.mark.parametrize("name", ["autospeech_spectrogram", "tf_mel", "fbank"])
def test_a_front_end_can_normalise_by_the_mean_and_deviation_of_a_corpus(name: str, excerpt: Tensor) -> None:
    frontend = create_frontend(name, 40, normalization="corpus")
    assert frontend.wants_statistics
    raw = frontend.raw_features(excerpt)
    torch.testing.assert_close(frontend(excerpt), raw)
    deviation, mean = torch.std_mean(raw[0], dim=1)
    frontend.set_statistics(mean, deviation)
    assert not frontend.wants_statistics
    deviation, mean = torch.std_mean(frontend(excerpt)[0], dim=1)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-3, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=1e-3, rtol=0)
    assert {"mean", "deviation"} <= set(frontend.state_dict())
    with pytest.raises(ConfigError, match="pooled"):
        create_frontend("tf_spectrogram", 128, normalization="corpus")


def test_a_spectrogram_beyond_its_whole_spectrum_goes_on_with_the_mirror_image(excerpt: Tensor) -> None:
    features = Spectrogram(512, normalization=None, pre_emphasis=None)(excerpt)[0]
    frame = excerpt[0, 1600:2000].double() * torch.hamming_window(400, periodic=False, dtype=torch.float64)
    torch.testing.assert_close(features[:, 10].double(), torch.fft.fft(frame, 512).abs(), atol=1e-5, rtol=1e-4)
    for bins in (40, 257, 300):
        torch.testing.assert_close(
            Spectrogram(bins, normalization=None, pre_emphasis=None)(excerpt)[0], features[:bins]
        )
    with pytest.raises(ConfigError, match="at most the FFT size 512"):
        Spectrogram(513)


@pytest.mark.parametrize("name", list(FRONTENDS))
def test_products_with_waves_give_the_features_of_the_fourier_transform(name: str, excerpt: Tensor) -> None:
    bins = 128 if name == "tf_spectrogram" else 40
    transformed, products = create_frontend(name, bins), create_frontend(name, bins)
    products.use_products()
    expected = transformed(excerpt)
    # The quietest bins are 1e-6 of the loudest, which is what float32 has.
    torch.testing.assert_close(products(excerpt), expected, rtol=0, atol=1e-3 * float(expected.std()))
