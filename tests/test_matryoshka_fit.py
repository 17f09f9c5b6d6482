"""`voxnest matryoshka fit`: any encoder becomes a Matryoshka encoder, from a folder of speech."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
import torch

from tones import ToneEncoder, make_corpus
from voxnest import create_encoder, load_encoder, read_audio, save_encoder
from voxnest.cli.app import app
from voxnest.cli.main import run
from voxnest.corpora.utterances import read_corpus
from voxnest.errors import CheckpointError, CorpusError
from voxnest.hub.checkpoint import read_metadata
from voxnest.matryoshka.fit import draw, embed_pieces, fit


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "plain.safetensors"
    save_encoder(create_encoder("redimnet-tiny", dims=(48,)).eval(), path)
    return path


def voxnest(*arguments: object) -> int:
    return run(lambda: app(list(map(str, arguments)), standalone_mode=False))


def test_a_plain_encoder_gets_prefixes_and_keeps_its_scores(corpus: Path, plain: Path, tmp_path: Path) -> None:
    output = tmp_path / "nested.safetensors"
    assert voxnest("matryoshka", "fit", plain, "--corpus", corpus, "-o", output) == 0
    before, after = load_encoder(plain), load_encoder(output)
    assert after.dims == (8, 16, 32, 48)
    waveform = torch.from_numpy(read_audio(next(corpus.rglob("*.wav"))).samples)[None]
    noise = torch.randn(1, 16000)
    with torch.no_grad():
        scores = [torch.cosine_similarity(encoder(waveform), encoder(noise)) for encoder in (before, after)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=0)
    assert read_metadata(output)["metadata"]["rotation"]["of"] == str(plain)


def test_the_mean_of_all_speakers_is_taken_away_if_asked(corpus: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus, uneven := tmp_path / "uneven")
    speaker = min(folder for folder in uneven.iterdir() if folder.is_dir())
    for path in sorted(speaker.rglob("*.wav"))[1:]:
        path.unlink()  # less is there of one than of the others, who do not count for more
    output = tmp_path / "centered.safetensors"
    assert voxnest("matryoshka", "fit", plain, "--corpus", uneven, "--center", "-o", output) == 0
    utterances = draw(read_corpus(uneven), 1000)
    (before, speakers, _), (after, *_) = (embed_pieces(load_encoder(path), utterances) for path in (plain, output))
    distances = (torch.cdist(found, found) for found in (before, after))
    torch.testing.assert_close(*distances, atol=1e-3, rtol=1e-3)  # it is moved and turned
    voices = torch.stack([after[speakers == number].mean(dim=0) for number in speakers.unique()])
    assert voices.mean(dim=0).norm() < 1e-3 * before.mean(dim=0).norm() < after.mean(dim=0).norm()
    assert read_metadata(output)["metadata"]["rotation"]["centered"]


def test_the_way_to_turn_can_be_chosen(corpus: Path, plain: Path, tmp_path: Path) -> None:
    heads = {}
    for method in ("pca", "discriminative", "learned", "auto"):
        output = tmp_path / f"{method}.safetensors"
        assert voxnest("matryoshka", "fit", plain, "--corpus", corpus, "-o", output, "--method", method) == 0
        heads[method] = load_encoder(output).head.linear.weight
    assert torch.equal(heads["auto"], heads["discriminative"])
    for method in ("pca", "learned"):
        assert not torch.allclose(heads[method], heads["discriminative"])


def test_recordings_of_nobody_known_are_enough(
    corpus: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(corpus.rglob("*.wav")):
        shutil.copy(path, flat / f"{number}.wav")
    (flat / "broken.wav").write_bytes(b"RIFF of something else")
    arguments = ["matryoshka", "fit", plain, "--corpus", flat, "-o", tmp_path / "out.safetensors", "--dim", 4]
    assert voxnest(*arguments) == 0
    assert load_encoder(tmp_path / "out.safetensors").dims == (4,)
    assert voxnest(*arguments, "--method", "discriminative") == 2
    assert "expected two speakers" in capsys.readouterr().err


def test_bad_input_is_one_line_and_nothing_is_written(
    corpus: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
        ([plain, "--corpus", corpus, "-o", tmp_path / "out.pt"], "ends in .safetensors"),
        ([plain, "--corpus", corpus, "-o", output, "--device", "gpu"], "'gpu'"),
    ):
        assert voxnest("matryoshka", "fit", *arguments) == 2
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
    embeddings, speakers, _ = embed_pieces(load_encoder(plain), utterances)
    assert len(embeddings) == len(speakers) >= len(utterances) - 2
    for utterance in utterances:
        utterance.path.unlink()
    with pytest.raises(CorpusError, match="0 usable pieces"):
        embed_pieces(load_encoder(plain), utterances)


@pytest.mark.parametrize("fails", [False, True])
def test_fitting_hears_in_eval_mode_and_leaves_every_part_in_its_own(corpus: Path, plain: Path, fails: bool) -> None:
    encoder = load_encoder(plain)
    expected, *_ = embed_pieces(encoder, utterances := read_corpus(corpus))
    encoder.train().backbone.eval()
    modes = {name: module.training for name, module in encoder.named_modules()}
    if fails:
        with pytest.raises(CorpusError):
            embed_pieces(encoder, utterances[:1])
    else:
        torch.testing.assert_close(embed_pieces(encoder, utterances)[0], expected)
    assert {name: module.training for name, module in encoder.named_modules()} == modes


class Picky(ToneEncoder):
    """Gives NaN for loud samples, and breaks at a batch with faint ones."""

    def forward(self, waveform: torch.Tensor, dim: int | None = None, all_dims: bool = False) -> torch.Tensor:
        peaks = waveform.abs().amax(dim=1)
        if peaks.min() < 0.001:
            raise RuntimeError("breaks")
        found: torch.Tensor = super().forward(waveform, dim, all_dims)
        return found * torch.where(peaks > 10, torch.nan, 1.0)[:, None]


# One piece, embedded alone; or two halves and the whole, in batches.
@pytest.mark.parametrize(("seconds", "pieces"), [(1, 1), (3, 3)])
def test_a_recording_that_cannot_be_embedded_is_left_out_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, pieces: int
) -> None:
    noise = torch.randn(seconds * 16000, generator=torch.Generator().manual_seed(0))
    levels = {"a": 0.1, "b": 20.0, "c": 0.1, "d": 1e-4, "e": 0.1, "f": 0.1}
    for name, level in levels.items():
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "0.wav", (level * noise).numpy(), 16000, subtype="FLOAT")
    utterances = read_corpus(tmp_path)

    def broken(path: Path, **arguments: float) -> object:
        if path.parent.name == "e":
            raise MemoryError
        return read_audio(path, **arguments)

    monkeypatch.setattr("voxnest.matryoshka.fit.read_audio", broken)
    reported: dict[str, str] = {}
    embeddings, speakers, recordings = embed_pieces(Picky(), utterances, warn=reported.__setitem__)
    assert len(embeddings) == 3 * pieces
    assert sorted(utterances[int(index)].speaker for index in recordings) == sorted("acf" * pieces)
    assert torch.equal(speakers, recordings), "each has one"
    assert embeddings.isfinite().all()
    assert reported == {
        str(tmp_path / "b" / "0.wav"): "its embedding is NaN or infinite (expected samples in [-1, 1])",
        str(tmp_path / "d" / "0.wav"): "cannot be used: RuntimeError: breaks",
        str(tmp_path / "e" / "0.wav"): "needs more memory than there is",
    }


def test_an_encoder_that_diverged_is_named(corpus: Path, plain: Path) -> None:
    encoder = load_encoder(plain)
    with torch.no_grad():
        encoder.head.linear.weight.fill_(torch.nan)
    with pytest.raises(CheckpointError, match=r"redimnet-tiny: its embeddings are NaN.*training did not diverge"):
        fit(encoder, read_corpus(corpus))


def test_few_speakers_and_few_pieces_are_warned_about(
    corpus: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.safetensors"
    assert voxnest("matryoshka", "fit", plain, "--corpus", corpus, "-o", output) == 0
    shown = capsys.readouterr()
    assert "warning: corpus: 24 pieces of speech; with fewer than 48 some directions are arbitrary\n" in shown.err
    assert "warning: corpus: 8 speakers; short embeddings get much better with 50 or more\n" in shown.err
    assert f"{output}: {plain} with embeddings of 8, 16, 32, 48 numbers" in shown.out
    told: list[tuple[str, str]] = []
    many = [replace(utterance, speaker=str(index)) for index, utterance in enumerate(3 * read_corpus(corpus))]
    fit(load_encoder(plain), many, method="pca", warn=lambda *what: told.append(what))
    assert told == []


def test_the_encoder_goes_to_standard_output_alone(
    corpus: Path,
    plain: Path,
    tmp_path: Path,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert voxnest("matryoshka", "fit", plain, "--corpus", corpus, "-o", "-") == 0
    (tmp_path / "out.safetensors").write_bytes(capfdbinary.readouterr().out)
    assert load_encoder(tmp_path / "out.safetensors").dims == (8, 16, 32, 48)
