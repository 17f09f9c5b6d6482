"""The model that comes with voxnest: there at once, small, and good at every size."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from voxnest import load_encoder
from voxnest.errors import ConfigError
from voxnest.hub.checkpoint import DEFAULT_FILE, read_metadata

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download would fail."""
    monkeypatch.setenv("VOXNEST_MIRROR", "http://127.0.0.1:9/")


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


def test_verify_tells_speakers_apart_without_a_model_named(run: Run, voices: Path) -> None:
    first, second = sorted((voices / "test" / "libri-1688").rglob("*.flac"))[:2]
    other = next((voices / "test" / "libri-2033").rglob("*.flac"))
    same, different = run("verify", first, second, "--json"), run("verify", first, other, "--json", "--dim", "64")
    assert (same[0], different[0]) == (0, 1)
    assert json.loads(different[1])["dim"] == 64
    assert "generic" not in same[2]  # it has thresholds of its own


def test_embed_needs_no_model_named(run: Run, speech: Path, tmp_path: Path) -> None:
    assert run("embed", speech, "-o", tmp_path / "e.npz")[0] == 0


@pytest.mark.slow
def test_it_has_the_error_rates_of_its_card_shown_in_80_columns(
    run: Run, voices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven sizes and an interval: nothing wraps, and nothing is cut."""
    monkeypatch.delenv("COLUMNS", raising=False)
    results = tmp_path / "results.json"
    status, shown, errors = run("evaluate", "--trials", voices / "trials.txt", "--interval", "--json", results)
    assert status == 0, errors
    lines = [line for line in shown.splitlines() if not line.startswith("results: ")]
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    assert shown.startswith("default on trials.txt\n")
    rows = {line.split()[0]: line.split() for line in lines if re.match(r" *\d+  ", line)}
    assert list(rows) == ["8", "16", "32", "64", "128", "192", "256"]
    eer, accepts, rejects = float(rows["256"][1]), float(rows["256"][7]), float(rows["256"][8])
    assert (eer, accepts, rejects) == (pytest.approx(0.51, abs=0.1), pytest.approx(3.93, abs=0.2), 0)
    assert "warning" not in errors
    card = read_metadata(DEFAULT_FILE)["metadata"]["card"]["voices/trials.txt"]
    for dim, result in json.loads(results.read_text())["dims"].items():
        assert result["eer"] == pytest.approx(card[dim]["eer"], abs=0.0025)  # a trial of 450 may fall either way
