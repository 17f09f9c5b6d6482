"""Adapters: what they change and what not, several on one encoder, training one, and files that do not fit."""

import copy
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import save_file

import tones
from test_training import SMALL, AfterStep, crash, make_corpus
from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import CheckpointError, ConfigError
from voxnest.models.adapters import Adapter
from voxnest.models.embedding import base_digest
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.low_rank import Pair, changes, find_targets
from voxnest.training.run import train
from voxnest.training.settings import load_config


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def base() -> SpeakerEncoder:
    torch.manual_seed(0)
    return create_encoder("redimnet-tiny", dims=[16, 32]).eval()


def changed(encoder: SpeakerEncoder, seed: int = 0) -> Adapter:
    """An adapter that changes something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        targets = find_targets(encoder, "auto", 2)
        weights = {f"{name}.weight": encoder.get_submodule(name).weight for name in targets}
        pairs = {
            key: Pair(torch.randn(2, weight[0].numel()) / 10, torch.randn(len(weight), 2) / 10)
            for key, weight in weights.items()
        }
        bias = torch.randn_like(encoder.state_dict()["head.linear.bias"])
    return Adapter(base_digest(encoder), encoder.name, pairs, 2.0, {"head.linear.bias": bias}, thresholds={"32": 0.25})


def test_auto_takes_what_a_change_makes_smaller_and_patterns_what_they_say(base):
    encoder = create_encoder("redimnet-b0")
    chosen = find_targets(encoder, "auto", 8)
    assert "head.linear" in chosen
    assert "head.linear" not in find_targets(encoder, "auto", 8, head=False)
    for name in chosen:
        weight = encoder.get_submodule(name).weight
        assert 8 * (len(weight) + weight[0].numel()) < weight.numel()
    depthwise = [name for name, module in encoder.named_modules() if getattr(module, "groups", 1) > 1]
    assert not set(depthwise) & set(chosen)
    assert find_targets(encoder, ["head.*"], 8) == ["head.linear"]
    with pytest.raises(ConfigError, match=r"fits no layer.*head\.linear"):
        find_targets(encoder, "head.liner", 8)
    with pytest.raises(ConfigError, match="lower rank"):
        find_targets(base, "auto", 4000)


def test_adapters_of_one_encoder_are_used_in_turn_and_leave_no_trace(base, tmp_path):
    waveform = torch.randn(2, 16000).numpy()
    base.thresholds = {32: 0.5}
    plain, digest = base.embed(waveform), base.digest()
    for seed, name in enumerate(("noisy", "telephone")):
        changed(base, seed).save(tmp_path / f"{name}.adapter.safetensors")
    assert base.load_adapter(tmp_path / "noisy.adapter.safetensors") == "noisy"
    base.use_adapter("noisy")
    noisy = base.embed(waveform)
    base.load_adapter(tmp_path / "telephone.adapter.safetensors", name="line")  # checked against the base all the same
    assert (base.embed(waveform) == noisy).all()
    base.use_adapter("line")
    line = base.embed(waveform)
    assert abs(noisy - plain).max() > 1e-3
    assert abs(noisy - line).max() > 1e-3
    assert (base.thresholds, base.adapter, set(base.adapters)) == ({32: 0.25}, "line", {"noisy", "line"})
    base.use_adapter("noisy")
    assert (base.embed(waveform) == noisy).all()
    base.use_adapter(None)
    assert (base.embed(waveform) == plain).all()
    assert (base.thresholds, base.digest()) == ({32: 0.5}, digest)
    with pytest.raises(ConfigError, match="noisy"):
        base.use_adapter("noise")


def test_a_merged_adapter_is_part_of_the_encoder(base, tmp_path):
    with pytest.raises(ConfigError, match="none in use"):
        base.merge_adapter()
    changed(base).save(tmp_path / "a.safetensors")
    base.load_adapter(tmp_path / "a.safetensors")
    base.use_adapter("a")
    adapted = base.encode(torch.ones(16000).numpy())
    merged = base.merge_adapter()
    assert merged is base
    assert not base.adapters
    save_encoder(base, tmp_path / "merged.safetensors")
    assert (load_encoder(tmp_path / "merged.safetensors").encode(torch.ones(16000).numpy()) == adapted).all()


def test_a_file_that_is_no_adapter_of_this_encoder_is_one_line(base, tmp_path):
    adapter = changed(base)
    other = create_encoder("redimnet-tiny", dims=[16, 32])
    path = tmp_path / "a.safetensors"
    adapter.save(path)
    with pytest.raises(CheckpointError, match=f"of another encoder: of redimnet-tiny with digest {adapter.base[:12]}"):
        other.load_adapter(path)
    with pytest.raises(CheckpointError, match="no such file"):
        base.load_adapter(tmp_path / "b.safetensors")
    save_encoder(base, tmp_path / "encoder.safetensors")
    with pytest.raises(CheckpointError, match="no adapter"):
        base.load_adapter(tmp_path / "encoder.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="not readable"):
        base.load_adapter(path)
    key = next(iter(adapter.pairs))
    for pair in (Pair(torch.ones(2, 1), torch.ones(1, 2)), Pair(torch.full((1, 1), torch.nan), torch.ones(1, 1))):
        Adapter(adapter.base, "x", {key: pair}, 1.0).save(path)
        with pytest.raises(CheckpointError, match=r"does not fit|NaN"):
            base.load_adapter(path)
    save_file({"a": torch.ones(1)}, path, metadata={"voxnest-adapter": '{"format": 1}'})
    with pytest.raises(CheckpointError, match="malformed adapter"):
        base.load_adapter(path)
    assert not base.adapters


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with a corpus, trials and an encoder to start from."""
    folder = tmp_path_factory.mktemp("start")
    corpus = make_corpus(folder / "corpus")
    pairs = [(a == b, f"speaker{a}/session/0.wav", f"speaker{b}/session/1.wav") for a in (0, 1) for b in (0, 1)]
    (folder / "trials.txt").write_text("".join(f"{int(label)} {first} {second}\n" for label, first, second in pairs))
    torch.manual_seed(1)
    save_encoder(create_encoder("redimnet-tiny", dims=[16, 32]), folder / "base.safetensors")
    content = {
        **{key: value for key, value in SMALL.items() if key != "model"},
        "data": {
            "train": str(corpus),
            "validation": {"trials": str(folder / "trials.txt"), "root": str(corpus)},
        },
        "init_from": str(folder / "base.safetensors"),
        "adapter": {"rank": 4},
        "optimizer": {"lr": 0.01},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(content))
    return folder


