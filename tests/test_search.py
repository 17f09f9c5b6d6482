"""Searches: what they leave behind, that they continue exactly, that cost counts, and pictures of what they find."""

import itertools
import json
import os
import random
import signal

import lightning.pytorch as L
import pytest
import torch
import yaml
from typer.testing import CliRunner

from test_training import make_corpus
from voxnest.cli.app import app
from voxnest.corpora.manifest import Utterance
from voxnest.errors import ConfigError, CorpusError
from voxnest.hub.checkpoint import load_encoder
from voxnest.models.autospeech import PAPER
from voxnest.models.genotype import Genotype
from voxnest.models.operations import OPERATIONS
from voxnest.nas.config import SearchConfig
from voxnest.nas.control import settled
from voxnest.nas.data import split_halves
from voxnest.nas.drawing import draw_genotype, genotype_figure, lay_out
from voxnest.nas.search import search
from voxnest.training.interruption import TrainingInterruptedError
from voxnest.training.settings import load

SMALL = {
    "crops": {"duration": 0.3, "batch_size": 4, "per_epoch": 12},
    "features": {"bins": 33, "options": {"n_fft": 512}},
    "model": {"space": "s1", "channels": 2, "layers": 3},
    "trainer": {"max_epochs": 2, "accelerator": "cpu", "log_every_steps": 1},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), speakers=4, utterances=2)


@pytest.fixture
def configure(tmp_path, corpus):
    def configure(*overrides: str, name: str = "run") -> SearchConfig:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**SMALL, "data": {"train": str(corpus)}, "output": str(tmp_path / name)}))
        return load(SearchConfig, path, overrides)

    return configure


