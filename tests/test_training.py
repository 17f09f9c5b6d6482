"""Training runs: what they leave behind, that they repeat and continue exactly, and how they meet trouble."""

import csv
import errno
import io
import json
import os
import signal
import threading
from pathlib import Path

import lightning.pytorch as L
import numpy as np
import pytest
import soundfile
import torch
import yaml
from rich.console import Console

from voxnest.errors import CheckpointError, ConfigError, CorpusError, TrainingError, TrialError
from voxnest.hub.checkpoint import load_encoder, read_metadata
from voxnest.training import callbacks
from voxnest.training.callbacks import TrainingInterruptedError
from voxnest.training.config import TrainingConfig
from voxnest.training.module import TrainingModule
from voxnest.training.run import train
from voxnest.training.schedules import Clock
from voxnest.training.settings import load_config

SMALL = {
    "crops": {"duration": 1.0, "batch_size": 4},
    "augmentation": {"reverberation_probability": 0.0},
    "model": {"name": "redimnet-tiny", "dims": [16, 32]},
    "trainer": {"max_steps": 4, "val_every_steps": 100, "log_every_steps": 1, "accelerator": "cpu"},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_corpus(folder: Path, speakers: int = 6, utterances: int = 3) -> Path:
    """Harmonic tones in noise; speakers differ in pitch and timbre."""
    rng = np.random.default_rng(0)
    time = np.arange(24000) / 16000
    for speaker in range(speakers):
        timbre = rng.uniform(0.5, 1.5, 8) / np.arange(1, 9)
        for number in range(utterances):
            pitch = (90 + 25 * speaker) * (1 + 0.02 * rng.standard_normal())
            tone = sum(timbre[n] * np.sin(2 * np.pi * (n + 1) * pitch * time) for n in range(8))
            path = folder / f"speaker{speaker}" / "session" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * tone + 0.02 * rng.standard_normal(len(time)), 16000)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def trials(corpus) -> dict[str, str]:
    """A trial list over the training speakers: enough to see that a validation takes place."""
    pairs = [(a == b, f"speaker{a}/session/0.wav", f"speaker{b}/session/1.wav") for a in (0, 1) for b in (0, 1)]
    path = corpus.parent / f"{corpus.name}-trials.txt"
    path.write_text("".join(f"{int(label)} {first} {second}\n" for label, first, second in pairs))
    return {"trials": str(path), "root": str(corpus)}


@pytest.fixture
def configure(tmp_path, corpus, trials):
    def configure(*overrides: str, name: str = "run") -> TrainingConfig:
        content = {**SMALL, "data": {"train": str(corpus), "validation": trials}, "output": str(tmp_path / name)}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return load_config(path, overrides)

    return configure


def quietly(config: TrainingConfig, *extra: L.Callback):
    return train(config, console=Console(file=io.StringIO()), callbacks=extra)


