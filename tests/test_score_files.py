"""Score files: what is read and written, `voxnest score`, and `voxnest evaluate --scores`."""

import json
import os
import re
import threading

import numpy as np
import pytest

from voxnest.corpora.score_files import read_scores, write_scores
from voxnest.errors import ConfigError, CorpusError, TrialError
from voxnest.evaluation import (
    Trial,
    compute_eer,
    evaluate_scores,
    read_trials,
    score_list,
    score_lists,
    score_trials,
    write_trials,
)
from voxnest.evaluation.report import UNKNOWN_SIZE

ROWS = [("a.wav", "b.wav", 0.75, True), ("a.wav", "c.wav", -0.125, False), ("b.wav", "c.wav", 1e-7, False)]
PLAIN = "a.wav b.wav 0.75 1\na.wav c.wav -0.125 0\nb.wav c.wav 1e-07 0\n"
VOXCELEB = "1 a.wav b.wav 0.75\n0 a.wav c.wav -0.125\n0 b.wav c.wav 1e-07\n"


def written(folder, content, name="scores.txt"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(scored):
    labels = [None] * len(scored.scores) if scored.labels is None else scored.labels.tolist()
    sides = ([scored.names[place] for place in side] for side in (scored.enrollment, scored.test))
    return list(zip(*sides, scored.scores.tolist(), labels, strict=True))


@pytest.mark.parametrize(
    ("order", "text"),
    [("plain", PLAIN), ("kaldi", re.sub(" [01]\n", "\n", PLAIN)), ("voxceleb", VOXCELEB)],
)
def test_every_order_is_written_as_others_have_it_and_read_back(tmp_path, order, text):
    assert write_scores(ROWS, tmp_path / "s.txt", order) == 3
    assert (tmp_path / "s.txt").read_text() == text
    expected = [(*row[:3], None if order == "kaldi" else row[3]) for row in ROWS]
    assert rows_of(read_scores(tmp_path / "s.txt")) == expected


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + PLAIN.encode(),
        "\n" + PLAIN.replace(" ", "\t") + "\n\n",
        PLAIN.replace(" 1\n", " target\n").replace(" 0\n", " nontarget\n"),
    ],
    ids=["Windows line ends", "byte order mark", "tabs and blank lines", "Kaldi's labels"],
)
def test_files_of_other_systems_read_the_same(tmp_path, content):
    assert rows_of(read_scores(written(tmp_path, content))) == ROWS


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a b nan 1", "'a b nan 1' (expected a finite score)"),
        ("a b inf 1", "'a b inf 1' (expected a finite score)"),
        ("a b 0,5 1", "'a b 0,5 1' (expected 'enrollment test score [label]' or"),
        ("a b 0.5", "'a b 0.5' (expected 'enrollment"),
        ("a b 0.5 2", "'a b 0.5 2' (expected"),
        ("a b 0.5 1 x", "'a b 0.5 1 x' (expected"),
        ("1 a b 0.5", "'1 a b 0.5' (expected"),
        ("a", "'a' (expected"),
    ],
)
def test_a_bad_line_is_named_with_its_number_what_was_found_and_what_is_expected(tmp_path, line, found):
    with pytest.raises(TrialError, match=re.escape(f"scores.txt:5: {found}")):
        read_scores(written(tmp_path, f"{PLAIN}\n{line}\n"))


@pytest.mark.parametrize("content", ["", "\n\r\n"])
def test_a_file_without_scores_is_refused(tmp_path, content):
    with pytest.raises(TrialError, match="no scores"):
        read_scores(written(tmp_path, content))


def test_float32_is_read_back_as_it_was(tmp_path):
    scores = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    write_scores((("a", "b", float(score), None) for score in scores), tmp_path / "s.txt")
    assert np.array_equal(read_scores(tmp_path / "s.txt").scores.astype(np.float32), scores)


@pytest.mark.parametrize(
    ("row", "order", "found"),
    [(("a b", "c", 0.0, True), "plain", "'a b' cannot be written"), (("a", "b", 0.0, None), "voxceleb", "without lab")],
)
def test_what_a_score_file_cannot_hold_is_refused_and_the_file_kept(tmp_path, row, order, found):
    path = written(tmp_path, PLAIN)
    with pytest.raises(TrialError, match=found):
        write_scores([ROWS[0], row], path, order)
    assert path.read_text() == PLAIN
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def archive(tmp_path):
    """Embeddings as `voxnest embed` writes them, and trials of them."""
    random = np.random.default_rng(0)
    names = [f"wav/{speaker}/{number}.wav" for speaker in range(12) for number in range(3)]
    centres = np.repeat(random.standard_normal((12, 8)), 3, axis=0)
    matrix = (centres + 0.6 * random.standard_normal((36, 8))).astype(np.float32)
    np.savez(tmp_path / "e.npz", names=np.array(names), embeddings=matrix, model=np.array("m"), dim=np.array(8))
    short = [name.removeprefix("wav/") for name in names]
    trials = [Trial(a.split("/")[0] == b.split("/")[0], a, b) for n, a in enumerate(short) for b in short[:n]]
    write_trials(trials, tmp_path / "trials.txt")
    return tmp_path, dict(zip(short, matrix, strict=True)), trials


