"""Warnings of recordings whose embeddings cannot be relied on: each has its cause, and usable speech has none."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import soxr

from voxnest import read_audio
from voxnest.audio import list_recordings
from voxnest.inference import check_speech
from voxnest.inference.quality import MIN_SPEECH, QualityMeter


@pytest.fixture(scope="module")
def samples(speech: Path) -> np.ndarray:
    return read_audio(speech).samples


def test_real_speech_gets_no_warning(voices: Path) -> None:
    for path in list_recordings(voices / "test"):
        assert check_speech(read_audio(path).samples, 16000) == (), path


def test_rates_and_levels_of_usable_speech_do_not_matter(samples: np.ndarray) -> None:
    for rate in (8000, 44100):
        assert check_speech(soxr.resample(samples, 16000, rate), rate) == ()
    for gain in (0.05, 0.99 / np.abs(samples).max(), 5 / np.abs(samples).max()):
        assert check_speech(gain * samples, 16000) == ()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: 0 * x, "is silent"),
        (lambda x: np.tanh(30 * x / np.abs(x).max()).clip(-0.9, 0.9), "is clipped"),
        (lambda x: 0.3 * (4 * x / x.std()).clip(-2, 2), "is clipped"),
        (lambda x: 0.2 * x - 0.3, "has a constant offset, -30.0% of full scale"),
        (lambda x: 0.001 * x, "is very quiet"),
        (lambda x: np.where(np.arange(len(x)) < 12000, x, 1e-4 * x), "of speech"),
    ],
)
def test_each_fault_is_named_alone(samples: np.ndarray, spoil, says: str) -> None:  # type: ignore[no-untyped-def]
    (finding,) = check_speech(spoil(samples).astype(np.float32), 16000)
    assert says in finding


def test_clipping_is_found_behind_a_lossy_change_of_rate(samples: np.ndarray) -> None:
    loud = (8 * samples / np.abs(samples).max()).clip(-1, 1)
    (finding,) = check_speech(soxr.resample(soxr.resample(loud, 16000, 44100), 44100, 16000), 16000)
    assert "is clipped" in finding


def test_pauses_and_clicks_are_not_speech(samples: np.ndarray) -> None:
    def seconds(samples: np.ndarray) -> float:
        meter = QualityMeter(16000)
        meter.add(samples.astype(np.float32))
        return meter.speech_seconds

    alone = seconds(samples)
    assert 0.5 * len(samples) / 16000 < alone < len(samples) / 16000
    room = 1e-4 * np.random.default_rng(0).standard_normal(30 * 16000)
    assert seconds(np.concatenate([room, samples, room])) == pytest.approx(alone, abs=0.1)
    clicked = 0.05 * samples
    clicked[5000:5100] = 1.0
    assert seconds(clicked) == pytest.approx(alone, abs=0.1)


def test_parts_are_measured_as_one_recording(samples: np.ndarray) -> None:
    short = np.tile(samples[: 2 * 16000], 2)[: 16000 * 3]
    whole, parts = QualityMeter(16000), QualityMeter(16000)
    whole.add(short)
    for part in np.split(short, 6):  # of half a second, none of which has enough speech by itself
        assert len(part) / 16000 < MIN_SPEECH
        parts.add(part)
    assert parts.speech_seconds == pytest.approx(whole.speech_seconds)
    assert parts.findings() == whole.findings() == ()


def test_what_is_too_short_or_absurd_breaks_nothing() -> None:
    assert "0.00 s of speech" in check_speech(np.full(10, 0.1, np.float32), 16000)[0]
    with warnings.catch_warnings(action="error"):
        for level in (1e30, 3e38):
            check_speech(np.tile(np.float32([level, -level, level]), 16000), 16000)