def weights_of(result):
    return torch.load(result.folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


class Stop(L.Callback):
    """Ends the search after a step, by a signal or as a kill does: with what was saved last."""

    def __init__(self, step: int, number: int | None) -> None:
        self.step, self.number = step, number

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            if self.number is None:
                raise MemoryError
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("step", "number"), [(1, signal.SIGTERM), (4, None)], ids=["signal", "kill"])
def test_a_search_that_was_cut_continues_exactly(configure, step, number):
    whole = search(configure("cost.weights=[0, 1]", name="whole"))
    config = configure("cost.weights=[0, 1]", name="cut")
    with pytest.raises((TrainingInterruptedError, MemoryError)):
        search(config, callbacks=[Stop(step, number)])
    continued = search(config)
    assert continued.step == whole.step == 6
    assert continued.found == whole.found
    for name in ("genotypes.jsonl", "genotype-1.txt", "cell-2.svg"):
        assert (continued.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    ours, theirs = weights_of(continued), weights_of(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_a_search_leaves_its_genotypes_and_changes_both_kinds_of_parameters(configure):
    config = configure("model.dims=[4, 16]", "architecture.lr=0.1")
    result = search(config)
    records = [json.loads(line) for line in (result.folder / "genotypes.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    text = (result.folder / "genotype.txt").read_text().strip()
    assert text == result.found[0].genotype == records[-1]["searches"][0]["genotype"]
    assert str(Genotype.parse(text)) == text
    assert (result.folder / "cell.svg").read_bytes().startswith(b"<?xml")
    rows = (result.folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 1 + result.step
    assert "entropy_normal" in rows[0]
    assert "temperature" in rows[0]
    assert list((result.folder / "tensorboard").iterdir())
    weights = weights_of(result)
    assert weights["supernet.alphas.0"].abs().max() > 0.1  # at the start, 0.001
    assert not torch.equal(weights["frontend.deviation"], torch.ones(33))
    again = search(config)
    assert again.already_finished
    assert again.found == result.found


def test_a_search_goes_on_to_train_and_to_name_the_speakers_of_what_it_found(run, tmp_path, corpus, monkeypatch):
    monkeypatch.chdir(tmp_path)
    training = {
        "task": "identification",
        "data": {"train": str(corpus), "validation": {"held_out_recordings": 0.5}},
        "crops": {"duration": 0.5, "batch_size": 4},
        "model": {"name": "autospeech", "overrides": {"channels": 4, "layers": 3, "bins": 33}},
        "loss": {"kind": "softmax"},
        "trainer": {"max_steps": 4, "accelerator": "cpu"},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    searching = {**SMALL, "data": {"train": str(corpus)}, "output": "found", "training": "train.yaml"}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(searching))
    status, shown, errors = run("search", "search.yaml")
    assert status == 0, errors
    genotype = (tmp_path / "found" / "genotype.txt").read_text().strip()
    trained = load_encoder(tmp_path / "found" / "training" / "best.safetensors")
    assert (trained.architecture, trained.config["genotype"]) == ("autospeech", genotype)
    assert genotype in shown
    assert (tmp_path / "found" / "cell.svg").exists()
    again = run("search", "search.yaml")
    assert again[0] == 0
    assert again[1].count("already finished") == 2
    manifest = tmp_path / "manifest"
    assert run("prepare", corpus, "-o", manifest)[0] == 0
    status, shown, errors = run(
        "evaluate", tmp_path / "found/training", "--task", "identification", "--utterances", manifest
    )
    assert status == 0, errors
    assert "Top-1" in shown
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({**training, "optimiser": {}}))
    status, _, errors = run("search", "search.yaml", "output=other")
    assert status == 2
    assert "train.yaml: unknown key 'optimiser'" in errors
    assert not (tmp_path / "other").exists()


def test_a_price_makes_cells_cheaper(configure):
    result = search(configure("cost.weights=[0, 20]", "architecture.lr=0.3", "trainer.max_epochs=4"))
    free, dear = result.found
    assert dear.gmacs < free.gmacs / 2


def test_halves_share_no_speech_and_have_all_speakers():
    utterances = [Utterance(f"{s}-{n}", s, s, f"{s}{n}.wav", 4.0, 1.0) for s, n in itertools.product("ab", range(5))]
    utterances.append(Utterance("c", "c", "c", "c.wav", 3.0, 1.0))
    first, second = split_halves(utterances, seed=0)
    for half, expected in ((first, 3), (second, 2)):
        assert [sum(u.speaker == s for u in half) for s in "abc"] == [expected, expected, 1]
    assert not {u.id for u in first if u.speaker != "c"} & {u.id for u in second}
    assert [(half[-1].offset, half[-1].duration) for half in (first, second)] == [(1.0, 1.5), (2.5, 1.5)]


def test_a_search_settles_when_neither_genotypes_nor_entropies_move():
    def records(*entropies, genotypes="aaaa"):
        pairs = zip(entropies, genotypes, strict=False)
        return [{"searches": [{"entropy": [e, 1.0], "genotype": g}]} for e, g in pairs]

    assert settled(records(2.0, 1.0, 1.0, 1.0), 2, 0.01)
    assert not settled(records(2.0, 1.0, 1.0, 1.0), 3, 0.01)
    assert not settled(records(1.0, 1.0, 1.0, genotypes="aab"), 2, 0.01)
    assert not settled(records(1.0, 1.0, 1.0), 0, 0.01)
    assert not settled(records(1.0, 1.0), 2, 0.01)


def test_a_settled_search_stops(configure):
    assert search(configure("settle.epochs=1", "architecture.lr=1e-9", "trainer.max_epochs=30")).epochs == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.chanels=4", "unknown key 'model.chanels' (expected 'model.channels')"),
        ("model.layers=2", "model.layers is 2"),
        ("model.space=s4", "'s4' is unknown"),
        ("cost.weights=[1, 1]", "different weights"),
        ("loss.dim_weights=[1, 1]", "2 of them"),
        ("features.frontend=spectogram", "'spectrogram'?"),
        ("data.train=nowhere", "no such folder"),
        ("trainer.precision=64", "trainer.precision is"),
    ],
)
def test_wrong_settings_are_told(configure, override, told):
    with pytest.raises((ConfigError, CorpusError)) as error:
        search(configure(override))
    assert told in str(error.value)


def test_a_longer_search_is_another(configure):
    search(configure())
    with pytest.raises(ConfigError, match=r"trainer.max_epochs = 2.*output=NEW for a longer search"):
        search(configure("trainer.max_epochs=3"))


def random_genotype(seed: int, nodes: int = 4) -> Genotype:
    rng = random.Random(seed)
    cells = [
        [(rng.choice(list(OPERATIONS)), source) for node in range(nodes) for source in rng.sample(range(node + 2), 2)]
        for _ in range(2)
    ]
    return Genotype(cells[0], range(2, 2 + nodes), cells[1], range(2, 2 + nodes))


@pytest.mark.parametrize("seed", range(6))
def test_no_box_lies_on_another_and_no_line_runs_through_one(seed):
    cell = lay_out(random_genotype(seed, nodes=4 + seed % 3), reduction=bool(seed % 2))
    for layer in cell.layers:
        for left, right in itertools.pairwise(layer):
            assert right.x - left.x >= (left.width + right.width) / 2
    for start, end in cell.segments:
        assert end.layer == start.layer + 1


def test_every_label_fits_its_box():
    everything = sorted(OPERATIONS, key=len)[-8:]
    edges = [(name, place % 2) for place, name in enumerate(everything)]
    figure = genotype_figure(Genotype(edges, range(2, 6), edges, range(2, 6)), "a title")
    figure.canvas.draw()
    axes = figure.axes[0]
    boxes = [patch.get_window_extent() for patch in axes.patches if hasattr(patch, "get_boxstyle")]
    labels = [text.get_window_extent() for text in axes.texts[3:] if text.get_text() not in ("reduction cell",)]
    for label in labels:
        assert any(box.x0 <= label.x0 and label.x1 <= box.x1 and box.y0 <= label.y0 for box in boxes)


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_pictures_are_the_same_every_time(tmp_path, suffix, start):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        draw_genotype(Genotype.parse(PAPER), path)
    assert paths[0].read_bytes().startswith(start)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_the_command_draws_a_text_a_file_and_a_folder(tmp_path):
    (tmp_path / "genotype.txt").write_text(PAPER + "\n")
    for number, given in enumerate((PAPER, str(tmp_path / "genotype.txt"), str(tmp_path))):
        output = tmp_path / f"{number}.svg"
        CliRunner().invoke(app, ["draw", given, "-o", str(output)], catch_exceptions=False)
        assert output.exists()


@pytest.mark.parametrize(
    ("given", "output", "told"),
    [
        ("nowhere.txt", "a.svg", "nowhere.txt: no such file"),
        (PAPER, "a.jpg", "ends in .jpg"),
        (PAPER.replace("dil_conv_5x5", "dil_conv_5x6"), "a.svg", "dil_conv_5x6"),
        ("Genotype(normal=__import__('os').system('true'))", "a.svg", "genotype"),
    ],
)
def test_what_cannot_be_drawn_is_told(tmp_path, monkeypatch, given, output, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        CliRunner().invoke(app, ["draw", given, "-o", output], catch_exceptions=False)
    assert told in str(error.value)
    assert not (tmp_path / output).exists()


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "g.txt").write_text("Genotype(normal=[])")
    with pytest.raises(ConfigError, match=r"g\.txt: genotype"):
        CliRunner().invoke(
            app, ["draw", str(tmp_path / "g.txt"), "-o", str(tmp_path / "a.svg")], catch_exceptions=False
        )
