"""`voxnest evaluate --report`: what is in the page, the JSON and the Markdown, for one model and for several."""

import base64
import io
import json
import os
import re
import threading
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from test_plots import make_report
from tones import ToneEncoder, make_corpus
from voxnest.corpora.trials import IndexedTrials, Trial, index_trials
from voxnest.errors import VoxnestError
from voxnest.evaluation import TrialSet, describe_encoder, evaluate, save_report
from voxnest.evaluation.page import Column, Table
from voxnest.evaluation.page.charts import reliability
from voxnest.evaluation.page.tables import MISSING
from voxnest.evaluation.page.worst import CLIP_SECONDS, Players, worst_trials
from voxnest.hub.checkpoint import find_metadata, load_encoder

EVIL = """<script>alert(1)</script>"&'|`*.wav"""


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and its texts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], text
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def with_pairs(report, names=("a.wav", "b.wav", "c.wav")):
    numbers = np.arange(len(report.labels))
    pairs = IndexedTrials(list(names), numbers % len(names), (numbers + 1) % len(names), report.labels)
    return replace(report, pairs=pairs)


def write(folder, reports, **options):
    save_report(reports, folder, **options)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def headings(page):
    return re.findall("<h2>(.*?)</h2>", page.text)


def test_a_page_has_every_part_that_is_known_and_says_what_is_not(tmp_path):
    page = write(tmp_path, {"m": with_pairs(make_report((2, 3)))})
    assert headings(page) == [
        *("Results", "Error rates at every threshold", "Scores", "Calibration", "Size of the embedding"),
        *("Worst trials", "How it was made"),
    ]
    assert "The scores are not calibrated" in page.text
    assert len(page.all("svg")) == 3
    bare = write(tmp_path, {"m": make_report((2,))})
    assert "Worst trials" not in headings(bare)
    assert "Size of the embedding" not in headings(bare)


