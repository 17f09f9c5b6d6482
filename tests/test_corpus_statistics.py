"""Mean and deviation of features over a corpus: one pass, any number of threads, continued where it stopped."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from test_training import make_corpus
from voxnest.corpora.manifest import Utterance
from voxnest.crops import corpus_statistics as module
from voxnest.crops.corpus_statistics import corpus_statistics
from voxnest.errors import CorpusError
from voxnest.frontends import AutoSpeechSpectrogram, Frontend


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    corpus = make_corpus(tmp_path_factory.mktemp("corpus"), speakers=3, utterances=3)
    return [Utterance(path.stem, path.parts[-3], "s", path, 1.5) for path in sorted(corpus.rglob("*.wav"))]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    monkeypatch.setattr(module, "_SAVE_EVERY", 0.0)


def test_they_are_those_of_all_frames_together(utterances: list[Utterance]) -> None:
    frontend = AutoSpeechSpectrogram()
    waveforms = [torch.from_numpy(soundfile.read(u.path, dtype="float32")[0])[None] for u in utterances]
    frames = torch.cat([frontend.raw_features(waveform)[0] for waveform in waveforms], dim=1).double().numpy()
    mean, deviation = corpus_statistics(frontend, utterances, jobs=2)
    np.testing.assert_allclose(mean, frames.mean(axis=1), rtol=1e-9)
    np.testing.assert_allclose(deviation, frames.std(axis=1), rtol=1e-9)


def test_a_pass_in_pieces_loses_no_frame_but_at_the_seams(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = corpus_statistics(AutoSpeechSpectrogram(raise_to=None), utterances)
    monkeypatch.setattr(module, "_PIECE", 0.5)
    pieces = corpus_statistics(AutoSpeechSpectrogram(raise_to=None), utterances)
    np.testing.assert_allclose(pieces[0], whole[0], rtol=0.05, atol=0.05)


class Stopped(Exception):
    pass


def test_an_interrupted_pass_goes_on_and_ends_at_the_same_numbers(utterances: list[Utterance], tmp_path: Path) -> None:
    frontend, state = AutoSpeechSpectrogram(), tmp_path / "state.json"
    expected = corpus_statistics(frontend, utterances, jobs=1)

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stopped

    with pytest.raises(Stopped):
        corpus_statistics(frontend, utterances, state, jobs=2, progress=stop)
    seen: list[int] = []
    found = corpus_statistics(frontend, utterances, state, jobs=2, progress=lambda done, total: seen.append(done))
    assert seen == [6, 8, 9]
    assert all(map(np.array_equal, found, expected))
    corpus_statistics(frontend, utterances, state, progress=lambda done, total: pytest.fail("done already"))


@pytest.mark.parametrize("change", ["frontend", "audio", "utterances", "file"])
def test_what_was_noted_of_other_audio_or_another_front_end_is_not_used(
    utterances: list[Utterance], tmp_path: Path, change: str
) -> None:
    state, calls, frontend = tmp_path / "state.json", [], AutoSpeechSpectrogram()
    copy = tmp_path / "copy.wav"
    copy.write_bytes(utterances[0].path.read_bytes())
    listed = [Utterance("copy", "a", "s", copy, 1.5), *utterances]
    corpus_statistics(frontend, listed, state)
    if change == "frontend":
        frontend = AutoSpeechSpectrogram(raise_to=-20.0)
    elif change == "audio":
        soundfile.write(copy, np.zeros(24000), 16000)
    elif change == "utterances":
        listed = listed[1:]
    else:
        state.write_text(state.read_text()[:-30])
    found = corpus_statistics(frontend, listed, state, progress=lambda done, total: calls.append(done))
    assert calls
    assert all(map(np.array_equal, found, corpus_statistics(frontend, listed)))


def test_settings_after_the_raw_features_do_not_change_what_they_are() -> None:
    prints = [
        front_end.fingerprint()
        for front_end in (
            AutoSpeechSpectrogram(),
            AutoSpeechSpectrogram(normalization=None, min_frames=9),
            AutoSpeechSpectrogram(hop_length=161),
            AutoSpeechSpectrogram(window="hamming"),
        )
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_what_cannot_be_read_does_not_count_and_nothing_readable_is_an_error(
    utterances: list[Utterance], tmp_path: Path
) -> None:
    frontend: Frontend = AutoSpeechSpectrogram()
    gone = Utterance("gone", "a", "s", tmp_path / "gone.wav", 1.5)
    short = Utterance("short", "a", "s", utterances[0].path, 0.001)
    silent = Utterance("silent", "a", "s", utterances[0].path, 1.5, 600.0)
    expected = corpus_statistics(frontend, utterances)
    assert all(map(np.array_equal, corpus_statistics(frontend, [*utterances, gone, short, silent]), expected))
    with pytest.raises(CorpusError, match="none of 1 utterances"):
        corpus_statistics(frontend, [gone])
