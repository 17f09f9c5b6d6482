"""`voxnest evaluate` as a user types it."""

import json
import os
import re
import threading

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tones import ToneEncoder, make_corpus
from voxnest.cli.evaluate import evaluate
from voxnest.errors import CheckpointError, ConfigError, TrialError, VoxnestError

app = typer.Typer()
app.command()(evaluate)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def model(monkeypatch, tmp_path):
    """A file that loads as the encoder of tones; any other is refused as always."""
    import voxnest.hub.checkpoint as checkpoint

    path, load = tmp_path / "tones.safetensors", checkpoint.load_encoder
    monkeypatch.setattr(
        checkpoint,
        "load_encoder",
        lambda given, device, **how: encoders(device) if given == str(path) else load(given, device=device, **how),
    )
    return path


def encoders(device):
    assert device == "auto"
    encoder = ToneEncoder().eval()
    encoder.thresholds = {8: 0.9999}
    return encoder


def voxnest(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_table_with_every_dimension_is_printed(model, corpus):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--root", corpus)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if re.match(r" *\d+  ", line)]
    assert [row[0] for row in rows] == ["2", "8", "16"]
    assert all(len(row) == 8 for row in rows)
    assert rows[2][1] == "0.00"
    assert "24 target and 252 non-target trials of 24 recordings" in result.output


def test_several_lists_are_one_table_with_the_worst_first(model, corpus, tmp_path):
    easy, hard = corpus / "trials.txt", tmp_path / "hard.txt"
    turned = {"0": "1", "1": "0"}
    hard.write_text("".join(f"{turned[line[0]]}{line[1:]}\n" for line in easy.read_text().splitlines()))
    both = ("--trials", easy, "--trials", hard, "--root", corpus)
    result = voxnest(model, *both, "--json", tmp_path / "r.json", "--plot", tmp_path / "det.png", "--interval")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith(("trials ", "hard "))]
    assert [row[0] for row in rows[1:]] == ["hard", "trials"], "beneath the headings"
    assert (float(rows[1][1]), rows[2][1]) == (100, "0.00")
    assert max(len(line) for line in result.stdout.splitlines() if str(tmp_path) not in line) <= 80
    found = json.loads((tmp_path / "r.json").read_text())
    assert [(each["model"], each["trials"]) for each in found] == [(str(model), str(path)) for path in (easy, hard)]
    twice = voxnest(model, "--trials", easy, "--trials", easy, "--root", corpus)
    assert twice.stdout.startswith(f"{model} on trials.txt\n")
    refused = voxnest("--scores", tmp_path / "s", *both)
    assert isinstance(refused.exception, ConfigError)
    assert "--trials: 2 lists and --scores (expected one list with --scores)" in str(refused.exception)


def test_json_and_plot_are_written_for_the_dimensions_asked_for(model, corpus, tmp_path):
    written = tmp_path / "a" / "r.json", tmp_path / "b" / "det.png"
    result = voxnest(
        *(model, "--trials", corpus / "trials.txt", "--dim", 16, "--dim", 2),
        *("--json", written[0], "--plot", written[1]),
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads(written[0].read_text())["dims"]) == ["2", "16"]
    assert written[1].read_bytes().startswith(b"\x89PNG")
    assert all(path.name in result.output.replace("\n", "") for path in written)


