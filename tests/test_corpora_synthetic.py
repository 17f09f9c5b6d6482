"""Synthetic voices: repeatable, distinct, not trivial; trials; and what goes wrong."""

import os
import subprocess
import sys
import wave
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from voxnest.corpora.manifest import read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.errors import CorpusError
from voxnest.synthesis import espeak
from voxnest.synthesis.corpus import draw_session, draw_voice, make_synthetic_corpus, make_synthetic_trials, record
from voxnest.synthesis.wordlist import sentence


def read_wav(path: Path) -> np.ndarray:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768


def mel_statistics(path: Path) -> np.ndarray:
    """Mean and deviation of 40 log bands over the louder half of the frames: a naive speaker embedding."""
    samples = read_wav(path)
    frames = np.lib.stride_tricks.sliding_window_view(samples, 400)[::160] * np.hanning(400)
    edges = 700 * (10 ** (np.linspace(0, 2840, 42) / 2595) - 1)
    bins = np.searchsorted(np.fft.rfftfreq(512, 1 / 16000), edges)
    power = np.abs(np.fft.rfft(frames, 512)) ** 2
    bands = np.stack([power[:, low : max(high, low + 1)].mean(1) for low, high in pairwise(bins)][:40], 1)
    bands = np.log(bands / np.mean(samples**2) + 1e-6)
    loud = bands[bands.mean(1) > np.median(bands.mean(1)) - 1]
    return np.concatenate([loud.mean(0), loud.std(0)])


def equal_error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
    order = np.argsort(scores)
    misses = np.cumsum(labels[order]) / labels.sum()
    false_alarms = 1 - np.cumsum(~labels[order]) / (~labels).sum()
    best = np.argmin(np.abs(misses - false_alarms))
    return float(misses[best] + false_alarms[best]) / 2


def median_pitch(samples: np.ndarray) -> float:
    pitches = []
    for frame in np.lib.stride_tricks.sliding_window_view(samples, 1024)[::512]:
        correlation = np.fft.irfft(np.abs(np.fft.rfft(frame - frame.mean(), 2048)) ** 2)
        lag = 40 + int(np.argmax(correlation[40:260]))
        if correlation[lag] > 0.6 * correlation[0]:
            pitches.append(16000 / lag)
    return float(np.median(pitches))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "corpus"
    make_synthetic_corpus(root, speakers=20, utterances_per_speaker=6, sessions=2)
    return root


def test_layout_and_length(corpus: Path) -> None:
    files = sorted(path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav"))
    assert len(files) == 120
    assert files[:4] == [f"voice0000/session{i // 3}/{i:04d}.wav" for i in range(4)]
    durations = [len(read_wav(corpus / name)) / 16000 for name in files]
    assert 3 < np.mean(durations) < 4.5
    assert min(durations) > 2


def test_every_recording_has_speech_and_does_not_clip(corpus: Path) -> None:
    for path in corpus.rglob("*.wav"):
        samples = read_wav(path)
        level = 20 * np.log10(np.sqrt(np.mean(samples**2)))
        assert -35 < level < -15, path
        assert np.mean(np.abs(samples) > 0.999) < 0.001, path


def test_prepare_takes_it(corpus: Path, tmp_path: Path) -> None:
    statistics = prepare(corpus, tmp_path / "manifest").statistics
    assert (statistics.layout, statistics.speakers, statistics.sessions) == ("voxceleb", 20, 40)
    assert len(read_manifest(tmp_path / "manifest")) == 120


def test_speakers_can_be_told_apart_but_not_easily(corpus: Path) -> None:
    trials = make_synthetic_trials(corpus)
    names = sorted({name for trial in trials for name in trial[1:]})
    table = np.stack([mel_statistics(corpus / name) for name in names])
    table = (table - table.mean(0)) / table.std(0)
    unit = dict(zip(names, table / np.linalg.norm(table, axis=1, keepdims=True), strict=True))
    scores = np.array([unit[a] @ unit[b] for _, a, b in trials])
    rate = equal_error_rate(scores, np.array([label for label, *_ in trials]))
    assert 0.15 < rate < 0.38


def test_pitch_belongs_to_the_speaker(corpus: Path) -> None:
    speakers = sorted(corpus.iterdir())
    pitch = np.array([[median_pitch(read_wav(path)) for path in sorted(s.rglob("*.wav"))] for s in speakers])
    across = np.std(np.log(np.median(pitch, 1)))
    within = np.median(np.std(np.log(pitch), 1))
    assert across > 2 * within > 0
    assert np.median(pitch[1::2]) > 1.4 * np.median(pitch[::2])


def test_the_same_seed_gives_the_same_bytes_another_seed_does_not(tmp_path: Path) -> None:
    def make(name: str, **options: int) -> dict[str, bytes]:
        files = make_synthetic_corpus(tmp_path / name, speakers=2, utterances_per_speaker=2, **options)
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in files}

    first = make("a")
    assert make("b") == first
    assert not set(make("c", seed=1).values()) & set(first.values())
    later = make("d", first_speaker=2)
    assert not set(later) & set(first)
    assert not set(later.values()) & set(first.values())


def test_channel_has_the_asked_noise_and_level() -> None:
    rng = np.random.default_rng(3)
    session = draw_session(rng)
    tone = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000)
    recording = record(tone, session, np.random.default_rng(1))
    assert 20 * np.log10(np.sqrt(np.mean(recording**2))) == pytest.approx(session.level, abs=0.1)
    spectrum = np.abs(np.fft.rfft(recording * np.hanning(len(recording)))) ** 2
    near = np.abs(np.fft.rfftfreq(len(recording), 1 / 16000) - 440) < 25
    snr = 10 * np.log10(spectrum[near].sum() / spectrum[~near].sum())
    assert snr == pytest.approx(session.snr, abs=3)


