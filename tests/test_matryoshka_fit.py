"""`voxnest matryoshka fit`: any encoder becomes a Matryoshka encoder, from a folder of speech."""

import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch

from tones import make_corpus
from voxnest import create_encoder, load_encoder, read_audio, save_encoder
from voxnest.cli import app
from voxnest.corpora.reading import read_corpus
from voxnest.errors import CorpusError
from voxnest.hub.checkpoint import read_metadata
from voxnest.matryoshka.fit import draw, embed_pieces


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "plain.safetensors"
    save_encoder(create_encoder("redimnet-tiny", dims=(48,)).eval(), path)
    return path


def voxnest(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["voxnest", *map(str, arguments)])
    try:
        app.main()
    except SystemExit as leaving:
        return int(leaving.code or 0)
    return 0


def test_a_plain_encoder_gets_prefixes_and_keeps_its_scores(
    corpus: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "nested.safetensors"
    assert voxnest(monkeypatch, "matryoshka", "fit", plain, "--corpus", corpus, "-o", output) == 0
    before, after = load_encoder(plain), load_encoder(output)
    assert after.dims == (8, 16, 32, 48)
    waveform = torch.from_numpy(read_audio(next(corpus.rglob("*.wav"))).samples)[None]
    noise = torch.randn(1, 16000)
    with torch.no_grad():
        scores = [torch.cosine_similarity(encoder(waveform), encoder(noise)) for encoder in (before, after)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=0)
    assert read_metadata(output)["metadata"]["rotation"]["of"] == str(plain)


def test_recordings_of_nobody_known_are_enough(
    corpus: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(corpus.rglob("*.wav")):
        shutil.copy(path, flat / f"{number}.wav")
    (flat / "broken.wav").write_bytes(b"RIFF of something else")
    arguments = ["matryoshka", "fit", plain, "--corpus", flat, "-o", tmp_path / "out.safetensors", "--dim", 4]
    assert voxnest(monkeypatch, *arguments) == 0
    assert load_encoder(tmp_path / "out.safetensors").dims == (4,)
    assert voxnest(monkeypatch, *arguments, "--method", "discriminative") == 2
    assert "expected two speakers" in capsys.readouterr().err


def test_bad_input_is_one_line_and_nothing_is_written(
    corpus: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    output = tmp_path / "out.safetensors"
    for arguments, says in (
        ([plain, "--corpus", empty, "-o", output], "empty"),
        ([tmp_path / "no.safetensors", "--corpus", corpus, "-o", output], "no such file"),
        ([plain, "--corpus", corpus, "-o", tmp_path], "is a folder"),
        ([plain, "--corpus", corpus, "-o", output, "--dim", -1], "positive"),
        ([plain, "--corpus", corpus, "-o", output, "--dim", 64], "at most 48"),
    ):
        assert voxnest(monkeypatch, "matryoshka", "fit", *arguments) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error:")
        assert says in error
    assert not output.exists()


def test_every_speaker_is_drawn_as_often_as_the_others(corpus: Path) -> None:
    utterances = read_corpus(corpus)
    speakers = {utterance.speaker for utterance in utterances}
    drawn = [utterance.speaker for utterance in draw(utterances, 2 * len(speakers))]
    assert all(drawn.count(speaker) == 2 for speaker in speakers)
    assert len(draw(utterances, 10**6)) == len(utterances)


def test_what_cannot_be_read_is_left_out(corpus: Path, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    shutil.copytree(corpus, folder)
    utterances = read_corpus(folder)
    utterances[0].path.write_bytes(b"")
    soundfile.write(utterances[1].path, torch.zeros(10).numpy(), 16000)
    embeddings, speakers = embed_pieces(load_encoder(plain), utterances)
    assert len(embeddings) == len(speakers) >= len(utterances) - 2
    for utterance in utterances:
        utterance.path.unlink()
    with pytest.raises(CorpusError, match="0 usable pieces"):
        embed_pieces(load_encoder(plain), utterances)