def test_misuse_is_one_clear_error(model, corpus, tmp_path):
    trials = corpus / "trials.txt"
    for arguments, error, message in [
        ((tmp_path / "no.safetensors", "--trials", trials), CheckpointError, "no.safetensors"),
        ((model, "--trials", corpus / "no.txt"), TrialError, "no.txt: cannot be read"),
        ((model, "--trials", trials, "--root", tmp_path), TrialError, "trials.txt:1: .*24 of 24"),
        ((model, "--trials", trials, "--dim", 5), ConfigError, "no embedding of dimension 5"),
    ]:
        result = voxnest(*arguments)
        assert isinstance(result.exception, error), result.output
        assert re.search(message, str(result.exception))
        assert "\n" not in str(result.exception)


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--json", "file/r.json", "r.json: cannot be written"),
        ("--json", "folder", "folder: is a folder"),
        ("--json", "r.txt", "r.txt: ends in .txt (expected a name that ends in .json)"),
        ("--plot", "det.jpg", "det.jpg: ends in .jpg (expected a name that ends in .png or .svg or .pdf)"),
        ("--plot", "file/det.svg", "det.svg: cannot be written"),
    ],
)
def test_outputs_that_cannot_be_written_are_known_before_the_work(tmp_path, option, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    result = voxnest(tmp_path / "no-model", "--trials", tmp_path / "no-trials", option, tmp_path / name)
    assert isinstance(result.exception, ConfigError), result.output
    assert message in str(result.exception)
    assert "EER" not in result.output


def test_an_interval_over_speakers_is_shown_when_asked_for(model, corpus, tmp_path):
    written = tmp_path / "r.json"
    result = voxnest(model, "--trials", corpus / "trials.txt", "--interval", "--json", written, "--dim", 2)
    assert result.exit_code == 0, result.output
    found = json.loads(written.read_text())["dims"]["2"]
    low, high = found["eer_interval"]
    assert low <= found["eer"] <= high
    assert f"{100 * low:.2f}-{100 * high:.2f}" in result.output


@pytest.fixture
def scored(monkeypatch):
    """Evaluations find the scores given, whatever the recordings."""

    def give(scores):
        values = np.array(scores, dtype=np.float32)
        monkeypatch.setattr(
            "voxnest.evaluation.trial_sets.score_indexed",
            lambda matrix, trials, dims: dict.fromkeys(dims, np.resize(values, len(trials.labels))),
        )

    return give


def test_false_accepts_and_rejects_at_the_threshold_of_verify_are_shown(model, corpus, tmp_path):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--json", tmp_path / "r.json")
    found = json.loads((tmp_path / "r.json").read_text())["dims"]
    rows = [line.split() for line in result.stdout.splitlines() if re.match(r" *\d+  ", line)]
    assert [row[5] for row in rows] == ["0.5000*", "0.9999", "0.5000*"]
    for row in rows:
        errors = found[row[0]]["verify"]
        assert row[6:] == [f"{100 * errors['false_accept_rate']:.2f}", f"{100 * errors['false_reject_rate']:.2f}"]
        assert errors["calibrated"] == (row[0] == "8")
    assert found["8"]["verify"]["false_accept_rate"] < found["2"]["verify"]["false_accept_rate"]
    assert found["8"]["verify"]["false_reject_rate"] > 0
    assert "*: a generic threshold" in result.stdout


def test_a_row_of_the_widest_numbers_has_room(model, corpus, scored):
    scored([-0.1, -0.2])
    result = voxnest(model, "--trials", corpus / "trials.txt", "--interval")
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80  # the first is as long as the model's path
    assert "*: a generic threshold" in result.stdout
    assert "…" not in result.stdout


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_json_on_standard_output_is_alone_there(model, corpus, name):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--json", name)
    assert result.exit_code == 0, result.output
    if name == "-":
        assert json.loads(result.stdout)["model"] == str(model)
    assert "EER" not in result.stdout
    assert "EER" in result.stderr


def test_a_picture_on_standard_output_is_alone_there(model, corpus):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--plot", "-")
    assert result.stdout_bytes.startswith(b"\x89PNG")
    assert result.stdout_bytes.endswith(b"IEND\xaeB`\x82")


def test_two_outputs_on_standard_output_are_refused(tmp_path):
    result = voxnest(tmp_path / "no", "--trials", tmp_path / "no", "--json", "-", "--plot", "-")
    assert isinstance(result.exception, ConfigError)
    assert "--plot: standard output, where the JSON goes" in str(result.exception)


def test_links_pipes_and_devices_are_written_through(model, corpus, tmp_path):
    (tmp_path / "target.json").write_text("old")
    (tmp_path / "link.json").symlink_to("target.json")
    os.mkfifo(tmp_path / "pipe")
    received = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    trials = corpus / "trials.txt"
    result = voxnest(model, "--trials", trials, "--json", tmp_path / "link.json", "--plot", tmp_path / "pipe")
    assert result.exit_code == 0, result.output
    reader.join(timeout=10)
    assert received[0].startswith(b"\x89PNG")
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "target.json").read_text())["targets"] == 24
    result = voxnest(model, "--trials", trials, "--json", "/dev/null", "--plot", "/dev/null")
    assert result.exit_code == 0, result.output
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_full_device_is_named(model, corpus, option):
    result = voxnest(model, "--trials", corpus / "trials.txt", option, "/dev/full")
    assert isinstance(result.exception, VoxnestError)
    assert str(result.exception) == "/dev/full: cannot be written: No space left on device"