def test_nothing_is_loaded_and_no_script_but_its_own_may_run(tmp_path):
    page = write(tmp_path, {EVIL: with_pairs(make_report((2, 3), model=EVIL, trials=EVIL), [EVIL, "b", "c"])})
    for _, attributes in page.elements:
        assert not set(attributes) & {"href", "srcset", "action", "data", "onload", "onerror"}
        assert attributes.get("src", "data:").startswith("data:")
        assert attributes.get("xlink:href", "#").startswith("#")
    assert "url(" not in page.text.replace("url(#", "")
    assert "@import" not in page.text
    assert len(page.all("script")) == 1
    assert "alert(1)</script>" not in page.text
    policy = next(meta for meta in page.all("meta") if "http-equiv" in meta)["content"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_plots_have_the_colours_of_the_page_and_names_of_their_own(tmp_path):
    page = write(tmp_path, {"a": make_report((2, 3)), "b": make_report((1, 2))})
    drawings = re.findall("<svg.*?</svg>", page.text, re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        assert "var(--ink)" in drawing
        assert not re.search("#[0-9a-f]{6}", drawing)
        assert "<style" not in drawing
    identifiers = [name for drawing in drawings for name in set(re.findall(' id="(.*?)"', drawing))]
    assert len(identifiers) == len(set(identifiers))
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in page.all("svg"))


def test_several_models_stand_side_by_side_in_all_three_files(tmp_path):
    reports = {"one": make_report((2, 3)), "two": make_report((1, 2), model="two")}
    table = Table(
        "By gender", [Column("gender"), Column("EER %", ".2f")], [["f", np.float32(1.5)], ["m", None]], "note"
    )
    page = write(tmp_path, reports, tables=[table], cards={"one": {"parameters": "5"}, "two": {"data": "x"}})
    assert "2 models compared" in page.text
    assert "By gender" in headings(page)
    assert "The models" in headings(page)
    found = json.loads((tmp_path / "report.json").read_text())
    assert [model["label"] for model in found["models"]] == ["one", "two"]
    assert found["models"][0]["dims"]["8"]["eer"] == reports["one"].dims[8].eer
    assert found["models"][0]["card"] == {"parameters": "5"}
    assert found["tables"] == [
        {"title": "By gender", "note": "note", "rows": [{"gender": "f", "EER %": 1.5}, {"gender": "m", "EER %": None}]}
    ]
    assert {"command", "voxnest", "torch", "numpy", "python", "machine"} <= set(found["environment"])
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert lines[2].startswith("| model | dim | EER % |")
    assert [line.split(" | ")[:2] for line in lines[4:8]] == [
        ["| one", "8"],
        ["| one", "16"],
        ["| two", "8"],
        ["| two", "16"],
    ]
    assert lines[-4:] == ["| gender | EER % |", "| --- | ---: |", "| f | 1.50 |", f"| m | {MISSING} |"]


def test_markdown_cells_hold_any_name(tmp_path):
    save_report({EVIL: make_report((2,))}, tmp_path)
    row = (tmp_path / "report.md").read_text().splitlines()[4]
    assert len(re.findall(r"(?<!\\)\|", row)) == len(
        re.findall(r"\|", (tmp_path / "report.md").read_text().splitlines()[3])
    )
    assert "<" not in row


def test_the_worst_trials_are_the_highest_nontargets_and_the_lowest_targets():
    report = with_pairs(make_report((2,)))
    found = worst_trials(report, 8, 3)
    scores, labels = report.scores[8], report.labels
    assert [trial.label for trial in found] == [False] * 3 + [True] * 3
    assert [trial.score for trial in found[:3]] == sorted(scores[~labels])[:-4:-1]
    assert [trial.score for trial in found[3:]] == sorted(scores[labels])[:3]
    first = int(np.flatnonzero(scores == found[0].score)[0])
    assert found[0][2:] == (report.pairs.names[first % 3], report.pairs.names[(first + 1) % 3])


def test_players_hold_the_beginning_of_a_recording_or_say_why_not(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(np.arange(44100 * 20) / 20), 44100)
    players = Players()
    (player,) = Page(players(str(tmp_path / "a.wav"))).all("audio")
    assert "controls" in player
    kind, content = player["src"].split(",", 1)
    assert kind == "data:audio/ogg;base64"
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(content)))
    assert (rate, len(samples)) == (16000, 16000 * CLIP_SECONDS)
    assert 0.28 < np.abs(samples).max() < 0.32
    assert "no player: no such file" in players(str(tmp_path / "gone.wav"))
    monkeypatch.setattr("voxnest.evaluation.page.worst.MOST_CLIPS", players.count)
    assert "the page has enough" in players(str(tmp_path / "a.wav"))


def test_reliability_of_ratios_that_are_right_is_the_diagonal():
    random = np.random.default_rng(0)
    labels = np.arange(400_000) % 20 == 0  # the share of targets must not matter
    shift = np.where(labels, 1, -1)
    scores = random.standard_normal(len(labels)) + shift
    predicted, observed, counts = reliability(2 * scores, labels)
    assert np.abs(predicted - observed).max() < 0.02
    assert counts.sum() == len(labels)
    overconfident, seen, _ = reliability(6 * scores, labels)
    assert overconfident[-1] > seen[-1] + 0.05
    extreme, right, _ = reliability(np.array([1e5, -1e5]), np.array([True, False]))
    assert (extreme.round(9).tolist(), right.tolist()) == ([0.0, 1.0], [0.0, 1.0])


def test_calibrated_models_are_drawn_and_the_others_named(tmp_path):
    calm = make_report((2,))
    reports = {"a": replace(calm, llrs={8: 2 * (calm.scores[8] - 1)}), "b": calm}
    page = write(tmp_path, reports)
    assert "Not calibrated: b." in page.text
    assert any(figure["aria-label"] == "Reliability of a" for figure in page.all("svg"))


def test_a_card_tells_the_model_and_what_its_checkpoint_tells():
    card = describe_encoder(load_encoder(), find_metadata())
    assert card["parameters"] == "1,023,152"
    assert card["architecture"] == "resnet"
    assert card["license"] == "Apache-2.0"
    encoder = SimpleNamespace(
        name="n", architecture="a", dims=(8,), sample_rate=16000, min_samples=1600, parameters=lambda: iter([])
    )
    told = {"step": 7, "eer": {"8": 0.123456}, "long": "x" * 999}
    card = describe_encoder(encoder, told)
    assert (card["training: step"], card["training: eer"]) == ("7", "8: 0.1235")
    assert len(card["training: long"]) == 301


