"""Augmentation: what was asked for is what is added, in time, at the right level, never NaN or clipped."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxnest.crops.augmentation import Augmentation
from voxnest.crops.signals import coloured_noise, mix, reverberate, speech_level, synthetic_rir, telephone, trim_rir
from voxnest.errors import ConfigError, CorpusError

RATE = 16000
OFF = {"noise_probability": 0.0, "reverberation_probability": 0.0, "volume_db": (0, 0)}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def voice(seconds: float = 1.5, seed: int = 0) -> np.ndarray:
    """Noise in syllables, with a pause: what matters here about speech."""
    time = np.arange(int(seconds * RATE)) / RATE
    envelope = np.abs(np.sin(2 * np.pi * 2 * time)) * (time < 0.7 * seconds)
    return (0.1 * envelope * rng(seed).standard_normal(len(time))).astype(np.float32)


def tone(frequency: float, seconds: float = 1.5) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.square(samples.astype(np.float64)).mean()))


@pytest.mark.parametrize("snr", [0, 5, 25])
def test_the_noise_added_has_the_snr_asked_for(snr: float) -> None:
    speech, noise = voice(), rng(1).standard_normal(24000).astype(np.float32)
    added = mix(speech, noise, snr) - speech
    assert 20 * np.log10(speech_level(speech) / rms(added)) == pytest.approx(snr, abs=0.05)


def test_a_pause_does_not_lower_the_level_of_speech() -> None:
    speech = voice(1.0)
    paused = np.concatenate([speech, np.zeros(RATE, np.float32)])
    assert speech_level(paused) == pytest.approx(speech_level(speech), rel=1e-3)


@pytest.mark.parametrize("kind", ["files", "coloured", "babble"])
def test_every_kind_of_noise_comes_at_an_snr_in_its_range(kind: str, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "hum.wav", tone(100, 5), RATE)
    augmentation = Augmentation(
        noise=[tmp_path],
        noise_probability=1.0,
        noise_kinds={kind: 1},
        noise_snr=(10, 12),
        babble_snr=(10, 12),
        reverberation_probability=0,
        volume_db=(0, 0),
    )
    speech, measured = voice(), []
    for seed in range(20):
        noisy = augmentation(speech, rng(seed), lambda source, count: voice(count / RATE, seed=99))
        measured.append(20 * np.log10(speech_level(speech) / rms(noisy - speech)))
    assert 9.9 < min(measured) < 10.7
    assert 11.3 < max(measured) < 12.1


def test_noise_files_are_placed_at_random_and_looped_when_short(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.flac", tone(1000, 0.3), RATE)
    augmentation = Augmentation(**{**OFF, "noise_probability": 1.0}, noise=[tmp_path], noise_kinds={"files": 1})
    added = augmentation(voice(), rng()) - voice()
    quarters = [rms(part) for part in np.split(added, 4)]
    assert min(quarters) > 0.8 * max(quarters)

    soundfile.write(tmp_path / "short.flac", voice(20, seed=5), RATE)
    augmentation = Augmentation(**{**OFF, "noise_probability": 1.0}, noise=[tmp_path], noise_kinds={"files": 1})
    assert not np.allclose(augmentation(voice(), rng(1)), augmentation(voice(), rng(2)), atol=1e-3)


def test_noise_is_the_same_from_memory_and_from_disk(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice(10, seed=5), RATE)
    crops = []
    for gigabytes in (1.0, 0.0):
        augmentation = Augmentation(noise=[tmp_path], noise_probability=1.0, noise_cache_gb=gigabytes)
        crops.append(augmentation(voice(), rng()))
    np.testing.assert_allclose(crops[0], crops[1], atol=1e-4)


def test_probabilities_are_shares_of_the_crops() -> None:
    augmentation = Augmentation(**{**OFF, "noise_probability": 0.25})
    speech = voice(0.2)
    changed = sum(not np.array_equal(augmentation(speech, rng(seed)), speech) for seed in range(400))
    assert 70 <= changed <= 130


def test_babble_needs_other_speech_and_is_left_out_without() -> None:
    augmentation = Augmentation(**{**OFF, "noise_probability": 1.0}, noise_kinds={"babble": 1})
    speech = voice()
    np.testing.assert_array_equal(augmentation(speech, rng()), speech)
    np.testing.assert_array_equal(augmentation(speech, rng(), lambda source, count: None), speech)


def test_babble_sums_three_to_seven_voices() -> None:
    augmentation = Augmentation(**{**OFF, "noise_probability": 1.0}, noise_kinds={"babble": 1})
    voices = []
    for seed in range(60):
        calls: list[int] = []
        augmentation(voice(), rng(seed), lambda source, count, calls=calls: calls.append(count) or voice())
        voices.append(len(calls))
    assert set(voices) == {3, 4, 5, 6, 7}


def test_reverberation_keeps_alignment_and_energy() -> None:
    speech = voice()
    for seed in range(10):
        room = synthetic_rir(rng(seed), rt60=0.1 + 0.06 * seed, ratio_db=3.0, sample_rate=RATE)
        wet = reverberate(speech, np.concatenate([np.zeros(37, np.float32), room]))
        assert wet.shape == speech.shape
        assert wet.dtype == np.float32
        assert rms(wet) == pytest.approx(rms(speech), rel=1e-4)
        lags = np.fft.irfft(np.fft.rfft(wet, 65536) * np.conj(np.fft.rfft(speech, 65536)))
        assert np.argmax(lags) == 0


def test_reverberation_is_a_convolution() -> None:
    speech, room = voice(0.3), synthetic_rir(rng(), 0.3, 0.0, RATE)
    expected = np.convolve(speech.astype(np.float64), room)[: len(speech)]
    expected *= rms(speech) / rms(expected)
    np.testing.assert_allclose(reverberate(speech, room), expected, atol=1e-5)


@pytest.mark.parametrize("rt60", [0.1, 0.4, 0.7])
def test_a_synthetic_room_decays_as_asked(rt60: float) -> None:
    room = np.mean([np.square(synthetic_rir(rng(seed), rt60, 0.0, RATE)[: int(rt60 * 9000)]) for seed in range(50)], 0)
    blocks = room[320 : len(room) // 160 * 160].reshape(-1, 160).mean(1)
    slope = np.polyfit(np.arange(len(blocks)) * 0.01, 10 * np.log10(blocks), 1)[0]
    assert -60 / slope == pytest.approx(rt60, rel=0.1)


def test_direct_to_reverberant_ratio_is_that_asked_for() -> None:
    room = synthetic_rir(rng(), 0.5, 6.0, RATE)
    assert np.argmax(np.abs(room)) == 0
    assert 10 * np.log10(room[0] ** 2 / np.square(room[1:]).sum()) == pytest.approx(6.0, abs=0.05)


def test_measured_rooms_are_used_and_a_broken_one_is_noted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "echo.wav", np.eye(1, 4000, 100)[0] * 0.5 + np.eye(1, 4000, 1700)[0] * 0.25, RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    augmentation = Augmentation(**{**OFF, "reverberation_probability": 1.0}, rirs=[tmp_path])
    assert {path.name for path in augmentation.failures} == {"silent.wav", "broken.wav"}
    click = np.zeros(8000, np.float32)
    click[1000] = 0.5
    wet = augmentation(click, rng())
    assert set(np.flatnonzero(np.abs(wet) > 0.01)) == {1000, 2600}
    assert wet[2600] == pytest.approx(wet[1000] / 2, rel=1e-3)


def test_trimming_a_room_keeps_its_sound() -> None:
    room = np.concatenate([synthetic_rir(rng(), 0.2, 3.0, RATE), np.zeros(20000, np.float32)])
    trimmed = trim_rir(room)
    assert len(trimmed) < 0.2 * RATE
    np.testing.assert_allclose(reverberate(voice(), trimmed), reverberate(voice(), room), atol=5e-3)


def test_volume_is_in_its_range_and_loud_crops_are_scaled_instead_of_clipped() -> None:
    augmentation = Augmentation(**{**OFF, "volume_db": (-6, 6)})
    speech = voice()
    gains = [20 * np.log10(rms(augmentation(speech, rng(seed))) / rms(speech)) for seed in range(50)]
    assert -6.01 < min(gains) < -5
    assert 5 < max(gains) < 6.01

    loud = tone(440) / 0.3
    for seed in range(10):
        out = augmentation(loud, rng(seed))
        assert np.abs(out).max() <= 1.0 + 1e-6
        np.testing.assert_allclose(out / np.abs(out).max(), loud / np.abs(loud).max(), atol=1e-6)


def test_a_telephone_keeps_its_band_only_and_the_timing() -> None:
    for frequency, least, most in ((1000, 0.9, 1.1), (60, 0, 0.1), (6000, 0, 0.1)):
        kept = rms(telephone(tone(frequency) + tone(800) * 1e-3, rng(), RATE)) / rms(tone(frequency))
        assert least <= kept <= most
    assert telephone(voice(), rng(), RATE).dtype == np.float32
    both = np.fft.irfft(np.fft.rfft(telephone(voice(), rng(), RATE), 65536) * np.conj(np.fft.rfft(voice(), 65536)))
    assert np.argmax(both) == 0


@pytest.mark.parametrize("slope", [0.0, 1.0, 2.0])
def test_coloured_noise_falls_as_its_slope_says(slope: float) -> None:
    power = np.square(np.abs(np.fft.rfft(coloured_noise(rng(), 8 * RATE, slope))))
    low, high = power[800:1600].mean(), power[8000:16000].mean()  # 100-200 Hz and 1-2 kHz
    assert 10 * np.log10(low / high) == pytest.approx(10 * slope, abs=0.5)


@pytest.mark.parametrize("length", [1, 100, 24000])
def test_silence_and_very_short_crops_stay_finite(length: int) -> None:
    augmentation = Augmentation(noise_probability=1.0, reverberation_probability=1.0, telephone_probability=1.0)
    for seed in range(10):
        out = augmentation(np.zeros(length, np.float32), rng(seed), lambda source, count: np.zeros(count, np.float32))
        assert not out.any()
        out = augmentation(np.full(length, 1e-5, np.float32), rng(seed))
        assert out.shape == (length,)
        assert np.isfinite(out).all()


def test_a_crop_depends_on_the_generator_alone_and_the_input_is_kept() -> None:
    augmentation = Augmentation(noise_probability=1.0, reverberation_probability=1.0, telephone_probability=0.5)
    again = Augmentation(noise_probability=1.0, reverberation_probability=1.0, telephone_probability=0.5)
    speech = voice()
    before = speech.copy()
    first = augmentation(speech, rng(3))
    augmentation(speech, rng(4))
    np.testing.assert_array_equal(again(speech, rng(3)), first)
    np.testing.assert_array_equal(speech, before)
    assert first.dtype == np.float32
    assert not np.array_equal(
        Augmentation(noise_probability=1.0, reverberation_probability=1.0, seed=1)(speech, rng(3)), first
    )


def test_an_unreadable_noise_file_is_noted_and_only_none_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    with pytest.raises(CorpusError, match=r"bad\.wav: none of 1 noise recordings can be read"):
        Augmentation(noise=[tmp_path])
    soundfile.write(tmp_path / "good.wav", voice(5), RATE)
    augmentation = Augmentation(noise=[tmp_path], noise_probability=1.0, noise_kinds={"files": 1})
    assert list(augmentation.failures) == [tmp_path / "bad.wav"]

    soundfile.write(tmp_path / "other.wav", voice(5), RATE)
    augmentation = Augmentation(noise=[tmp_path], noise_probability=1.0, noise_kinds={"files": 1})
    (tmp_path / "good.wav").unlink()
    for seed in range(8):
        assert not np.array_equal(augmentation(voice(), rng(seed)), voice())
    assert tmp_path / "good.wav" in augmentation.failures


def test_missing_and_empty_noise_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"nowhere: no such file or folder"):
        Augmentation(noise=[tmp_path / "nowhere"])
    with pytest.raises(CorpusError, match="no recordings in this folder"):
        Augmentation(rirs=[tmp_path])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_probability": 1.5}, "noise_probability: 1.5"),
        ({"noise_snr": (20, 5)}, "noise_snr: 20 to 5"),
        ({"babble_speakers": (0, 3)}, "babble_speakers"),
        ({"rt60": (0.0, 0.5)}, "rt60"),
        ({"volume_db": (float("nan"), 1)}, "volume_db"),
        ({"noise_kinds": {"music": 1}}, "unknown kind 'music'"),
        ({"noise_kinds": {"files": 1}}, "without recordings"),
        ({"noise_kinds": {"babble": 0}}, "noise_kinds"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Augmentation(**arguments)


def test_augmentation_grows_over_the_epochs_of_its_ramp() -> None:
    augmentation = Augmentation(noise_probability=1.0, reverberation_probability=0.0, ramp_epochs=(1, 3))
    assert [augmentation.strength_at(epoch) for epoch in (0, 1, 1.5, 2, 3, 9)] == [0, 0, 0.25, 0.5, 1, 1]
    assert Augmentation().strength_at(0) == 1


def test_augmentation_without_strength_changes_the_volume_only() -> None:
    augmentation = Augmentation(noise_probability=1.0, reverberation_probability=1.0, telephone_probability=1.0)
    samples = np.random.default_rng(0).standard_normal(8000).astype(np.float32) * 0.05
    changed = augmentation(samples, np.random.default_rng(1), strength=0.0)
    np.testing.assert_allclose(changed / changed.std(), samples / samples.std(), atol=1e-4)