def test_sentences_are_many() -> None:
    rng = np.random.default_rng(0)
    sentences = {sentence(rng) for _ in range(500)}
    assert len(sentences) == 500
    assert all(7 <= len(text.split()) <= 15 and text[0].isupper() and text.endswith(".") for text in sentences)


def test_formants_move_without_the_pitch() -> None:
    definition = draw_voice(np.random.default_rng(0), 0).definition
    lines = [line for line in definition.splitlines() if not line.startswith("formant")]
    voices = ["\n".join([*lines, *(f"formant {i} {scale}" for i in range(7))]) + "\n" for scale in (90, 120)]
    text = "The yellow umbrella leans against the wall."
    low, high = (
        np.frombuffer(samples, np.int16) / 32768.0
        for samples in espeak.synthesize(espeak.Request(voice, text) for voice in voices)
    )

    def centroid(samples: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((power * np.fft.rfftfreq(len(samples), 1 / espeak.SAMPLE_RATE)).sum() / power.sum())

    assert centroid(high) > 1.1 * centroid(low)
    assert median_pitch(high) == pytest.approx(median_pitch(low), rel=0.05)


def test_trials_join_sessions_and_can_be_fewer(corpus: Path) -> None:
    assert len(make_synthetic_trials(corpus)) == 20 * 9 + 190 * 36
    some = make_synthetic_trials(corpus, nontargets=500)
    assert len(some) == 20 * 9 + 500
    assert make_synthetic_trials(corpus, nontargets=500) == some
    for label, a, b in some:
        assert (corpus / a).exists()
        assert (corpus / b).exists()
        assert label == (a.split("/")[0] == b.split("/")[0])
        assert a.split("/")[:2] != b.split("/")[:2]


def test_trials_of_single_sessions(tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path / "c", speakers=2, utterances_per_speaker=3, sessions=1)
    assert len(make_synthetic_trials(tmp_path / "c")) == 2 * 3 + 9


def test_trials_need_two_speakers(tmp_path: Path) -> None:
    make_synthetic_corpus(tmp_path / "c", speakers=1, utterances_per_speaker=2)
    with pytest.raises(CorpusError, match="no trials can be made from 2 files"):
        make_synthetic_trials(tmp_path / "c")


def test_bad_requests(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="0 speakers with 8 utterances in 2 sessions"):
        make_synthetic_corpus(tmp_path / "c", speakers=0)
    with pytest.raises(CorpusError, match="an utterance for every session"):
        make_synthetic_corpus(tmp_path / "c", utterances_per_speaker=1, sessions=2)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("precious")
    with pytest.raises(CorpusError, match="not an empty folder"):
        make_synthetic_corpus(tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "precious"
    with pytest.raises(CorpusError, match="c: cannot be written"):
        make_synthetic_corpus(tmp_path / "full" / "mine.txt" / "c")


def test_interrupted_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        assert total == 8
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_synthetic_corpus(tmp_path / "c", speakers=1, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def fake_loader(folder: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a module espeakng_loader before the real one in the synthesiser's process."""
    folder.mkdir()
    (folder / "espeakng_loader.py").write_text(
        f"def get_data_path(): return {str(folder)!r}\ndef get_library_path(): {library}\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (
            "return '/nowhere/libespeak-ng.so'",
            r"espeak-ng: the speech synthesiser cannot be used: /nowhere/lib.*",
        ),
        ("raise ImportError('no wheel')", r"cannot be used: no wheel \(needs the package espeakng-loader\)"),
        ("import os; os.abort()", r"espeak-ng: crashed with signal 6: no reason given"),
    ],
)
def test_a_library_that_does_not_load_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, message: str
) -> None:
    fake_loader(tmp_path / "fake", library, monkeypatch)
    with pytest.raises(CorpusError, match=message):
        make_synthetic_corpus(tmp_path / "c", speakers=1)
    assert not (tmp_path / "c").exists()


def test_a_voice_that_crashes_the_library_is_an_error() -> None:
    with pytest.raises(CorpusError, match="espeak-ng: crashed with signal 11: Can't read dictionary"):
        list(espeak.synthesize([espeak.Request("name x\nlanguage xx-nowhere\n", "Hello.")]))


def test_voice_data_behind_a_long_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import espeakng_loader

    folder = tmp_path / ("long" * 30)
    fake_loader(folder, f"return {espeakng_loader.get_library_path()!r}", monkeypatch)
    (folder / "espeakng_loader.py").write_text(
        (folder / "espeakng_loader.py").read_text().replace(repr(str(folder)), repr(str(folder / "data")))
    )
    (folder / "data").symlink_to(espeakng_loader.get_data_path())
    voice = draw_voice(np.random.default_rng(0), 0).definition
    assert len(next(espeak.synthesize([espeak.Request(voice, "Hello there.")]))) > 20000


def test_making_voices_imports_neither_torch_nor_scipy() -> None:
    program = (
        "import sys, voxnest.synthesis.corpus, voxnest.corpora.prepare; "
        "sys.exit(' '.join({'torch', 'scipy', 'lhotse'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=dict(os.environ))
    assert done.stderr.strip() == ""