def train_adapter(start: Path, output: Path, *overrides: str, callbacks=()) -> str:
    console = Console(file=io.StringIO(), width=200)
    train(load_config(start / "run.yaml", [f"output={output}", *overrides]), console=console, callbacks=callbacks)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_training_an_adapter_changes_nothing_else_and_its_files_agree(start, tmp_path):
    printed = train_adapter(start, tmp_path / "run")
    base, merged = load_encoder(start / "base.safetensors"), load_encoder(tmp_path / "run")
    base.load_adapter(tmp_path / "run" / "best.adapter.safetensors", name="tones")
    base.use_adapter("tones")
    waveform = torch.randn(20000).numpy()
    assert abs(base.encode(waveform) - merged.encode(waveform)).max() < 1e-5
    assert base.thresholds == merged.thresholds
    adapter = base.adapters["tones"]
    assert not adapter.values
    assert set(adapter.metadata["eer"]) == {"16", "32"}
    assert f"{adapter.size:,} of them trained" in printed
    base.use_adapter(None)
    untouched = set(base.state_dict()) - set(adapter.pairs)
    assert all(torch.equal(base.state_dict()[key], merged.state_dict()[key]) for key in untouched)
    changed = [key for key in adapter.pairs if not torch.equal(base.state_dict()[key], merged.state_dict()[key])]
    assert changed == list(adapter.pairs)
    assert (tmp_path / "run" / "best.adapter.safetensors").stat().st_size < 4 * adapter.size + 20_000


def test_head_and_norms_learn_as_a_whole_if_asked(start, tmp_path):
    train_adapter(start, tmp_path / "run", "adapter.train_head=true", "adapter.train_norms=true")
    base, merged = load_encoder(start / "base.safetensors"), load_encoder(tmp_path / "run")
    base.load_adapter(tmp_path / "run" / "last.adapter.safetensors")
    assert base.load_adapter(tmp_path / "run" / "best.adapter.safetensors") == "best"
    base.use_adapter("best")
    values = base.adapters["best"].values
    assert {"head.linear.weight", "head.norm.running_mean"} <= set(values)
    assert any(key.startswith("backbone.") and key.endswith("running_var") for key in values)
    assert not any(key.startswith("head.") for key in base.adapters["best"].pairs)
    waveform = torch.randn(20000).numpy()
    assert abs(base.encode(waveform) - merged.encode(waveform)).max() < 1e-5


def test_the_mean_of_the_last_weights_is_a_plain_encoder_too(start, tmp_path):
    train_adapter(start, tmp_path / "run", "trainer.average_last=2", "trainer.val_every_steps=2")
    mean = load_encoder(tmp_path / "run" / "average.safetensors")
    merged = load_encoder(tmp_path / "run" / "last.safetensors")
    assert set(mean.state_dict()) == set(merged.state_dict())
    waveform = torch.randn(1, 16000).numpy()
    assert 0 < abs(mean.embed(waveform) - merged.embed(waveform)).max() < 1