def column(config: TrainingConfig, name: str) -> list[float]:
    with (config.output / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


def losses(config: TrainingConfig) -> list[float]:
    return column(config, "loss")


class AfterStep(L.Callback):
    """Does something after a step, or after each."""

    def __init__(self, action, step: int | None = None):
        self.action, self.step, self.seen = action, step, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step > self.seen and self.step in (None, trainer.global_step):
            self.action(trainer, pl_module)
        self.seen = trainer.global_step


def interrupt(trainer, module):
    os.kill(os.getpid(), signal.SIGINT)


def crash(trainer, module):
    raise RuntimeError("the machine died")


def test_a_run_leaves_encoders_checkpoints_metrics_and_how_it_was_made(configure):
    config = configure("trainer.val_every_steps=2", "crops.speeds=[1.0, 0.9]", "data.validation.trials=null",
                       "data.validation.root=null", "data.validation.held_out_speakers=2",
                       "data.validation.segment=1")  # fmt: skip
    result = quietly(config)
    folder = config.output
    assert load_config(folder / "config.yaml") == config
    assert result.step == 4
    assert set(result.best) == {"16", "32"}

    encoder = load_encoder(folder / "best.safetensors")
    assert encoder.dims == (16, 32)
    metadata = read_metadata(folder / "last.safetensors")["metadata"]
    assert metadata["step"] == 4
    assert metadata["eer"]["32"] == result.last["32"]
    assert set(encoder.thresholds) == {16, 32}

    assert len(losses(config)) == 4
    assert column(config, "eer/32")[-1] == result.last["32"]
    assert column(config, "margin")[-1] == pytest.approx(0.2)
    assert list((folder / "tensorboard").glob("events*"))
    (start,) = json.loads((folder / "environment.json").read_text())["starts"]
    assert start["seed"] == 0
    assert start["libraries"]["torch"] == torch.__version__
    assert os.uname().nodename not in (folder / "environment.json").read_text().split('"')

    for name in ("last", "best"):
        saved = torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)
        classes = saved["state_dict"]["criterion.base_loss.weight"]
        assert len(classes) == 4 * 2, "speakers that are not held out, times speeds"
    assert "criterion.base_loss.weight" not in encoder.state_dict()
    held_out = {line.split("/")[0] for line in (folder / "validation" / "trials.txt").read_text().split()}
    assert len(held_out - {"0", "1"}) == 2

    again = quietly(config)
    assert again.already_finished
    assert again.best == result.best


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(configure):
    runs = [configure(name="a"), configure("data.workers=1", name="b"), configure("seed=1", name="c")]
    for config in runs:
        quietly(config)
    assert losses(runs[0]) == losses(runs[1])
    assert losses(runs[0])[0] != losses(runs[2])[0]


