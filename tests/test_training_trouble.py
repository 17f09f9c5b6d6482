"""Trouble around a run, with the real command: a second one in its folder, signals at any time, a full disk."""

import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import soundfile
import yaml
from rich.console import Console
from tensorboard.summary.writer.record_writer import RecordWriter
from typer.testing import CliRunner

from test_training import SMALL, make_corpus
from voxnest.cli.app import app
from voxnest.corpora.prepare import prepare
from voxnest.errors import ConfigError, CorpusError, TrainingError, VoxnestError
from voxnest.locks import locked
from voxnest.training.folder import RunFolder
from voxnest.training.run import train
from voxnest.training.settings import load_config

HELD_OUT = {"held_out_speakers": 2, "segment": 1.0}


@pytest.fixture
def write(tmp_path):
    """Write a configuration of a small run; give its path."""

    def write(corpus: Path | None = None, **sections: dict) -> Path:
        corpus = corpus or make_corpus(tmp_path / "corpus")
        data = {"train": str(corpus), "validation": HELD_OUT}
        content = {**SMALL, "data": data, "output": str(tmp_path / "run")}
        for name, section in sections.items():
            content[name] = {**content.get(name, {}), **section}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def run(path: Path, *overrides: str):
    return train(load_config(path, overrides), console=Console(file=io.StringIO()))