def test_a_report_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(VoxnestError, match=r"report.html: cannot be written"):
        save_report({"m": make_report((2,))}, tmp_path / "file")


def test_a_name_that_is_no_utf_8_is_written_all_the_same(tmp_path):
    assert "a\\udcffb" in write(tmp_path, {"a\udcffb": make_report((2,))}).text


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture
def models(monkeypatch, tmp_path):
    """Two files that load as the encoder of tones."""
    import voxnest.hub.checkpoint as checkpoint

    paths = [str(tmp_path / f"{name}.safetensors") for name in ("one", "two")]
    monkeypatch.setattr(checkpoint, "load_encoder", lambda given, **how: ToneEncoder().eval())
    monkeypatch.setattr(checkpoint, "find_metadata", lambda given: {"step": 3})
    return paths


def test_several_models_are_evaluated_by_one_command(models, corpus, tmp_path, run):
    out = tmp_path / "out"
    status, output, errors = run(
        *("evaluate", *models, models[0], "--trials", corpus / "trials.txt", "--dim", 2, "--dim", 16),
        *("--json", tmp_path / "r.json", "--plot", tmp_path / "det.svg", "--report", out, "--audio"),
    )
    assert status == 0, errors
    assert [found["model"] for found in json.loads((tmp_path / "r.json").read_text())] == models
    assert output.count("24 target and 252 non-target trials") == 2
    assert f"report: {out / 'report.html'}\n" in output
    assert (tmp_path / "det.svg").read_text().count("2 models")
    page = Page((out / "report.html").read_text())
    assert len(page.all("audio")) == 2 * 16 * 2
    assert "training: step" in page.text
    assert len(json.loads((out / "report.json").read_text())["models"][1]["worst_trials"]) == 16
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "report.md"]


def test_all_recordings_of_an_enrolled_speaker_are_played(corpus, tmp_path):
    given = index_trials([Trial(a == b, f"m{a}", f"s{b}/2.wav") for a in range(8) for b in range(8)])
    names = [name if name.startswith("m") else str(corpus / name) for name in given.names]
    enrolled = {f"m{n}": tuple(str(corpus / f"s{n}" / f"{k}.wav") for k in (0, 1)) for n in range(8)}
    report = evaluate(ToneEncoder().eval(), TrialSet(replace(given, names=names), enrolled))
    save_report({"tones": report}, tmp_path / "out", audio=True)
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "no player" not in page.text
    assert len(page.all("audio")) == 16 * (2 + 1)


def test_one_model_gives_an_object_as_json_and_several_a_list(models, corpus, run):
    arguments = ("--trials", corpus / "trials.txt", "--dim", 2, "--json")
    assert isinstance(json.loads(run("evaluate", models[0], *arguments)[1]), dict)
    assert isinstance(json.loads(run("evaluate", *models, *arguments)[1]), list)


def test_a_report_is_refused_before_the_work(models, corpus, tmp_path, run):
    (tmp_path / "file").write_text("")
    status, _, errors = run("evaluate", *models, "--trials", corpus / "trials.txt", "--report", tmp_path / "file")
    assert status == 2
    assert "report.html: cannot be written in" in errors


def test_a_pipe_of_trials_serves_several_models(models, corpus, tmp_path, run):
    os.mkfifo(tmp_path / "pipe")
    text = (corpus / "trials.txt").read_text()
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=[text], daemon=True)
    writer.start()
    status, text, errors = run("evaluate", *models, "--trials", tmp_path / "pipe", "--root", corpus, "--dim", 2)
    writer.join(10)
    assert status == 0, errors
    assert text.count("24 target and 252 non-target trials") == 2


def test_no_reports_make_no_page(tmp_path):
    with pytest.raises(ValueError, match="no evaluations"):
        save_report({}, tmp_path)
