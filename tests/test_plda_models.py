"""PLDA from the command line: trained on a corpus, in a file, used by evaluate and score, for its own encoder."""

import json
from pathlib import Path

import numpy as np
import pytest

from tones import ToneEncoder, make_corpus
from voxnest.corpora.trials import index_trials, locate_recordings, read_trials
from voxnest.errors import CheckpointError, ConfigError, CorpusError
from voxnest.evaluation import compute_eer, evaluate, load_plda, save_plda, score_list, train_plda
from voxnest.inference import embed_files, embed_to_file
from voxnest.scoring import fit_plda


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


def test_a_model_is_that_of_the_scoring_room_before_and_after_a_file(corpus: Path, tmp_path: Path) -> None:
    encoder = ToneEncoder().eval()
    plda = train_plda(encoder, corpus, dim=4)
    files = sorted(map(str, corpus.rglob("*.wav")))
    rows = np.stack(list(embed_files(encoder, files).values()))
    expected = fit_plda(rows, np.repeat(np.arange(8), 3), dim=4)
    save_plda(plda, encoder, tmp_path / "plda.npz")
    pairs = locate_recordings(index_trials(read_trials(corpus / "trials.txt")), corpus)
    matrix = np.stack([embed_files(encoder, pairs.names)[name] for name in pairs.names])
    ratios = expected.score(matrix, pairs)
    again = load_plda(tmp_path / "plda.npz", encoder)
    np.testing.assert_allclose(again.score(matrix, pairs), ratios, rtol=1e-6)
    report = evaluate(encoder, corpus / "trials.txt", plda=again)
    assert report.dims[16].normalised["PLDA"].eer == compute_eer(ratios, pairs.labels)[0]
    assert not report.dims[8].normalised, "PLDA is of whole embeddings"
    embed_to_file(encoder, files, tmp_path / "e.npz")
    count = score_list(
        tmp_path / "e.npz", corpus / "trials.txt", tmp_path / "s", root=corpus, plda=tmp_path / "plda.npz"
    )
    written = [float(line.split()[2]) for line in (tmp_path / "s").read_text().splitlines()]
    assert count == len(ratios)
    np.testing.assert_allclose(written, ratios, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    encoder, other = ToneEncoder().eval(), ToneEncoder().eval()
    other.scale.data += 1
    with pytest.raises(ConfigError, match="these embeddings determine 7 directions"):
        train_plda(encoder, corpus, dim=9)
    with pytest.raises(CorpusError, match="recordings of nobody"):
        train_plda(encoder, corpus / "s0")
    save_plda(train_plda(encoder, corpus), encoder, tmp_path / "plda.npz")
    with pytest.raises(ConfigError, match="PLDA of tones with other weights"):
        load_plda(tmp_path / "plda.npz", other)
    with pytest.raises(ConfigError, match=r"embeddings of 16 numbers \(expected for 8"):
        load_plda(tmp_path / "plda.npz", size=8)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_plda(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "other.npz", mean=np.zeros(3))
    for name in ("text", "other"):
        with pytest.raises(CheckpointError, match="no PLDA model"):
            load_plda(tmp_path / f"{name}.npz")


def test_the_commands_train_and_use_it(run, voices: Path, tmp_path: Path) -> None:
    names = []
    for speaker in ("libri-1688", "libri-2033", "libri-3080"):
        for path in sorted((voices / "test" / speaker).rglob("*.flac"))[:3]:
            link = tmp_path / "corpus" / speaker / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
            names.append(f"{speaker}/{path.name}")
    lines = [f"{int(a[:8] == b[:8])} {a} {b}\n" for n, a in enumerate(names) for b in names[n + 1 :]]
    (tmp_path / "trials.txt").write_text("".join(lines))
    status, text, errors = run("plda", "default", "--corpus", tmp_path / "corpus", "-o", tmp_path / "plda.npz")
    assert status == 0, errors
    assert "PLDA of 2 directions for default" in text
    arguments = ["--trials", tmp_path / "trials.txt", "--root", tmp_path / "corpus", "--dim", 256]
    status, text, errors = run("evaluate", *arguments, "--plda", tmp_path / "plda.npz", "--json", tmp_path / "r.json")
    assert status == 0, errors
    assert "PLDA" in text
    assert json.loads((tmp_path / "r.json").read_text())["dims"]["256"]["normalised"]["PLDA"]["eer"] == 0
    status, _, errors = run("evaluate", *arguments, "--plda", tmp_path / "trials.txt")
    assert status == 2
    assert "no PLDA model" in errors
