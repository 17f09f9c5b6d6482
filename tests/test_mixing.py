"""Several corpora at once, questions beside the speakers, and labels on their way from a corpus to them."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console

from test_training import SMALL, AfterStep, crash, make_corpus
from voxnest.corpora.manifest import Utterance, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.crops.dataset import CropDataset
from voxnest.errors import ConfigError, CorpusError
from voxnest.hub.checkpoint import load_encoder
from voxnest.training.auxiliary import AuxiliaryHeads
from voxnest.training.config import Auxiliary, Corpus
from voxnest.training.mixing import describe, emphasis, find_parts
from voxnest.training.run import train
from voxnest.training.settings import load_config


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> list[Path]:
    """Two corpora with labels, whose speakers have the same names."""
    folders = []
    for name, speakers in (("first", 6), ("second", 3)):
        folder = make_corpus(tmp_path_factory.mktemp(name) / "corpus", speakers)
        rows = ["path,speaker,gender,room"]
        for path in sorted(folder.rglob("*.wav")):
            speaker = int(path.parts[-3][-1])
            gender = "" if speaker == 2 else "fm"[speaker % 2]
            rows.append(f"{path},speaker{speaker},{gender},{name}")
        (folder / "list.csv").write_text("\n".join(rows) + "\n")
        manifest = folder.parent / "manifest"
        prepare(folder / "list.csv", manifest)
        folders.append(manifest)
    return folders


def test_labels_go_from_a_list_to_the_utterances_and_gaps_stay_gaps(corpora):
    labels = {utterance.speaker: dict(utterance.labels) for utterance in read_manifest(corpora[0])}
    assert labels["speaker0"] == {"gender": "f", "room": "first"}
    assert labels["speaker1"] == {"gender": "m", "room": "first"}
    assert labels["speaker2"] == {"room": "first"}


def test_labels_of_a_kaldi_folder_are_of_speakers_and_utterances(tmp_path):
    corpus = make_corpus(tmp_path / "audio", speakers=2, utterances=1)
    data = tmp_path / "data"
    data.mkdir()
    (data / "wav.scp").write_text("".join(f"u{n} {corpus}/speaker{n}/session/0.wav\n" for n in (0, 1)))
    (data / "utt2spk").write_text("u0 a\nu1 b\n")
    (data / "spk2gender").write_text("a f\n")
    (data / "utt2lang").write_text("u0 de\nu1 en\n")
    prepare(data, tmp_path / "manifest")
    first, second = read_manifest(tmp_path / "manifest")
    assert dict(first.labels) == {"gender": "f", "language": "de"}
    assert dict(second.labels) == {"language": "en"}


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_corpora_are_drawn_in_their_shares_and_their_speakers_never_merge(corpora, balance):
    parts = find_parts([Corpus(path=corpora[0], weight=1), Corpus(path=corpora[1], weight=3)], Path("run"))
    assert [part.name for part in parts] == ["manifest", "manifest~2"]
    utterances = [utterance for part in parts for utterance in part.read()]
    assert len({utterance.id for utterance in utterances}) == len(utterances)
    crops = CropDataset(utterances, crops_per_epoch=400, balance=balance, emphasis=emphasis(parts, utterances, balance))
    assert len(crops.speakers) == 9
    of_first = [parts[0].has(crops.speakers[label]) for label in crops.plan()]
    assert np.mean(of_first) == pytest.approx(0.25, abs=0.02)
    crops.set_epoch(1)
    assert len(set(crops.plan())) == 9
    rows = describe(parts, utterances)
    assert rows["manifest"].startswith("6 speakers · 18 utterances")
    assert rows["manifest~2"].endswith("75% of the crops")


def test_one_corpus_is_drawn_as_ever_and_keeps_its_names(corpora):
    (part,) = find_parts(corpora[0], Path("run"))
    assert part.read() == read_manifest(corpora[0])
    assert emphasis([part], part.read(), 1.0) == {}


def questions(count: int = 40) -> list[Utterance]:
    """Utterances of two languages, of which every fourth has none."""
    return [
        Utterance(str(n), "s", "s", Path("a"), 1.0, labels=(("language", "de" if n % 2 else "en"),) if n % 4 else ())
        for n in range(count)
    ]


def test_a_question_is_learnt_from_those_that_have_an_answer():
    torch.manual_seed(0)
    heads = AuxiliaryHeads([Auxiliary(column="language", weight=1.0)], questions(), 8)
    assert heads.values == {"language": ["de", "en"]}
    number = torch.arange(40)
    embedding = torch.randn(40, 8) + 3 * (number % 2)[:, None]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.02)
    first = float(heads(embedding, number))
    for _ in range(60):
        optimizer.zero_grad()
        heads(embedding, number).backward()
        optimizer.step()
    assert float(heads(embedding, number)) < 0.3 * first
    heads.accuracies()
    heads(embedding, number)
    assert heads.accuracies()["accuracy/language"] > 0.9
    assert heads.accuracies() == {}
    silent = embedding.clone().requires_grad_()
    loss = heads(silent[::4], number[::4])  # of none of them is the language known
    loss.backward()
    assert float(loss) == 0
    assert not silent.grad.any()
    assert heads.accuracies() == {}


def test_an_adversarial_question_turns_the_gradient_of_the_embedding_alone():
    gradients = []
    for adversarial in (False, True):
        torch.manual_seed(0)
        question = Auxiliary(column="language", weight=0.5, adversarial=adversarial)
        heads = AuxiliaryHeads([question], questions(), 8)
        embedding = torch.randn(40, 8, requires_grad=True)
        heads(embedding, torch.arange(40)).backward()
        gradients.append((embedding.grad, heads.heads[0][0].weight.grad))
    (plain, weight), (turned, same) = gradients
    assert plain.any()
    torch.testing.assert_close(turned, -plain)
    torch.testing.assert_close(same, weight)


@pytest.fixture
def configure(tmp_path, corpora):
    def configure(*overrides: str, name: str = "run"):
        first, second = map(str, corpora)
        data = {
            "train": [{"path": first}, {"path": second, "weight": 3}],
            "validation": {"held_out_speakers": 3, "segment": 1.0},
        }
        auxiliary = [{"column": "gender"}, {"column": "room", "adversarial": True}]
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump({**SMALL, "data": data, "auxiliary": auxiliary}))
        return load_config(path, [f"output={tmp_path / name}", *overrides])

    return configure


def test_a_run_on_two_corpora_with_questions_repeats_and_continues_exactly(configure):
    def column(config, name: str) -> list[str]:
        with (config.output / "metrics.csv").open() as file:
            return [row[name] for row in csv.DictReader(file) if row[name]]

    console = Console(file=io.StringIO(), width=200)
    whole = configure(name="whole")
    train(whole, console=console)
    printed = console.file.getvalue()
    assert "manifest~2" in printed
    assert "75% of the crops" in printed
    assert all(0 <= float(value) <= 1 for name in ("gender", "room") for value in column(whole, f"accuracy/{name}"))
    assert len(column(whole, "accuracy/room")) == 4
    encoder = load_encoder(whole.output)
    assert not [key for key in encoder.state_dict() if "auxiliary" in key]
    cut = configure("trainer.save_every_minutes=1e-9", name="cut")
    with pytest.raises(RuntimeError):
        train(cut, console=console, callbacks=[AfterStep(crash, step=3)])
    train(cut, console=console)
    assert column(cut, "loss") == column(whole, "loss")


@pytest.mark.parametrize(
    ("override", "error", "found"),
    [
        (
            "auxiliary=[{column: gendre}]",
            ConfigError,
            "no utterance has a 'gendre' (expected 'gender'?",
        ),
        ("auxiliary=[{column: gender}, {column: gender}]", ConfigError, "expected every column once"),
        ("auxiliary=[{weight: 1}]", ConfigError, "column"),
        ("data.train=[]", ConfigError, "data.train"),
        ("data.train=[{path: nowhere}, {path: nothing}]", CorpusError, "nowhere: no such folder"),
        ("data.train=[{weight: 1}]", ConfigError, "'data.train.corpora.0.path' is missing"),
        ("data.train=[{path: a, wieght: 1}]", ConfigError, "unknown key 'data.train"),
    ],
)
def test_wrong_corpora_and_questions_are_one_line(configure, override, error, found):
    with pytest.raises(error) as caught:
        train(configure(override), console=Console(file=io.StringIO()))
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)