@pytest.mark.parametrize("dim", [None, 4])
def test_scores_from_embeddings_are_those_of_the_trials(archive, run, dim, monkeypatch):
    folder, embeddings, trials = archive
    monkeypatch.setattr("voxnest.evaluation.score_lists.LINES", 100)  # several blocks, the last not full
    size = ("--dim", dim) if dim else ()
    out = folder / "scores.txt"
    status, output, errors = run(
        "score", folder / "e.npz", "--trials", folder / "trials.txt", "--root", "wav", "-o", out, *size
    )
    assert (status, errors) == (0, "")
    assert output == f"{out}: 630 scores\n"
    found = rows_of(read_scores(out))
    assert [(label, *names) for *names, _, label in found] == [tuple(trial) for trial in trials]
    assert np.allclose([row[2] for row in found], score_trials(embeddings, trials, dim), atol=1e-7)


def test_pairs_without_labels_and_several_files_are_scored_into_a_pipe(archive, run_bytes):
    folder, *_ = archive
    everything = np.load(folder / "e.npz")
    for part, rows in (("one", slice(0, 20)), ("two", slice(20, 36))):
        kept = {"names": everything["names"][rows], "embeddings": everything["embeddings"][rows]}
        np.savez(folder / f"{part}.npz", **kept, model=everything["model"], dim=everything["dim"])
    pairs = written(folder, "wav/0/0.wav wav/11/0.wav\n", "pairs.txt")
    status, output, errors = run_bytes("score", folder / "one.npz", folder / "two.npz", "--trials", pairs, "-o", "-")
    assert (status, errors) == (0, "-: 1 scores\n")
    assert re.fullmatch(rb"wav/0/0.wav wav/11/0.wav -?\d\.\d+\n", output)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trials": "1 wav/0/0.wav gone.wav\n"}, TrialError, "list.txt:1: no embedding of 'gone.wav' .*--root"),
        ({"trials": "1 wav/0/0.wav a b\n"}, TrialError, "list.txt:1: '1 wav/0/0.wav a b'"),
        ({"trials": ""}, TrialError, "list.txt: no trials"),
        ({"embeddings": b"text"}, CorpusError, "e.npz: no archive of embeddings"),
        ({"embeddings": None}, CorpusError, "e.npz: cannot be read: No such file"),
        ({"names": ["wav/0/0.wav"] * 2}, CorpusError, "two embeddings of wav/0/0.wav"),
        ({"values": np.full((2, 8), np.nan, np.float32)}, CorpusError, "not finite"),
        ({"values": np.ones((3, 8), np.float32)}, CorpusError, r"names \(2,\) and embeddings \(3, 8\)"),
        ({"values": None}, CorpusError, "no archive of embeddings"),
        ({"dim": 9}, ConfigError, "--dim: 9 .expected 1 to 8"),
        ({"dim": 0}, ConfigError, "--dim: 0"),
    ],
)
def test_what_cannot_be_scored_is_named_and_the_output_is_kept(tmp_path, change, error, message):
    archive, output = tmp_path / "e.npz", written(tmp_path, "kept", "out.txt")
    contents = {"names": np.array(change.get("names", ["wav/0/0.wav", "b"])), "model": np.array("m"), "dim": 8}
    values = change.get("values", np.ones((2, 8), np.float32))
    np.savez(archive, **contents, **({} if values is None else {"embeddings": values}))
    if "embeddings" in change:
        archive.unlink()
        if change["embeddings"]:
            archive.write_bytes(change["embeddings"])
    trials = written(tmp_path, change.get("trials", "1 wav/0/0.wav b\n"), "list.txt")
    with pytest.raises(error, match=message):
        score_list(archive, trials, output, dim=change.get("dim"))
    assert output.read_text() == "kept"


def test_embeddings_of_two_models_are_not_compared(archive):
    folder, *_ = archive
    np.savez(folder / "x.npz", names=np.array(["x"]), embeddings=np.ones((1, 8)), model=np.array("other"), dim=8)
    with pytest.raises(CorpusError, match=r"x.npz: embeddings of other, 8 numbers \(expected m, 8 numbers, as in"):
        score_list([folder / "e.npz", folder / "x.npz"], folder / "trials.txt", folder / "out.txt")


