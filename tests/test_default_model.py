"""The model that comes with voxnest: there at once, small, and good at every size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from voxnest import load_encoder
from voxnest.errors import ConfigError
from voxnest.evaluation import evaluate
from voxnest.hub.checkpoint import DEFAULT_FILE, read_metadata


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxnest", *map(str, arguments)]
    nowhere = {**os.environ, "VOXNEST_MIRROR": "http://127.0.0.1:9/"}  # a download would fail
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=nowhere)


def test_it_is_small_and_says_what_it_is() -> None:
    assert DEFAULT_FILE.stat().st_size <= 8_000_000
    card = read_metadata(DEFAULT_FILE)["metadata"]["card"]
    assert {"data", "data_licenses", "commands", "not_for", "voices/trials.txt"} <= set(card)
    assert set(map(str, load_encoder().dims)) == set(card["voices/trials.txt"])


def test_it_needs_no_name() -> None:
    encoder = load_encoder()
    assert {64, 128, 192, 256} <= set(encoder.dims)
    assert set(encoder.thresholds) == set(encoder.dims)
    assert not encoder.training
    assert encoder(torch.randn(1, 16000), dim=64).shape == (1, 64)
    with pytest.raises(ConfigError, match="default model"):
        load_encoder(train_type="ptn")


def test_verify_tells_speakers_apart_without_a_model_named(voices: Path) -> None:
    first, second = sorted((voices / "test" / "libri-1688").rglob("*.flac"))[:2]
    other = next((voices / "test" / "libri-2033").rglob("*.flac"))
    same, different = run("verify", first, second, "--json"), run("verify", first, other, "--json", "--dim", "64")
    assert (same.returncode, different.returncode) == (0, 1), same.stderr + different.stderr
    assert json.loads(different.stdout)["dim"] == 64
    assert "generic" not in same.stderr  # it has thresholds of its own


def test_embed_needs_no_model_named(speech: Path, tmp_path: Path) -> None:
    assert run("embed", speech, "-o", tmp_path / "e.npz").returncode == 0


def test_error_rates_are_those_of_its_card(voices: Path) -> None:
    card = read_metadata(DEFAULT_FILE)["metadata"]["card"]["voices/trials.txt"]
    report = evaluate(load_encoder(), voices / "trials.txt")
    for dim, result in report.dims.items():
        assert result.eer == pytest.approx(card[str(dim)]["eer"], abs=0.0025)  # a trial of 450 may fall either way
