"""A sample of what `python tools/fuzz.py` does for hours: damaged input of every kind ends as documented."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "tools" / "fuzz.py"


@pytest.mark.slow
def test_damaged_input_of_every_kind_ends_in_a_documented_status(tmp_path: Path) -> None:
    command = [sys.executable, FUZZ, "--cases", "80", "--seed", "2026", "--keep", tmp_path]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert shown.returncode == 0, shown.stdout[-4000:] + shown.stderr[-2000:]
    assert "80 cases of 80, 0 failed" in shown.stdout
