"""The scripts of examples/, run as a user runs them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow
EXAMPLES = ROOT / "examples"


def run(script: str, *arguments: str | Path) -> str:
    sources = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, EXAMPLES / script, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": sources}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that examples/train.py leaves, and what it prints."""
    folder = tmp_path_factory.mktemp("voices")
    return folder, run("train.py", folder, "60")


def test_training_tells_the_error_rate_of_new_speakers_at_every_size(trained: tuple[Path, str]) -> None:
    rates = re.findall(r"^ *(\d+) numbers: EER (\S+)%", trained[1], re.MULTILINE)
    assert [int(dim) for dim, _ in rates] == [16, 32, 64]
    assert all(float(eer) < 20 for _, eer in rates)


def test_a_search_by_short_embeddings_finds_who_speaks(trained: tuple[Path, str]) -> None:
    query = "voice0021/session0/0000.wav"
    lines = run("search.py", trained[0] / "test", trained[0] / "test" / query).splitlines()
    assert lines[0].split() == ["1.000", "voice0021", query]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    assert [line.split()[1] for line in lines[1:5]] == ["voice0021"] * 4


def test_a_rotation_makes_prefixes_better_and_leaves_the_whole_as_it_was(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    folder = trained[0]
    trials = shutil.copy(folder / "trials.txt", folder / "test")
    shown = run("rotate.py", folder / "run" / "best.safetensors", folder / "train", trials, tmp_path / "o.safetensors")
    rows = [line.replace("%", "").split() for line in shown.splitlines()[1:]]
    rates = {int(dim): (float(before), float(after)) for dim, before, after in rows}
    assert list(rates) == [8, 16, 32, 64]
    assert rates[8][1] < rates[8][0] - 1
    assert rates[64][1] == pytest.approx(rates[64][0], abs=0.2)
    assert (tmp_path / "o.safetensors").exists()


def test_they_are_short_enough_to_be_read() -> None:
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert len(scripts) >= 3
    assert all(len(script.read_text().splitlines()) < 50 for script in scripts)
