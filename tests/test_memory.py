"""The memory of a step: the line that two measured steps give, what fits, and a plan that leaves nothing behind."""

import io
import json

import lightning.pytorch as L
import pytest
import torch
import yaml
from rich.console import Console
from torch.profiler import ProfilerActivity, profile

from test_training import SMALL, make_corpus
from voxnest.errors import ConfigError
from voxnest.training import memory, plan
from voxnest.training.memory import MemoryModel
from voxnest.training.run import make_trainer, train
from voxnest.training.settings import load_config

MODEL = MemoryModel(fixed=1e9, per_crop=0.1e9, beside=1e9)


@pytest.fixture
def write(tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    data = {"train": str(corpus), "validation": {"held_out_speakers": 2, "segment": 1.0}}
    content = {**SMALL, "data": data, "output": str(tmp_path / "run"), "augmentation": {"noise_probability": 0.0}}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_largest_batch_that_fits_and_divides_the_crops_of_a_step_is_taken():
    assert MODEL.at(8) == pytest.approx(1.8e9)
    assert [MODEL.fitting(96, size) for size in (80, 12, 5, 2.5)] == [96, 48, 24, 2]
    assert MODEL.fitting(7, 12) == 7
    with pytest.raises(ConfigError, match=r"trainer.memory: 2 GB, where a batch of 2 needs 2\.4"):
        MODEL.fitting(96, 2)
    with pytest.raises(ConfigError, match="a batch of 97 needs"):
        MODEL.fitting(97, 12)


class RealStep(L.Callback):
    """Counts the bytes of tensors in the third real step of a training, and of what is there before it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != 2:
            return
        state = [value for kept in trainer.optimizers[0].state.values() for value in kept.values()]
        tensors = [*pl_module.parameters(), *pl_module.buffers(), *state]
        tensors += [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
        self.before = sum(item.numel() * item.element_size() for item in tensors if isinstance(item, torch.Tensor))
        self.record = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self.record.__enter__()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 3:
            self.record.__exit__(None, None, None)
            self.bytes = self.before + memory.peak_of(self.record)


def test_the_estimate_is_near_what_a_real_step_of_another_size_takes(write, monkeypatch, tmp_path):
    """By tensors, as outside of Linux: the memory of this process is that of all tests before."""
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "nowhere")
    options = ["crops.batch_size=20", "trainer.max_steps=3", "crops.per_epoch=40"]
    planned = plan.make_plan(load_config(write, options), make_trainer)
    real = RealStep()
    train(load_config(write, options), console=Console(file=io.StringIO()), callbacks=[real])
    assert planned.memory.at(20) == pytest.approx(real.bytes, rel=0.15)
    assert planned.memory.at(20) > 2 * planned.memory.at(5), "most of it are activations, or there is nothing to fit"


@pytest.mark.skipif(not memory._forget_peak(), reason="the kernel does not tell the most memory of a process")
def test_memory_that_no_tensor_is_counts_too():
    def action():
        bytearray(200_000_000)[::4096] = b"x" * (-(-200_000_000 // 4096))

    assert 1.95e8 <= memory.peak(torch.device("cpu"), action) < 2.4e8
    assert memory.peak(torch.device("cpu"), lambda: None) < 2e7, "what an earlier action took is forgotten"


def test_a_dry_run_prints_the_plan_and_leaves_nothing(write, run, tmp_path):
    before = set(tmp_path.rglob("*"))
    status, output, errors = run("train", write, "--dry-run")
    assert (status, errors) == (0, "")
    rows = {line[:11].strip(): line[12:] for line in output.splitlines()}
    assert rows["corpus"].startswith("4 speakers · 12 utterances")
    assert "parameters trained · 1 frozen" in rows["model"], "the weight of a sum of one map"
    assert rows["training"] == "4 steps · 4 steps an epoch"
    assert "GB: " in rows["memory"]
    assert "an epoch" in rows["time"]
    assert set(tmp_path.rglob("*")) == before
    assert run("train", write, "--dry-run", "trainer.memory=0.001")[0] == 2


def test_batches_that_fit_are_found_once_for_a_run(write, monkeypatch):
    config = load_config(write, ["trainer.memory=12", "crops.batch_size=6", "trainer.accumulate=2"])
    monkeypatch.setattr(plan, "_measure", lambda bench: MemoryModel(0, 2e9, 1e9))
    train(config, console=Console(file=io.StringIO()))
    kept = json.loads((config.output / "memory.json").read_text())
    assert kept["batch_size"] == 4
    assert load_config(config.output / "config.yaml") == config, "what was asked for, to continue by"
    monkeypatch.setattr(plan, "_measure", lambda bench: pytest.fail("measured again"))
    found = plan.fit_to_memory(config, make_trainer, first=True)
    assert (found.crops.batch_size, found.trainer.accumulate) == (4, 3)