class InStep(AfterStep):
    """Does something in a step, when the gradients are there."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step + 1 == self.step:
            self.action(trainer, pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        pass


class InValidation(L.Callback):
    """A signal while the trials of a validation are embedded."""

    def __init__(self, step: int, number: int = signal.SIGINT):
        self.step, self.number = step, number

    def on_validation_start(self, trainer, pl_module):
        if trainer.global_step == self.step:
            first = threading.Lock()  # recordings are embedded in several threads, and a second signal means more

            def send(*_):
                if first.acquire(blocking=False):
                    os.kill(os.getpid(), self.number)

            self.remove = pl_module.encoder.frontend.register_forward_hook(send).remove

    def on_validation_end(self, trainer, pl_module):
        if trainer.global_step == self.step:
            self.remove()


class InWait(L.Callback):
    """A signal while the next batch is waited for."""

    def __init__(self, step: int):
        self.step = step

    def on_train_start(self, trainer, pl_module):
        loader = trainer.datamodule.loader
        read = type(loader).__iter__

        def reading(this):
            for item in read(this):
                if trainer.global_step == self.step:
                    os.kill(os.getpid(), signal.SIGINT)
                yield item

        self.undo = pytest.MonkeyPatch()
        self.undo.setattr(type(loader), "__iter__", reading)

    def on_exception(self, trainer, pl_module, exception):
        self.undo.undo()


@pytest.mark.parametrize(
    ("trouble", "saved"),
    [
        (AfterStep(interrupt, 2), 2),  # before a validation
        (AfterStep(interrupt, 3), 3),
        (InStep(interrupt, 2), 2),
        (InStep(interrupt, 3), 3),
        (InValidation(2), 2),
        (InValidation(6), 6),  # the last
        (InWait(3), 3),
        (AfterStep(crash, 3), 2),
    ],
    ids=lambda value: f"{type(value).__name__}-{value.step}" if isinstance(value, L.Callback) else None,
)
def test_a_run_that_was_stopped_continues_as_if_it_had_not_been(configure, trouble, saved):
    options = ("trainer.max_steps=6", "trainer.val_every_steps=2", "ema=0.5", "trainer.accumulate=2",
               "crops.per_epoch=20", "optimizer.lr=0.01")  # fmt: skip
    whole, stopped = configure(*options, name="whole"), configure(*options, name="stopped")
    expected = quietly(whole)
    with pytest.raises((TrainingInterruptedError, RuntimeError)) as caught:
        quietly(stopped, trouble)
    if not isinstance(caught.value, RuntimeError):
        assert caught.value.status == 130
        assert caught.value.step == saved
    result = quietly(stopped)
    assert losses(stopped) == losses(whole)
    assert column(stopped, "eer/32") == column(whole, "eer/32")
    assert result.last == expected.last
    first, second = (load_encoder(c.output / "last.safetensors").state_dict() for c in (whole, stopped))
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    starts = json.loads((stopped.output / "environment.json").read_text())["starts"]
    assert [start["step"] for start in starts] == [0, saved]


def test_every_exit_learns_and_is_kept_and_a_run_may_begin_from_a_model_without(configure):
    stages = "model.overrides={exits: [1], dim_exits: {16: 1}}"
    config = configure(stages, "trainer.max_steps=6", "optimizer.lr=0.01", name="exits")
    quietly(config)
    early = column(config, "loss/16@1")
    assert len(early) == 6
    assert early[-1] < early[0]
    sizes = ["16", "32", "16@1", "32@1"]
    rates = {size: column(config, f"eer/{size}")[-1] for size in sizes}
    result = json.loads((config.output / "result.json").read_text())
    metadata = read_metadata(config.output / "last.safetensors")
    assert result["last"] == metadata["metadata"]["eer"] == rates
    assert set(metadata["thresholds"]) == set(sizes)
    encoder = load_encoder(f"{config.output / 'last.safetensors'}@1")
    assert encoder.dims == (16, 32)
    assert encoder.thresholds == {16: metadata["thresholds"]["16@1"], 32: metadata["thresholds"]["32@1"]}
    plain = configure(name="plain")
    quietly(plain)
    again = configure(stages, f"init_from={plain.output / 'last.safetensors'}", name="again")
    assert quietly(again).step == 4


def test_training_by_the_clock_ends_schedules_at_the_end_of_the_time(configure, monkeypatch):
    now = [0.0]

    def tick(trainer, module):
        now[0] += 10

    monkeypatch.setattr(callbacks, "Clock", lambda: Clock(lambda: now[0]))
    config = configure("trainer.max_steps=null", "trainer.max_minutes=1", "schedule.final_lr=0")
    with pytest.raises(TrainingInterruptedError):
        quietly(config, AfterStep(tick), AfterStep(interrupt, 2))
    now[0] = 1000.0
    result = quietly(config, AfterStep(tick))
    # The time of a step is known after it: the last step begins when 50 or 60 of 60 seconds are over.
    assert 6 <= result.step <= 7
    assert result.minutes == pytest.approx(1.0, abs=0.2)
    assert column(config, "lr")[-1] < 0.1 * config.optimizer.lr
    assert column(config, "margin")[-1] == pytest.approx(0.2)


def body_of(module: TrainingModule) -> list[torch.Tensor]:
    return [value.clone() for part in module.body for value in part.state_dict().values()]


def test_the_backbone_is_frozen_at_first_then_learns(configure):
    seen = {}

    def look(trainer, module):
        seen[trainer.global_step] = [*body_of(module)], module.encoder.head.linear.weight.detach().clone()

    quietly(configure("stages.frozen_steps=2"), AfterStep(look))
    start = body_of(TrainingModule(configure("stages.frozen_steps=2")))
    assert all(torch.equal(a, b) for a, b in zip(start, seen[2][0], strict=True)), "statistics too"
    assert not torch.equal(seen[1][1], seen[2][1]), "the head learns"
    changed = [not torch.equal(a, b) for a, b in zip(start, seen[3][0], strict=True)]
    assert sum(changed) > len(changed) / 2


def test_a_network_with_drop_path_is_told_how_far_the_training_is(configure):
    told = []

    class Look(L.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            told.append(module.encoder.backbone.progress)

    overrides = "model.overrides={bins: 33, channels: 4, layers: 1, drop_path: 0.5}"
    config = configure("model.name=autospeech", "model.dims=null", overrides)
    quietly(config, Look())
    assert told == pytest.approx([0.0, 0.25, 0.5, 0.75])
    assert np.isfinite(losses(config)).all()


def test_projection_only_starts_from_a_checkpoint_and_changes_the_head_alone(configure):
    first = configure("model.dims=[32]", name="first")
    quietly(first)
    source = first.output / "best.safetensors"
    second = configure(f"init_from={source}", "stages.projection_only=true", name="second")
    quietly(second)
    old, new = load_encoder(source).state_dict(), load_encoder(second.output / "last.safetensors").state_dict()
    for key, value in new.items():
        if not key.startswith("head."):
            assert torch.equal(value, old[key]), key
    assert not torch.equal(new["head.linear.weight"], old["head.linear.weight"])


def test_a_trained_encoder_starts_with_its_head_and_the_classes_where_it_puts_them(configure):
    first = configure("model.dims=[32]", "trainer.max_steps=30", name="first")
    quietly(first)
    source = first.output / "best.safetensors"
    second = configure(f"init_from={source}", "model.dims=[8,32,48]", "trainer.max_steps=1", name="second")
    right = []

    class Start(L.Callback):
        @torch.no_grad()
        def on_train_start(self, trainer, module):
            encoder, old = module.encoder.eval(), load_encoder(source)
            waveform = torch.randn(2, 8000)
            torch.testing.assert_close(encoder(waveform)[:, :32], old(waveform))
            assert (encoder(waveform)[:, 32:] == 0).all()
            for batch in trainer.datamodule.crops.of_each_class(8, batch_size=16):
                nearest = module.criterion.base_loss.cosines(encoder(batch["waveform"])).argmax(dim=1)
                right.append((nearest == batch["label"]).float().mean())
            encoder.train()

    quietly(second, Start())
    assert len(right) == 3  # batches of two of six classes
    assert sum(right) / len(right) > 0.5  # a sixth by chance


def test_a_checkpoint_of_another_architecture_is_one_line(configure):
    first = configure(name="first")
    quietly(first)
    second = configure(f"init_from={first.output / 'best.safetensors'}", "model.name=redimnet-b0", name="second")
    with pytest.raises(CheckpointError, match="weights do not fit, such as"):
        quietly(second)


def test_averaged_weights_are_exported_and_training_goes_on_with_its_own(configure):
    plain, averaged = configure(name="plain"), configure("ema=0.9", "trainer.val_every_steps=2", name="averaged")
    quietly(plain)
    quietly(averaged)
    assert losses(plain) == losses(averaged)
    own, mean = (load_encoder(c.output / "last.safetensors").state_dict() for c in (plain, averaged))
    key = "head.linear.weight"
    assert not torch.allclose(own[key], mean[key])
    assert torch.allclose(own[key], mean[key], atol=0.1)
    saved = torch.load(averaged.output / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(saved["state_dict"][f"encoder.{key}"], mean[key])


def test_norms_and_biases_are_not_decayed_and_the_backbone_has_its_own_rate(configure):
    lr = []

    def look(trainer, module):
        optimizer = trainer.optimizers[0]
        for group in optimizer.param_groups:
            assert all((p.ndim > 1) == (group["weight_decay"] > 0) for p in group["params"])
        body = {id(p) for part in module.body for p in part.parameters()}
        lr.append({id(group["params"][0]) in body: group["lr"] for group in optimizer.param_groups})

    quietly(configure("stages.backbone_lr=0.1", "trainer.max_steps=1", "schedule.warmup=0"), AfterStep(look))
    assert lr[0][True] == pytest.approx(0.1 * lr[0][False])


def test_a_corrupt_file_is_skipped_and_reported(configure, tmp_path):
    bad = make_corpus(tmp_path / "bad")
    config = configure(f"data.train={bad}", "data.cache_gb=0", "trainer.max_steps=8")
    broken, gone = bad / "speaker2/session/0.wav", bad / "speaker3/session/1.wav"

    def spoil(trainer, module):
        broken.write_bytes(broken.read_bytes()[:10] + b"\0" * 100)
        gone.unlink()

    result = quietly(config, AfterStep(spoil, 1))
    assert result.step == 8
    assert {path.name for path in result.unreadable} <= {"0.wav", "1.wav"}
    assert len(result.unreadable) == 2
    lines = (config.output / "unreadable.tsv").read_text().splitlines()
    assert len(lines) == 2
    assert all("\t" in line for line in lines)


def test_a_corpus_that_cannot_be_trained_on_is_one_line(configure, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError):
        quietly(configure(f"data.train={tmp_path / 'empty'}", name="a"))
    with pytest.raises(CorpusError, match="no such folder"):
        quietly(configure(f"data.train={tmp_path / 'missing'}", name="b"))
    with pytest.raises(CorpusError, match="only one speaker, 'speaker0'"):
        quietly(configure(f"data.train={make_corpus(tmp_path / 'one', speakers=1)}", name="c"))
    gone = make_corpus(tmp_path / "gone", speakers=2)

    class Vanish(L.Callback):
        def on_train_start(self, trainer, pl_module):
            for path in gone.rglob("*.wav"):
                path.unlink()

    with pytest.raises(CorpusError, match="none of the 6 utterances can be read"):
        quietly(configure(f"data.train={gone}", "data.cache_gb=0", name="d"), Vanish())


def test_trials_of_a_missing_recording_are_one_line_before_training(configure, tmp_path):
    (tmp_path / "trials.txt").write_text("1 speaker0/session/0.wav speaker0/session/9.wav\n")
    config = configure(f"data.validation.trials={tmp_path / 'trials.txt'}")
    with pytest.raises(TrialError, match=r"9\.wav is not there"):
        quietly(config)
    assert not (config.output / "metrics.csv").exists()


def test_a_loss_that_is_not_finite_stops_the_run_before_anything_is_saved(configure):
    config = configure("trainer.val_every_steps=2")

    def spoil(trainer, module):
        with torch.no_grad():
            module.encoder.head.linear.weight.fill_(float("nan"))

    with pytest.raises(TrainingError, match="not finite at step 4"):
        quietly(config, AfterStep(spoil, 3))
    saved = torch.load(config.output / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_a_full_disk_keeps_the_previous_checkpoint_and_is_one_line(configure, monkeypatch):
    config = configure("trainer.val_every_steps=2", "trainer.max_steps=6")
    save, count = torch.save, [0]

    def full(content, path):
        count[0] += 1
        if count[0] <= 2:  # last and best, of the first validation
            return save(content, path)
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device .*the previous checkpoint") as caught:
        quietly(config)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    folder = config.output / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 2
    assert quietly(config).step == 6


def test_a_run_folder_of_other_settings_is_one_line_that_names_the_first(configure, tmp_path):
    config = configure("trainer.max_steps=1")
    quietly(config)
    with pytest.raises(ConfigError, match=r"optimizer\.lr = 0\.001, this one has 0\.5"):
        quietly(configure("trainer.max_steps=1", "optimizer.lr=0.5"))
    with pytest.raises(ConfigError, match="no run folder"):
        quietly(configure(f"output={tmp_path}"))
    (config.output / "result.json").unlink()
    (config.output / "checkpoints" / "last.ckpt").write_bytes(b"PK damaged")
    with pytest.raises(CheckpointError, match="damaged"):
        quietly(configure("trainer.max_steps=1"))


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("model.name=redimnet-b9", "redimnet-b9"),
        ("best_dim=64", "one of 16, 32"),
        ("loss.dim_weights=[1, 2, 3]", "loss.dim_weights: 3 of them"),
        ("loss.dim_margins=[1]", "loss.dim_margins: 1 of them"),
        ("trainer.strategy=nonsense", "trainer: "),
        ("crops.batch_size=1000", "less than a batch"),
    ],
)
def test_a_setting_that_does_not_fit_the_others_is_one_line(configure, override, found):
    config = configure(override)
    with pytest.raises(ConfigError) as caught:
        quietly(config)
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mixed_precision_and_other_options_train(configure):
    config = configure("trainer.precision=bf16-mixed", "loss.kind=subcenter", "optimizer.name=sgd",
                       "trainer.clip=0", "loss.dim_weights=[1, 3]", "trainer.max_steps=2")  # fmt: skip
    quietly(config)
    assert np.isfinite(losses(config)).all()
    parts = zip(column(config, "loss/16"), column(config, "loss/32"), strict=True)
    assert losses(config) == pytest.approx([(a + 3 * b) / 4 for a, b in parts], rel=1e-3)