def printed(*words: object) -> str:
    """What a command prints into a pipe."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])
    if result.exception:
        raise result.exception
    return result.output


class Command:
    """`voxnest train` as a process of a session of its own; what it prints is gathered."""

    def __init__(self, path: Path, *words: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        environment.pop("LOCAL_RANK", None)
        self.path, self.output = path, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "voxnest", "train", str(path), *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.output += line

    def until(self, text: str, seconds: float = 100) -> None:
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, self.output
            assert self.process.poll() is None, self.output
            time.sleep(0.02)

    def end(self, seconds: float = 60) -> int:
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status

    def others(self) -> list[str]:
        """Processes of the session that are still there."""
        listed = subprocess.run(["ps", "-eo", "sess=,stat=,pid=,args="], capture_output=True, text=True, check=True)
        mine = [line.split(None, 3) for line in listed.stdout.splitlines()]
        return [" ".join(row) for row in mine if row[0] == str(self.process.pid) and not row[1].startswith("Z")]


def left_behind(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
def test_a_second_training_in_a_folder_is_refused_while_the_first_lives(write, tmp_path):
    path = write(trainer={"max_steps": 100000, "val_every_steps": 100000}, data={"workers": 1})
    first = Command(path)
    first.until("crops/s")
    owner = json.loads((tmp_path / "run" / "running.json").read_text())
    assert owner["process"] == first.process.pid
    with pytest.raises(ConfigError) as caught:
        run(path, "trainer.max_steps=100000", "data.workers=1")
    for value in (f"process {first.process.pid}", owner["host"], owner["since"], "train", str(path)):
        assert value in str(caught.value)
    assert "\n" not in str(caught.value)
    first.process.kill()  # no chance to take anything away, and its worker lives on for a moment
    first.end()
    with locked(tmp_path / "run", "is trained in"):
        assert json.loads((tmp_path / "run" / "running.json").read_text())["process"] == os.getpid()


def test_a_folder_is_free_again_after_its_training_and_told_from_a_strange_one(tmp_path):
    folder = tmp_path / "run"
    with (
        locked(folder, "is trained in"),
        pytest.raises(ConfigError, match=f"process {os.getpid()} on"),
        locked(folder, "is trained in"),
    ):
        pass
    with locked(folder, "is trained in"):
        pass
    RunFolder(folder).check(None)  # type: ignore[arg-type]  # the lock alone does not make it a strange folder
    (folder / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="no run folder"):
        RunFolder(folder).check(None)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "number", "everyone"),
    [
        ({"data.workers": 2}, signal.SIGTERM, True),
        ({"trainer.devices": 2, "data.workers": 1}, signal.SIGTERM, False),
        ({"trainer.devices": 2, "data.workers": 1}, signal.SIGKILL, False),
    ],
)
def test_a_signal_ends_every_process_at_once_and_leaves_nothing_half_written(
    write, tmp_path, settings, number, everyone
):
    path = write(trainer={"max_steps": 100000, "val_every_steps": 100000})
    command = Command(path, *(f"{key}={value}" for key, value in settings.items()))
    command.until("crops/s")
    start = time.monotonic()
    (os.killpg if everyone else os.kill)(command.process.pid, number)
    status = command.end()
    assert time.monotonic() - start < 5, "usually 0.2 s"
    if number != signal.SIGKILL:
        assert status == 128 + number, command.output
        assert re.search(r"interrupted: .*the same command continues\.\n$", command.output)
        assert left_behind(tmp_path / "run") == []
    assert "Traceback" not in command.output
    end = time.monotonic() + 5
    while command.others() and time.monotonic() < end:
        time.sleep(0.1)
    assert command.others() == []


@pytest.mark.slow
def test_two_processes_stop_in_a_validation_and_validate_when_they_continue(write, tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    path = write(corpus, trainer={"max_steps": 3, "val_every_steps": 2, "devices": 2})
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import sys, time\n"
        "from voxnest.training import module\n"
        "evaluate = module.evaluate_exits\n"
        "def slowly(*a, **k):\n"
        "    print('validates', flush=True)\n"
        "    time.sleep(60)\n"
        "module.evaluate_exits = slowly\n"
        "from voxnest.cli.app import app\n"
        "app()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(slow), "train", str(path)]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout
        for line in process.stdout:
            if "validates" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(20) == 130
    assert "interrupted: step 2 is saved" in rest
    command = Command(path)
    assert command.end() == 0, command.output
    assert command.output.index("step 2  EER") < command.output.index("step 3/3")
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert sum(bool(row.split(",")[-1]) for row in rows[1:]) == 2


@pytest.fixture
def small_disk(tmp_path):
    """Make a disk of a size, where that is allowed."""
    place = tmp_path / "disk"
    place.mkdir()

    def make(size: str) -> Path:
        made = shutil.which("mount") and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
        )
        if not made or made.returncode:
            pytest.skip("no disk can be mounted here")
        return place

    yield make
    subprocess.run(["umount", str(place)], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("size", "file"), [("4k", "config.yaml"), ("8k", "environment.json"), ("64k", "0001.wav"), ("500k", "safetensors")]
)
def test_a_full_disk_is_one_line_that_names_the_file(write, small_disk, size, file):
    path = write()
    place = small_disk(size)
    with pytest.raises(VoxnestError, match="No space left on device") as caught:
        run(path, f"output={place / 'run'}")
    assert file in str(caught.value)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert left_behind(place) == []


@pytest.mark.parametrize("written", [0, 2])
def test_a_disk_that_fills_under_tensorboard_is_one_line_and_prints_nothing(write, monkeypatch, capsys, written):
    count = [0]

    def full(self, data):
        count[0] += 1
        if count[0] > written:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", full)
    with pytest.raises(TrainingError, match=r"tensorboard: cannot be written: No space left on device"):
        run(write(), "trainer.max_steps=20")
    assert capsys.readouterr().err == ""


def test_metrics_that_cannot_be_written_name_their_file(write, tmp_path):
    path = write()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(path.read_text())
    (tmp_path / "run" / "metrics.csv").mkdir()
    with pytest.raises(TrainingError, match=r"metrics\.csv: cannot be written: Is a directory"):
        run(path)


def test_a_recording_of_a_held_out_speaker_that_breaks_off_is_listed(write, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", speakers=4)
    for path in corpus.rglob("*.wav"):
        samples, rate = soundfile.read(path)
        soundfile.write(path.with_suffix(".flac"), [*samples, *samples, *samples], rate)
        path.unlink()
    prepare(corpus, tmp_path / "manifest")  # which finds nothing wrong yet
    broken = [folder / "session" / "0.flac" for folder in sorted(corpus.iterdir())]  # whoever is held out
    for path in broken:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    path = write(tmp_path / "manifest")
    result = run(path, "trainer.max_steps=1", "crops.batch_size=2", "crops.per_epoch=2")
    names = set(re.findall(r" \d{3}-(\w+)/", (tmp_path / "run" / "validation" / "trials.txt").read_text()))
    expected = {path for path in broken if path.parts[-3] in names}
    assert len(expected) == 2
    assert expected <= set(result.unreadable)
    listed = (tmp_path / "run" / "unreadable.tsv").read_text()
    assert all(str(path) in listed for path in expected)


def test_what_was_found_unreadable_stays_listed_when_a_run_continues(write, tmp_path):
    folder = RunFolder(tmp_path)
    files = {Path("/a b/c.wav"): "cut off", Path("/d.wav"): "is not there"}
    folder.write_unreadable(files)
    assert folder.read_unreadable() == files


def test_what_prepare_left_out_is_told(write, tmp_path):
    corpus = make_corpus(tmp_path / "corpus")
    (corpus / "speaker1" / "session" / "bad.wav").write_text("no audio")
    output = printed("train", write(corpus, trainer={"max_steps": 1}))
    listed = tmp_path / "run" / "manifest" / "unreadable.tsv"
    assert f"1 that cannot be read: {listed}" in output
    assert "bad.wav" in listed.read_text()


def test_a_corpus_that_was_moved_is_one_line_and_a_few_missing_files_are_listed(write, tmp_path):
    corpus = make_corpus(tmp_path / "corpus", speakers=4, utterances=30)
    prepare(corpus, tmp_path / "elsewhere" / "manifest")
    path = write(tmp_path / "elsewhere" / "manifest")
    gone = corpus / "speaker0" / "session" / "7.wav"
    gone.unlink()
    assert "is not there" in run(path, "trainer.max_steps=1").unreadable[gone]
    corpus.rename(tmp_path / "moved")
    with pytest.raises(CorpusError, match=r"120 of (its )?120 .*not there") as caught:
        run(path, f"output={tmp_path / 'second'}")
    assert str(tmp_path / "elsewhere" / "manifest") in str(caught.value)
    assert not (tmp_path / "second" / "validation").exists()


def test_lines_in_a_pipe_come_once_and_a_longer_run_is_offered(write, tmp_path):
    path = write(trainer={"max_steps": 8, "val_every_steps": 3, "log_every_steps": 2, "accumulate": 2})
    words = ("train", path, "--device", "cpu", "model.overrides.hop_length=200")
    output = printed(*words)
    lines = output.splitlines()
    assert re.findall(r"step (\d+)/8 ", output) == ["2", "4", "6", "8"]
    assert re.findall(r"step (\d+)  EER", output) == ["3", "6", "8"]
    assert {line for line in lines if lines.count(line) > 1} <= {""}
    assert "redimnet-tiny with overrides" in output
    assert not re.search("warn|resource_tracker|Lightning|rank", output, re.IGNORECASE)
    last = tmp_path / "run" / "last.safetensors"
    assert f"to train on from its weights: init_from={last} output=NEW" in printed(*words)
    with pytest.raises(ConfigError, match="schedules follow the length") as caught:
        run(path, "model.overrides.hop_length=200", "trainer.max_steps=9")
    assert f"init_from={last} output=NEW" in str(caught.value)


@pytest.mark.parametrize("name", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_one_line(write, name):
    with pytest.raises(ConfigError, match="device: "):
        printed("train", write(), "--device", name)


def test_a_process_that_lightning_starts_ends_with_a_first_one_that_was_killed():
    child = "from voxnest.training.interruption import *; end_with_parent(); print('up', flush=True); time.sleep(60)"
    parent = (
        "import os, subprocess, sys; from voxnest.training.interruption import end_with_parent; end_with_parent();"
        f"subprocess.run([sys.executable, '-c', {child!r}], env=os.environ | {{'LOCAL_RANK': '1'}})"
    )
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}
    words = [sys.executable, "-c", parent]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        process.kill()
        start = time.monotonic()
        assert process.stdout.read() == ""  # to the end, when the other lets go of it
        assert time.monotonic() - start < 10
