"""`voxnest evaluate` as a user types it."""

import json
import re

import pytest
import typer
from typer.testing import CliRunner

from tones import ToneEncoder, make_corpus
from voxnest.cli.evaluate import evaluate
from voxnest.errors import CheckpointError, ConfigError, TrialError

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
        checkpoint, "load_encoder", lambda given: ToneEncoder().eval() if given == str(path) else load(given)
    )
    return path


def voxnest(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_table_with_every_dimension_is_printed(model, corpus):
    result = voxnest(model, "--trials", corpus / "trials.txt", "--root", corpus)
    assert result.exit_code == 0, result.output
    rows = re.findall(r"^│ +(\d+) │ +([\d.]+) │ +([\d.-]+) │ +([\d.]+) │ +([\d.]+) │$", result.output, re.M)
    assert [row[0] for row in rows] == ["2", "8", "16"]
    assert rows[2][1] == "0.00"
    assert "24 target and 252 non-target trials of 24 recordings" in result.output


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
        ("--plot", "det.pdf", "det.pdf: ends in .pdf"),
    ],
)
def test_outputs_that_cannot_be_written_are_known_before_the_work(model, corpus, tmp_path, option, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    result = voxnest(model, "--trials", corpus / "trials.txt", option, tmp_path / name)
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
