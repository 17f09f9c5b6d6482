"""`voxnest embed` and `verify` on pipes, links and devices, on a terminal, and when they are interrupted."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from voxnest import create_encoder, save_encoder
from voxnest.progress import progress_bar

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    save_encoder(create_encoder("redimnet-tiny"), folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for name in ("a.wav", "b.flac"):
        soundfile.write(folder / name, 0.1 * rng.standard_normal(20000), 16000)
    soundfile.write(folder / "silence.wav", np.zeros(20000), 16000)
    return folder


@pytest.fixture
def embed(folder: Path) -> list[object]:
    """`embed a.wav b.flac -m MODEL`, without the output."""
    return ["embed", folder / "a.wav", folder / "b.flac", "-m", folder / "model.safetensors"]


@pytest.fixture
def verify(folder: Path) -> list[object]:
    """`verify -m MODEL`, without the recordings."""
    return ["verify", "-m", folder / "model.safetensors", "--threshold", "0.5"]


def names(archive: bytes | Path) -> list[str]:
    with np.load(archive if isinstance(archive, Path) else io.BytesIO(archive)) as held:
        return [Path(name).name for name in held["names"]]


@contextmanager
def fed(path: Path, content: bytes) -> Iterator[None]:
    """Write to a FIFO meanwhile."""
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    yield
    writer.join()


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_an_archive_on_standard_output_is_alone_there(run_bytes: Run, embed: list[object], output: str) -> None:
    status, archive, errors = run_bytes(*embed, "-o", output)
    assert status == 0
    assert names(archive) == ["a.wav", "b.flac"]
    assert f"{output}: 2 embeddings" in errors


def test_an_archive_goes_through_links_fifos_and_devices(run_bytes: Run, embed: list[object], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "target.npz")
    assert run_bytes(*embed, "-o", tmp_path / "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk" / "target.npz") == ["a.wav", "b.flac"]

    fifo, received = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    assert run_bytes(*embed, "-o", fifo)[0] == 0
    reader.join()
    assert names(received[0]) == ["a.wav", "b.flac"]

    assert run_bytes(*embed, "-o", os.devnull)[0] == 0
    assert not Path(os.devnull).is_file()
    status, _, errors = run_bytes(*embed, "-o", "/dev/full")
    assert (status, errors) == (2, "error: /dev/full: cannot be written: No space left on device\n")


def test_an_output_that_cannot_be_written_is_told_before_the_model_is_read(run_bytes: Run, tmp_path: Path) -> None:
    for arguments in (["embed", "a.wav", "-o", tmp_path], ["verify", "a.wav", "b.wav", f"--json={tmp_path}"]):
        status, _, errors = run_bytes(*arguments, "-m", tmp_path / "none.safetensors")
        assert status == 2
        assert errors == f"error: {tmp_path}: is a folder (expected a file to write)\n"


def test_an_empty_folder_is_one_line_and_the_others_are_embedded(
    run_bytes: Run, embed: list[object], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    status, _, errors = run_bytes(*embed, tmp_path / "empty", "-o", tmp_path / "out.npz")
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: {tmp_path}/empty: no recordings in it")
    assert names(tmp_path / "out.npz") == ["a.wav", "b.flac"]


def test_a_recording_comes_through_standard_input(
    run_bytes: Run, verify: list[object], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def feed(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False))

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    feed((folder / "b.flac").read_bytes())
    status, output, errors = run_bytes(*verify, "-", folder / "b.flac")
    assert (status, errors) == (0, "")
    assert b"score 1.0000" in output
    feed((folder / "silence.wav").read_bytes())
    status, output, errors = run_bytes(*verify, folder / "a.wav", "-", "--json", "-")
    assert json.loads(output)["silent"] == ["-"]
    assert json.loads(output)["warnings"][0][0] == "-"
    assert errors.startswith("warning: standard input: is silent")
    for content, says in ((b"", "is empty"), (b"no sound at all" * 9, "is not audio")):
        feed(content)
        status, output, errors = run_bytes(*verify, "-", folder / "a.wav")
        assert (status, output) == (2, b"")
        assert errors.startswith(f"error: standard input: {says}")
        assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_standard_input_is_one_recording_and_no_terminal(
    run_bytes: Run, verify: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, errors = run_bytes(*verify, "-", "-")
    assert status == 2
    assert errors.startswith("error: standard input: given twice")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert run_bytes(*verify, "-", folder / "a.wav")[2].startswith("error: standard input: is a terminal")
    monkeypatch.setattr(sys, "stdin", None)
    assert run_bytes(*verify, "-", folder / "a.wav")[2].startswith("error: standard input: is closed")


def test_recordings_come_through_fifos_and_open_files(
    run_bytes: Run, verify: list[object], folder: Path, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo.wav"
    os.mkfifo(fifo)
    content = (folder / "silence.wav").read_bytes()
    with fed(fifo, content):
        status, output, errors = run_bytes(*verify, fifo, folder / "a.wav", "--json", "-")
    assert status in (0, 1)
    assert json.loads(output)["silent"] == [str(fifo)]
    assert errors.startswith(f"warning: {fifo}: is silent")
    with fed(fifo, content):  # read once
        assert run_bytes(*verify, fifo, fifo)[0] in (0, 1)

    reader, writer = os.pipe()
    os.write(writer, b"no sound at all" * 9)
    os.close(writer)
    status, _, errors = run_bytes(*verify, f"/dev/fd/{reader}", folder / "a.wav")
    os.close(reader)
    assert status == 2
    assert errors.startswith(f"error: /dev/fd/{reader}: is not audio")


def test_json_in_a_file_leaves_the_answer_on_the_terminal(
    run_bytes: Run, verify: list[object], folder: Path, tmp_path: Path
) -> None:
    a, output = folder / "a.wav", tmp_path / "answer.json"
    status, text, _ = run_bytes(*verify, a, a, "--json", output)
    assert status == 0
    assert text.startswith(b"same speaker")
    assert json.loads(output.read_text())["same"] is True
    status, text, errors = run_bytes(*verify, a, a, f"--json={tmp_path / 'answer.txt'}")
    assert (status, text) == (2, b"")
    assert "ends in .txt (expected a name that ends in .json)" in errors


def test_a_device_that_is_not_there_is_one_line(run_bytes: Run, verify: list[object], embed: list[object]) -> None:
    for arguments in ([*verify, "a.wav", "b.wav"], [*embed, "-o", "-"]):
        status, _, errors = run_bytes(*arguments, "--device", "gpu")
        assert (status, errors.count("\n")) == (2, 1)
        assert errors.startswith("error: device: 'gpu'")


def test_a_bar_is_shown_on_a_terminal_only_and_only_if_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal, os.fdopen(os.dup(slave), "w"):
        monkeypatch.setattr(sys, "stderr", terminal)
        os.set_blocking(master, False)

        def shown(after: float) -> bytes:
            with progress_bar("embedding", after) as progress:
                progress(3, 7)
                time.sleep(0.3)
            written = b""
            with contextlib.suppress(BlockingIOError):
                while True:
                    written += os.read(master, 10000)
            return written

        assert b"3/7" in shown(after=0.0)
        assert shown(after=60.0) == b""
    os.close(master)
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar("embedding", 0.0) as progress:
        progress(3, 7)
        time.sleep(0.1)
    assert pipe.getvalue() == ""


COMMAND = [sys.executable, "-m", "voxnest"]


@pytest.mark.parametrize("command", ["embed", "verify", "verify as JSON"])
def test_a_reader_that_goes_away_early_is_one_line_and_status_2(
    command: str, embed: list[object], verify: list[object], folder: Path
) -> None:
    pair = [*verify, folder / "a.wav", folder / "a.wav"]
    arguments = {"embed": [*embed, "-o", "-"], "verify": pair, "verify as JSON": [*pair, "--json", "-"]}[command]
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait(60) == 2
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_the_answer_can_be_printed_in_any_encoding(
    run_bytes: Run, verify: list[object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert run_bytes(*verify, folder / "a.wav", folder / "a.wav")[0] == 0
    sys.stdout.flush()
    assert b"score 1.0000 >= threshold 0.5000" in written.getvalue()


def interrupt(process: subprocess.Popen[bytes]) -> float:
    """Send Ctrl-C; the seconds until the process ends."""
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    return time.monotonic() - start


def test_ctrl_c_in_a_long_recording_ends_soon_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-20, 20, 8000 * 60, np.int16) * np.int16(256)
    with soundfile.SoundFile(tmp_path / "long.wav", "w", 8000, 1, "PCM_U8") as file:
        for _ in range(180):
            file.write(noise)
    code = (
        "from voxnest.inference import pipeline; from voxnest.cli.main import main\n"
        "read = pipeline.read_audio\n"
        "pipeline.read_audio = lambda *a, **k: print('reading', flush=True) or read(*a, **k)\n"
        "main()"
    )
    arguments = ["embed", "long.wav", "-m", str(folder / "model.safetensors"), "-o", "out.npz"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=tmp_path, stdout=-1, stderr=-1)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    seconds = interrupt(process)
    assert process.returncode == 130
    assert seconds < 2  # where the whole would take a minute
    assert [path.name for path in tmp_path.iterdir()] == ["long.wav"]


def test_ctrl_c_while_standard_input_is_read_leaves_nothing(verify: list[object], folder: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    arguments = [*COMMAND, *map(str, verify), "-", str(folder / "a.wav")]
    process = subprocess.Popen(arguments, env=environment, stdin=-1, stdout=-1, stderr=-1)
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("voxnest-*/recording")):
        assert time.monotonic() < limit
        time.sleep(0.05)
    interrupt(process)
    assert process.returncode == 130
    assert list(tmp_path.glob("voxnest-*")) == []
