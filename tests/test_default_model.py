"""The model that comes with voxnest: there at once, small, and good at every size."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from voxnest import load_encoder
from voxnest.errors import ConfigError
from voxnest.hub.checkpoint import DEFAULT_FILE, read_metadata
from voxnest.zoo.counting import count_macs

Run = Callable[..., tuple[int, str, str]]
LISTS = {
    "voices/trials.txt": "clean reading",
    "crowd/dev-commonvoice.txt": "other languages",
    "crowd/dev-speechocean.txt": "learners, children",
    "crowd/dev-commands.txt": "single words",
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download would fail."""
    monkeypatch.setenv("VOXNEST_MIRROR", "http://127.0.0.1:9/")


def test_it_is_small_and_says_what_it_is() -> None:
    assert DEFAULT_FILE.stat().st_size <= 8_000_000
    card = read_metadata(DEFAULT_FILE)["metadata"]["card"]
    assert {"data", "languages", "license", "teacher", "commands", "not_for", "error_rates"} <= set(card)
    assert all(source["license"] and source["speakers"] and source["recordings"] for source in card["data"])
    for condition in ("clean reading, telephone", "other languages, 1 s", "learners, children", "single words"):
        assert {"8", "64", "256"} <= set(card["error_rates"][condition])
    encoder = load_encoder()
    assert sum(parameter.numel() for parameter in encoder.parameters()) < 2_000_000
    assert count_macs(encoder, 2.0) <= 0.5e9


def test_it_needs_no_name() -> None:
    encoder = load_encoder()
    assert {64, 128, 192, 256} <= set(encoder.dims)
    assert set(encoder.thresholds) == set(encoder.calibration) == set(encoder.dims)
    assert not encoder.training
    assert encoder(torch.randn(1, 16000), dim=64).shape == (1, 64)
    with pytest.raises(ConfigError, match="default model"):
        load_encoder(train_type="ptn")


def test_loading_it_imports_nothing_of_other_models() -> None:
    """It took most of the time from `import torch` to the first embedding."""
    code = """
import sys, torch, voxnest
voxnest.load_encoder()
others = ("voxnest.foreign.reading", "voxnest.models.redimnet", "pydantic")
print(sorted(name for name in sys.modules if name.startswith(others)))
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "[]"


def test_verify_tells_speakers_apart_without_a_model_named(run: Run, voices: Path) -> None:
    first, second = sorted((voices / "test" / "libri-1688").rglob("*.flac"))[:2]
    other = next((voices / "test" / "libri-2033").rglob("*.flac"))
    same, different = run("verify", first, second, "--json"), run("verify", first, other, "--json", "--dim", "64")
    assert (same[0], different[0]) == (0, 1)
    assert json.loads(different[1])["dim"] == 64
    sure = [json.loads(shown)["probability"] for _, shown, _ in (same, different)]
    assert sure[0] > 0.9
    assert sure[1] < 0.1
    assert "calibrated" not in same[2]  # no note that it is not


def test_verify_takes_a_rate_of_false_accepts(run: Run, voices: Path) -> None:
    """Thresholds for 1% and 0.1% are learnt from development speakers, and stricter for fewer."""
    first, second = sorted((voices / "test" / "libri-1688").rglob("*.flac"))[:2]
    limits = [json.loads(run("verify", first, second, "--far", far, "--json")[1]) for far in ("0.01", "0.001")]
    assert limits[0]["llr_threshold"] < limits[1]["llr_threshold"]
    assert all(limit["false_accepts"]["nontargets"] > 10_000 for limit in limits)


def test_embed_needs_no_model_named(run: Run, speech: Path, tmp_path: Path) -> None:
    assert run("embed", speech, "-o", tmp_path / "e.npz")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("listed", "condition"), LISTS.items())
def test_it_has_the_error_rates_of_its_card(
    run: Run, shared: Path, tmp_path: Path, listed: str, condition: str
) -> None:
    results = tmp_path / "results.json"
    status, _, errors = run("evaluate", "--trials", shared / "data" / listed, "--json", results)
    assert status == 0, errors
    card = read_metadata(DEFAULT_FILE)["metadata"]["card"]["error_rates"][condition]
    found = json.loads(results.read_text())["dims"]
    for dim, rate in card.items():
        assert found[dim]["eer"] == pytest.approx(rate["eer"], abs=0.0025)  # a trial of 450 may fall either way


@pytest.mark.slow
def test_seven_sizes_and_an_interval_are_shown_in_80_columns(
    run: Run, voices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing wraps, and nothing is cut."""
    monkeypatch.delenv("COLUMNS", raising=False)
    status, shown, errors = run("evaluate", "--trials", voices / "trials.txt", "--interval")
    assert status == 0, errors
    lines = [line for line in shown.splitlines() if not line.startswith("results: ")]
    assert max(map(len, lines)) <= 80
    assert "…" not in shown
    assert "warning" not in errors
    assert shown.startswith("default on trials.txt\n")
    rows = [line.split()[0] for line in lines if re.match(r" *\d+  ", line)]
    assert rows[:7] == ["8", "16", "32", "64", "128", "192", "256"]