def test_a_run_of_an_adapter_that_died_continues_as_if_it_had_not(start, tmp_path):
    def losses(folder: Path) -> list[str]:
        with (folder / "metrics.csv").open() as file:
            return [row["loss"] for row in csv.DictReader(file) if row["loss"]]

    often = ["trainer.save_every_minutes=1e-9", "ema=0.9"]
    train_adapter(start, tmp_path / "whole", *often)
    with pytest.raises(RuntimeError):
        train_adapter(start, tmp_path / "cut", *often, callbacks=[AfterStep(crash, step=3)])
    train_adapter(start, tmp_path / "cut", *often)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    first, second = (Adapter.load(tmp_path / name / "last.adapter.safetensors") for name in ("whole", "cut"))
    for key, pair in first.pairs.items():
        torch.testing.assert_close(pair.up, second.pairs[key].up)


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("init_from=null", "adapter without init_from"),
        ("stages.projection_only=true", "both adapter and stages"),
        ("adapter.rank=0", "adapter.rank is 0 .expected greater than or equal to 1"),
        ("adapter.rnk=2", "unknown key 'adapter.rnk' .expected 'adapter.rank'"),
        ("adapter.kind=dora", "lora"),
        ("adapter.targets=[nothing.*]", "fits no layer"),
        ("model={name: redimnet-tiny, dims: [16, 32], overrides: {level: -30}}", "not the encoder of"),
    ],
)
def test_a_wrong_setting_of_an_adapter_is_one_line(start, tmp_path, override, found):
    with pytest.raises(ConfigError, match=found) as caught:
        train_adapter(start, tmp_path / "run", override)
    assert "\n" not in str(caught.value)


def test_the_command_merges_a_base_and_its_adapter(base, tmp_path, run):
    save_encoder(base, tmp_path / "base.safetensors")
    adapter, output = tmp_path / "loud.adapter.safetensors", tmp_path / "merged.safetensors"
    changed(base).save(adapter)
    assert run("adapter", "merge", tmp_path / "base.safetensors", adapter, "-o", output)[0] == 0
    base.load_adapter(adapter)
    base.use_adapter("loud")
    waveform = torch.ones(16000).numpy()
    merged = load_encoder(output)
    assert (merged.encode(waveform) == base.encode(waveform)).all()
    assert merged.thresholds == {32: 0.25}
    status, _, errors = run("adapter", "merge", output, adapter, "-o", tmp_path / "twice.safetensors")
    assert (status, errors.count("\n")) == (2, 1)
    assert "of another encoder" in errors


def test_commands_take_a_base_with_its_adapter(base, tmp_path, run):
    corpus = tones.make_corpus(tmp_path)
    model, adapter, merged = (tmp_path / f"{name}.safetensors" for name in ("base", "loud.adapter", "merged"))
    changed(base).save(adapter)
    save_encoder(base, model)
    base.load_adapter(adapter)
    base.use_adapter("loud")
    save_encoder(base, merged)

    def evaluated(*words: object) -> dict:
        output = tmp_path / "found.json"
        status, printed, errors = run("evaluate", *words, "--trials", corpus / "trials.txt", "--json", output)
        assert status == 0, errors
        assert str(words[0]) in printed
        return json.loads(output.read_text())

    found = evaluated(model, "--adapter", adapter)
    assert found["model"] == f"{model} with loud.adapter.safetensors"
    assert found["dims"] == evaluated(merged)["dims"]
    assert found["dims"]["32"]["verify"]["threshold"] == 0.25
    assert found["dims"] != evaluated(model)["dims"]  # the cache does not mix them up
    recordings = corpus / "s0" / "0.wav", corpus / "s1" / "0.wav"
    assert run("embed", *recordings, "-m", model, "--adapter", adapter, "-o", tmp_path / "a.npz")[0] == 0
    with np.load(tmp_path / "a.npz") as embeddings:
        np.testing.assert_allclose(embeddings["embeddings"][0], base.encode(recordings[0])[0], rtol=1e-4, atol=1e-5)
    answer = run("verify", *recordings, "-m", model, "--adapter", adapter, "--json")
    assert json.loads(answer[1])["threshold"] == 0.25
    for words, message in [
        (("evaluate", merged, "--adapter", adapter, "--trials", corpus / "trials.txt"), "of another encoder"),
        (("evaluate", model, merged, "--adapter", adapter, "--trials", corpus / "trials.txt"), "given with 2 models"),
        (("verify", *recordings, "-m", "model.onnx", "--adapter", adapter), "exported model"),
    ]:
        status, _, errors = run(*words)
        assert (status, errors.count("\n")) == (2, 1)
        assert message in errors


def test_copies_of_an_adapted_encoder_have_their_own_adapters(base, tmp_path):
    changed(base).save(tmp_path / "a.safetensors")
    base.load_adapter(tmp_path / "a.safetensors")
    other = copy.deepcopy(base)
    other.use_adapter("a")
    assert base.adapter is None
    assert changes(base) == {}