def test_a_list_is_read_while_it_comes_and_never_held_whole(archive, monkeypatch):
    folder, *_ = archive
    monkeypatch.setattr("voxnest.evaluation.score_lists.LINES", 4)
    blocks = []
    score = score_lists.score_indexed
    monkeypatch.setattr(score_lists, "score_indexed", lambda m, t, d: (blocks.append(len(t.labels)), score(m, t, d))[1])
    os.mkfifo(folder / "pipe")
    text = (folder / "trials.txt").read_text()
    writer = threading.Thread(target=lambda: (folder / "pipe").write_text(text), daemon=True)
    writer.start()
    assert score_list(folder / "e.npz", folder / "pipe", folder / "out.txt", root="wav") == 630
    assert set(blocks) == {4, 2}


@pytest.fixture
def scored(archive):
    """A score file of all trials, with labels."""
    folder, *_ = archive
    score_list(folder / "e.npz", folder / "trials.txt", folder / "scores.txt", root="wav")
    return folder


def test_a_score_file_is_measured_without_any_model(scored, archive, run):
    _, embeddings, trials = archive
    status, output, _ = run("evaluate", "--scores", scored / "scores.txt", "--json", scored / "r.json")
    assert status == 0
    found = json.loads((scored / "r.json").read_text())
    assert (found["targets"], found["nontargets"], found["recordings"]) == (36, 594, 36)
    assert found["real_time_factor"] is None
    eer, threshold = compute_eer(score_trials(embeddings, trials), [trial.label for trial in trials])
    assert found["dims"]["0"]["eer"] == eer
    assert found["dims"]["0"]["threshold"] == pytest.approx(threshold, abs=1e-7)
    assert found["dims"]["0"]["verify"] is None
    assert "verify" not in output
    assert re.search(rf"^ +- +{100 * eer:.2f}  ", output, re.MULTILINE)


def test_labels_come_from_the_list_whatever_the_order_of_the_scores(scored):
    expected = evaluate_scores(scored / "scores.txt").dims
    lines = re.sub(" [01]\n", "\n", (scored / "scores.txt").read_text()).splitlines(keepends=True)
    bare = written(scored, "".join(np.random.default_rng(0).permutation(lines)) + "other pair 0.5\n", "bare.txt")
    with pytest.raises(TrialError, match=r"bare.txt: scores without labels \(expected a label on each line, or the tr"):
        evaluate_scores(bare)
    report = evaluate_scores(bare, scored / "trials.txt")
    assert report.dims == expected
    assert report.warnings == [f"1 scores of trials that are not in {scored / 'trials.txt'} are left out"]


def test_a_trial_without_score_and_a_pair_with_two_are_refused(scored):
    lines = (scored / "scores.txt").read_text().splitlines(keepends=True)
    part = written(scored, "".join(lines[2:]), "part.txt")
    with pytest.raises(TrialError, match=r"no score of '0/1.wav 0/0.wav'; 2 of 630 trials have none"):
        evaluate_scores(part, scored / "trials.txt")
    both = written(scored, "".join([*lines, "0/1.wav 0/0.wav 0.123 1\n"]), "both.txt")
    with pytest.raises(TrialError, match=r"two different scores of '0/1.wav 0/0.wav'"):
        evaluate_scores(both, scored / "trials.txt")


def test_duplicated_trials_count_as_often_as_they_are_given_and_are_told(scored):
    lines = (scored / "scores.txt").read_text().splitlines(keepends=True)
    twice = written(scored, "".join([*lines, lines[0]]), "twice.txt")
    report = evaluate_scores(twice)
    assert (report.targets, report.warnings) == (37, ["1 trial of a pair given before, first '0/1.wav 0/0.wav'"])
    listed = [*read_trials(scored / "trials.txt"), *read_trials(scored / "trials.txt")[:1]]
    write_trials(listed, scored / "twice-trials.txt")
    assert evaluate_scores(twice, scored / "twice-trials.txt").dims == report.dims


def test_ties_are_on_the_same_side_and_one_kind_of_trials_is_refused(tmp_path):
    tied = "".join(f"a{n} b{n} 0.5 {n % 2}\n" for n in range(60))
    assert evaluate_scores(written(tmp_path, tied)).dims[UNKNOWN_SIZE].eer == 0.5
    with pytest.raises(TrialError, match=r"scores.txt: 30 target and 0 non-target trials \(expected at least one of e"):
        evaluate_scores(written(tmp_path, "".join(f"a{n} b{n} 0.{n} 1\n" for n in range(30))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("default", "--scores", "s.txt"), "error: --scores: given with a model or --dim (expected one of them"),
        (("--scores", "s.txt", "--dim", "4"), "error: --scores: given with a model or --dim"),
        ((), "error: --task verification: nothing to evaluate on (expected --trials LIST, --protocol NAME, or "),
        (("--scores", "s.txt", "--audio"), "error: --audio: given without a report to put it into (expected --report"),
        (("--scores", "gone.txt"), "error: gone.txt: cannot be read: No such file or directory"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(run, arguments, message):
    status, output, errors = run("evaluate", *arguments)
    assert (status, output) == (2, "")
    assert errors.startswith(message)
    assert errors.count("\n") == 1
