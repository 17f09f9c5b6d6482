"""The command itself: two processes that train together, and Ctrl-C in a terminal."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

from voxnest import create_encoder, save_encoder
from voxnest.hub.checkpoint import load_encoder

# The real command, with a look at what each process trains on. Lightning starts its other processes with it too.
SPY = """
import json, sys
from pathlib import Path
from voxnest.training.callbacks import RunControl

seen = []
batch_end = RunControl.on_train_batch_end

def look(self, trainer, module, outputs, batch, number):
    batch_end(self, trainer, module, outputs, batch, number)
    weight = sum(p.double().sum().item() for p in module.encoder.parameters())
    classes = [p.flatten()[:: max(1, p.numel() // 50)].tolist() for p in module.criterion.parameters()]
    seen.append([batch["utterance"].tolist(), float(module.loss), weight, classes])
    Path(sys.argv[0]).with_name(f"rank{trainer.global_rank}of{trainer.world_size}.json").write_text(json.dumps(seen))

RunControl.on_train_batch_end = look
from voxnest.cli.main import main
main()
"""


@pytest.fixture
def run_folder(tmp_path):
    rng = np.random.default_rng(0)
    seconds = np.arange(24000) / 16000
    for speaker in range(5):
        for number in range(3):
            path = tmp_path / "corpus" / f"speaker{speaker}" / "session" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            pitch = 100 + 30 * speaker + number
            tone = sum(np.sin(2 * np.pi * n * pitch * seconds) / n for n in range(1, 6))
            soundfile.write(path, 0.1 * tone + 0.02 * rng.standard_normal(len(seconds)), 16000)
    content = {
        "output": str(tmp_path / "run"),
        "data": {"train": str(tmp_path / "corpus"), "validation": {"held_out_speakers": 2, "segment": 1.0}},
        "crops": {"duration": 1.0, "batch_size": 3, "per_epoch": 12},
        "augmentation": {"reverberation_probability": 0.0},
        "model": {"name": "redimnet-tiny", "dims": [16, 32]},
        "trainer": {"max_steps": 3, "log_every_steps": 1, "accelerator": "cpu"},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "command.py").write_text(SPY)
    return tmp_path


def command(folder: Path, *overrides: str) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    words = [sys.executable, str(folder / "command.py"), "train", str(folder / "run.yaml"), *overrides]
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def losses(folder: Path) -> list[float]:
    with (folder / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


@pytest.mark.slow
@pytest.mark.parametrize("later", [("stages.frozen_steps=1",), ("loss.classes=own", "loss.dim_starts=[0.6, 0]")])
def test_two_processes_train_one_model_on_different_crops(run_folder, later):
    process = command(run_folder, "trainer.devices=2", "trainer.strategy=ddp", *later)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "2 processes" in output
    assert "finished: 3 steps" in output
    assert output.count("finished") == 1, "one process tells"
    first, second = (json.loads((run_folder / f"rank{rank}of2.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 3
    ids_1, loss_1, weight_1, _ = zip(*first, strict=True)
    ids_2, loss_2, weight_2, _ = zip(*second, strict=True)
    assert ids_1 != ids_2
    assert all(a != b for a, b in zip(loss_1, loss_2, strict=True))
    assert weight_1 == weight_2, "gradients are shared, of what had none at first too"
    assert len(set(weight_1)) == 3
    assert losses(run_folder / "run") == pytest.approx(list(loss_1), rel=1e-6)
    load_encoder(run_folder / "run" / "best.safetensors")

    # One process on batches as large sees the crops of both.
    alone = command(run_folder, f"output={run_folder / 'alone'}", "crops.batch_size=6")
    output, _ = alone.communicate(timeout=200)
    assert alone.returncode == 0, output
    whole = json.loads((run_folder / "rank0of1.json").read_text())
    assert [sorted(a + b) for a, b in zip(ids_1, ids_2, strict=True)] == [sorted(step[0]) for step in whole]


@pytest.mark.slow
def test_two_processes_share_the_search_for_where_classes_of_a_trained_encoder_begin(run_folder):
    source = run_folder / "trained.safetensors"
    save_encoder(create_encoder("redimnet-tiny", dims=(16, 32)), source)
    options = [f"init_from={source}", "trainer.max_steps=1", "optimizer.lr=1e-9"]
    begin = []
    for more in (["trainer.devices=2", "trainer.strategy=ddp"], [f"output={run_folder / 'alone'}"]):
        process = command(run_folder, *options, *more)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        of = 2 if "trainer.devices=2" in more else 1
        begin += [json.loads((run_folder / f"rank{rank}of{of}.json").read_text())[0][3] for rank in range(of)]
    np.testing.assert_allclose(begin[0], begin[2], atol=1e-6)
    np.testing.assert_allclose(begin[1], begin[2], atol=1e-6)
    assert np.abs(begin[0]).sum() > 0


@pytest.mark.slow
def test_ctrl_c_saves_says_how_to_go_on_and_the_same_command_continues(run_folder):
    options = ("trainer.max_steps=100000", "data.workers=1")
    process = command(run_folder, *options)
    metrics = run_folder / "run" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 3) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the worker gets it too
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    step = int(re.search(r"interrupted: step (\d+) is saved; the same command continues", output)[1])
    saved = torch.load(run_folder / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == step

    process = command(run_folder, *options)
    for line in process.stdout:
        if f"continues after step {step}" in line:
            break
    else:
        pytest.fail("it did not continue")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 143, output
