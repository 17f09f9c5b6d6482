"""Scores normalised by a cohort, from the command line: beside the raw ones."""

import json
from pathlib import Path

import numpy as np
import pytest

from tones import ToneEncoder, make_corpus
from voxnest.corpora.trials import index_trials, locate_recordings, read_trials
from voxnest.errors import ConfigError, CorpusError
from voxnest.evaluation import Cohort, compute_eer, evaluate, load_cohort
from voxnest.inference import embed_files, embed_to_file
from voxnest.inference.bulk import embed_to_folder
from voxnest.scoring import normalise, score_indexed, speaker_means, subtract_mean


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("tones"))


def test_a_cohort_is_a_corpus_or_a_file_of_embeddings(corpus: Path, tmp_path: Path) -> None:
    encoder = ToneEncoder().eval()
    encoder.head = type("Head", (), {"check_dim": lambda self, dim: None})()
    files = sorted(map(str, corpus.rglob("*.wav")))
    embed_to_file(encoder, files, tmp_path / "cohort.npz")
    rows = np.stack(list(embed_files(encoder, files).values()))
    assert np.allclose(load_cohort(encoder, tmp_path / "cohort.npz"), rows)
    assert np.allclose(load_cohort(encoder, corpus), rows)
    speakers = np.repeat(np.arange(8), 3)
    assert np.allclose(load_cohort(encoder, corpus, speakers=True), speaker_means(rows, speakers))
    with pytest.raises(ConfigError, match="names no speakers"):
        load_cohort(encoder, tmp_path / "cohort.npz", speakers=True)
    pytest.importorskip("pyarrow")
    embed_to_folder(lambda: encoder, list(map(str, files)), tmp_path / "cohort.parquet")
    np.testing.assert_allclose(load_cohort(encoder, tmp_path / "cohort.parquet"), rows, rtol=1e-5)
    embed_to_file(encoder, files, tmp_path / "short.npz", dim=8)
    with pytest.raises(ConfigError, match=r"embeddings of 8 numbers \(expected 16"):
        load_cohort(encoder, tmp_path / "short.npz")
    with pytest.raises(CorpusError, match="cannot be read"):
        load_cohort(encoder, tmp_path / "none.npz")


def test_every_method_is_that_of_the_scoring_room(corpus: Path) -> None:
    encoder = ToneEncoder().eval()
    cohort = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    report = evaluate(encoder, corpus / "trials.txt", cohort=Cohort(cohort, ("as", "s", "z", "t", "mean"), 7))
    pairs = locate_recordings(index_trials(read_trials(corpus / "trials.txt")), corpus)
    rows = np.stack([embed_files(encoder, pairs.names)[name] for name in pairs.names])
    for dim in (8, 16):
        raw = score_indexed(rows, pairs, (dim,))[dim]
        found = report.dims[dim].normalised
        assert list(found) == ["AS-norm", "S-norm", "Z-norm", "T-norm", "mean"]
        for name, norm in (("AS-norm", "as"), ("S-norm", "s"), ("Z-norm", "z"), ("T-norm", "t")):
            values = normalise(raw, rows[:, :dim], pairs, cohort[:, :dim], norm, 7)
            eer, threshold = compute_eer(values, pairs.labels)
            assert (found[name].eer, found[name].threshold) == (eer, pytest.approx(threshold, abs=1e-4))
        centred = score_indexed(subtract_mean(rows[:, :dim], cohort[:, :dim]), pairs, (dim,))[dim]
        assert found["mean"].threshold == pytest.approx(compute_eer(centred, pairs.labels)[1], abs=1e-5)


def test_the_command_shows_both(run, voices: Path, tmp_path: Path) -> None:
    recordings = sorted((voices / "test" / "libri-1688").rglob("*.flac"))[:3]
    others = sorted((voices / "test" / "libri-2033").rglob("*.flac"))[:2]
    names = [*recordings, *others]
    lines = [f"{int(a.parts[-3] == b.parts[-3])} {a} {b}\n" for n, a in enumerate(names) for b in names[n + 1 :]]
    (tmp_path / "trials.txt").write_text("".join(lines))
    for number, path in enumerate(sorted((voices / "test" / "libri-3080").rglob("*.flac"))[:4]):
        (tmp_path / "cohort" / f"s{number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cohort" / f"s{number % 2}" / f"{number}.flac").symlink_to(path)
    arguments = ["evaluate", "--trials", tmp_path / "trials.txt", "--dim", 64, "--json", tmp_path / "r.json"]
    more = ["--cohort", tmp_path / "cohort", "--norm", "as", "--norm", "mean", "--report", tmp_path / "report"]
    status, text, errors = run(*arguments, *more)
    assert status == 0, errors
    assert "AS-norm" in text
    assert set(json.loads((tmp_path / "r.json").read_text())["dims"]["64"]["normalised"]) == {"AS-norm", "mean"}
    assert "Normalised scores" in (tmp_path / "report" / "report.html").read_text()
    status, text, _ = run(*arguments, *more)
    assert "5 embeddings came from the cache" in text
    assert "came from the cache" not in run(*arguments, *more, "--no-cache")[1]
    assert run(*arguments, "--norm", "s")[0] == 2
