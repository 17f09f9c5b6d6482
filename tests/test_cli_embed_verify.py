"""`voxnest embed` and `voxnest verify` as a user runs them: output, exit status, one line per mistake."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from voxnest import create_encoder, save_encoder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    save_encoder(create_encoder("redimnet-tiny"), folder / "model.safetensors")
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    for name in ("a.wav", "b.flac", "c [1].mp3"):
        soundfile.write(folder / "audio" / name, 0.1 * rng.standard_normal(16000), 16000)
    (folder / "bad [x].wav").write_text("not audio")
    soundfile.write(folder / "silence.wav", np.zeros(16000), 16000)
    return folder


def test_embed_writes_every_recording_of_a_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    status, text, _ = run("embed", folder / "audio", "--model", folder / "model.safetensors", "-o", output)
    assert status == 0
    assert "3 embeddings of 64 numbers" in text
    with np.load(output) as archive:
        assert [Path(name).name for name in archive["names"]] == ["a.wav", "b.flac", "c [1].mp3"]
        assert archive["embeddings"].shape == (3, 64)
        assert str(archive["model"]) == "redimnet-tiny"


def test_embed_reports_a_bad_file_and_writes_the_others(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    files = [
        folder / "audio" / "*.wav",
        folder / "bad [x].wav",
        tmp_path / "none.wav",
        folder / "silence.wav",
    ]
    status, text, errors = run("embed", *files, "-m", folder / "model.safetensors", "-o", output, "--dim", 16)
    assert status == 2
    assert "2 embeddings of 16 numbers" in text
    assert f"error: {folder}/bad [x].wav: is not audio" in errors
    assert f"error: {tmp_path}/none.wav: no such file" in errors
    assert f"warning: {folder}/silence.wav: is silent" in errors
    with np.load(output) as archive:
        assert archive["embeddings"].shape == (2, 16)


def test_embed_names_folders_that_cannot_be_searched(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "all/closed"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "all" / "a.wav").symlink_to(folder / "audio" / "a.wav")
    (tmp_path / "all" / "again").symlink_to(".")  # nothing is missed through it
    scandir = os.scandir

    def refuse(place: str) -> object:
        if Path(place).name == "closed":
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    places = [tmp_path / "closed", tmp_path / "all"]
    status, text, errors = run("embed", *places, "-m", folder / "model.safetensors", "-o", tmp_path / "out.npz")
    assert status == 2
    assert "1 embeddings" in text
    assert errors.splitlines() == [
        f"error: {tmp_path}/closed: cannot be listed: Permission denied (expected a folder that you may read)",
        f"error: {tmp_path}/all/closed: cannot be listed: Permission denied",
    ]


def test_embed_without_a_usable_file_writes_nothing(run: Run, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.npz"
    status, text, errors = run("embed", tmp_path / "none.wav", "-m", folder / "model.safetensors", "-o", output)
    assert (status, text) == (2, "")
    assert "no such file" in errors
    assert not output.exists()


@pytest.mark.parametrize("command", ["embed", "verify"])
def test_a_dimension_that_the_model_has_not_lists_those_it_has(
    run: Run, folder: Path, tmp_path: Path, command: str
) -> None:
    files = [folder / "audio" / "a.wav", folder / "audio" / "b.flac"]
    output = ["-o", tmp_path / "out.npz"] if command == "embed" else []
    status, _, errors = run(command, *files, "-m", folder / "model.safetensors", "--dim", 17, *output)
    assert status == 2
    assert "16, 32, 64" in errors
    assert len(errors.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["embed", "verify"])
def test_a_model_that_is_not_there_is_one_line(run: Run, folder: Path, tmp_path: Path, command: str) -> None:
    files = [folder / "audio" / "a.wav", folder / "audio" / "b.flac"]
    output = ["-o", tmp_path / "out.npz"] if command == "embed" else []
    status, text, errors = run(command, *files, "--model", tmp_path / "none.safetensors", *output)
    assert (status, text) == (2, "")
    assert "none.safetensors" in errors
    assert len(errors.strip().splitlines()) == 1


def test_verify_says_same_with_status_0_and_different_with_status_1(run: Run, folder: Path) -> None:
    a, b = folder / "audio" / "a.wav", folder / "audio" / "b.flac"
    model = ["--model", folder / "model.safetensors"]
    status, text, errors = run("verify", a, a, *model)
    assert status == 0
    assert text.startswith("same speaker")
    assert "score 1.0000 ≥ threshold 0.5000, 64 numbers" in text
    assert "generic" in errors
    status, text, errors = run("verify", a, b, *model, "--threshold", "1", "--dim", "16")
    assert status == 1
    assert text.startswith("different speakers")
    assert "< threshold 1.0000, 16 numbers" in text
    assert errors == ""


def test_verify_prints_json_alone_on_stdout(run: Run, folder: Path) -> None:
    a = folder / "audio" / "a.wav"
    status, text, errors = run(
        "verify", a, folder / "silence.wav", "-m", folder / "model.safetensors", "--threshold", "1", "--json"
    )
    answer = json.loads(text)
    assert status == 1
    assert answer["same"] is False
    assert answer["threshold"] == 1
    assert answer["dim"] == 64
    assert answer["silent"] == [str(folder / "silence.wav")]
    assert -1 <= answer["score"] < 1
    assert "is silent" in errors


def test_verify_of_a_bad_file_is_an_error_and_no_answer(run: Run, folder: Path) -> None:
    status, text, errors = run(
        "verify", folder / "audio" / "a.wav", folder / "audio", "-m", folder / "model.safetensors"
    )
    assert (status, text) == (2, "")
    assert errors.splitlines() == [f"error: {folder / 'audio'}: is a directory"]