def test_the_model_is_called_what_the_user_called_it(model, corpus, tmp_path):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--json", tmp_path / "r.json")
    assert result.stdout.startswith(f"{model} on trials.txt\n")
    assert json.loads((tmp_path / "r.json").read_text())["model"] == str(model)


def test_doubtful_trials_are_one_line_each_on_standard_error_and_in_the_json(model, corpus, tmp_path):
    trials = tmp_path / "trials.txt"
    trials.write_text("1 s0/0.wav s0/1.wav\n0 s0/1.wav s0/0.wav\n1 s1/0.wav s1/0.wav\n0 s1/0.wav s0/1.wav\n")
    result = voxnest(model, "--trials", trials, "--root", corpus, "--json", tmp_path / "r.json")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    warnings = json.loads((tmp_path / "r.json").read_text())["warnings"]
    assert lines == [f"warning: {trials}: {text}" for text in warnings]
    assert [re.split("[,:(]", text)[0].strip() for text in warnings] == [
        "1 pair given both as target and as non-target",
        "1 trial of a recording with itself",
        "2 target trials",
        "2 non-target trials",
        "target trials of 2 speakers",
    ]


def test_inverted_labels_are_told(model, corpus, tmp_path):
    lines = (corpus / "trials.txt").read_text().splitlines()
    trials = tmp_path / "trials.txt"
    trials.write_text("".join(f"{1 - int(line[0])}{line[1:]}\n" for line in lines))
    result = voxnest(model, "--trials", trials, "--root", corpus, "--dim", 16)
    assert f"warning: {trials}: EER above 50% (dimension 16): the labels look inverted" in result.stderr


def test_scores_that_are_all_equal_are_an_eer_of_half(model, corpus, scored, tmp_path):
    scored([0.25])
    result = voxnest(
        *(model, "--trials", corpus / "trials.txt"), "--json", tmp_path / "r.json", "--plot", tmp_path / "d.svg"
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "r.json").read_text())["dims"]["16"]
    assert (found["eer"], found["min_dcf"]["0.01"]) == (0.5, 1)


def test_scores_that_are_not_finite_are_one_line(model, corpus, scored):
    scored([0.1, float("nan")])
    result = voxnest(model, "--trials", corpus / "trials.txt")
    assert isinstance(result.exception, TrialError)
    assert str(result.exception) == "scores: 138 of 276 are NaN or infinite (expected finite numbers)"


@pytest.mark.parametrize(("label", "found"), [(1, "1 target and 0 non-target"), (0, "0 target and 1 non-target")])
def test_trials_of_one_kind_are_one_line(model, corpus, tmp_path, label, found):
    trials = tmp_path / "trials.txt"
    trials.write_text(f"{label} s0/0.wav s0/1.wav\n")
    result = voxnest(model, "--trials", trials, "--root", corpus)
    assert str(result.exception) == f"{trials}: {found} trials (expected at least one of each kind)"


def test_a_list_of_absolute_paths_needs_no_root(model, corpus, tmp_path):
    trials = tmp_path / "trials.txt"
    trials.write_text("".join(re.sub(r" s", f" {corpus}/s", line) for line in (corpus / "trials.txt").open()))
    result = voxnest(model, "--trials", trials)
    assert result.exit_code == 0, result.output
    assert "of 24 recordings" in result.stdout


def test_a_list_from_a_pipe_is_said_to_be_waited_for(model, corpus, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    text = (corpus / "trials.txt").read_text()
    threading.Thread(target=lambda: (tmp_path / "pipe").write_text(text), daemon=True).start()
    result = voxnest(model, "--trials", tmp_path / "pipe", "--root", corpus)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"note: reading trials from {tmp_path}/pipe until its writer ends\n")


def test_a_malformed_list_is_one_line_and_status_2(run, tmp_path):
    (tmp_path / "trials.txt").write_text("1 my voice.wav b.wav\n")
    status, _, errors = run("evaluate", "--trials", tmp_path / "trials.txt")
    assert status == 2
    assert errors.startswith(f"error: {tmp_path}/trials.txt:1: '1 my voice.wav b.wav' (expected ")
    assert errors.count("\n") == 1


def test_an_unknown_device_is_refused(tmp_path):
    result = voxnest("default", "--trials", tmp_path / "no", "--device", "gpu")
    assert isinstance(result.exception, ConfigError)
    assert "device" in str(result.exception)
