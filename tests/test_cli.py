"""The command as a new user meets it: it answers at once, and trouble is one line and exit status 2."""

import errno
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from voxnest.cli import app
from voxnest.models.registry import CARDS


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "voxnest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def test_help_lists_every_command_without_importing_torch() -> None:
    code = "import sys, voxnest.cli.app as a; print(sorted({'torch', 'lightning', 'lhotse'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert loaded.stdout.strip() == "[]"
    shown = run("--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in app.COMMANDS)


def test_importing_voxnest_does_not_import_lightning() -> None:
    code = "import sys, voxnest; voxnest.create_encoder; print('lightning' in sys.modules, 'lhotse' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == "False False"


def test_models_lists_counts_and_published_rates() -> None:
    shown = run("models")
    assert shown.returncode == 0
    assert "redimnet-b6" in shown.stdout


def test_a_users_mistake_is_one_line_and_status_2(tmp_path: Path) -> None:
    missing = tmp_path / "[bold]odd[name].wav"
    shown = run("verify", missing, missing, "--model", tmp_path / "no.safetensors")
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "no.safetensors: no such file" in shown.stderr


def test_brackets_in_a_path_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["voxnest", "prepare", str(tmp_path / "[red]corpus"), "-o", str(tmp_path / "m")])
    with pytest.raises(SystemExit, match="2"):
        app.main()
    assert "[red]corpus" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results.json")

    monkeypatch.setattr(app, "app", full)
    with pytest.raises(SystemExit, match="2"):
        app.main()
    assert capsys.readouterr().err == "error: results.json: No space left on device\n"


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no errno: not the system's answer")

    monkeypatch.setattr(app, "app", broken)
    with pytest.raises(OSError, match="not the system's"):
        app.main()


@pytest.mark.slow
def test_the_demo_goes_from_nothing_to_a_verification(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shown = run("demo", folder, "--minutes", "0.1")
    assert shown.returncode == 0, shown.stderr
    for step in ("voxnest prepare", "voxnest train", "voxnest evaluate", "voxnest verify", "Next"):
        assert step in shown.stdout
    assert (folder / "results.json").exists()
    assert (folder / "det.png").read_bytes().startswith(b"\x89PNG")
    again = run("demo", folder, "--minutes", "0.1")
    assert again.returncode == 0, again.stderr
    assert "already finished" in again.stdout


def test_counts_agree_with_the_published_ones_or_say_why() -> None:
    shown = run("models", "--check")
    assert shown.returncode == 0
    assert "redimnet2-b6" in shown.stdout
    assert "redimnet-b5: the released checkpoint holds 7.66 M" in shown.stdout


def test_an_unexplained_difference_of_counts_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARDS["redimnet-b5"]
    unexplained = replace(card, published=replace(card.published, note=""))
    monkeypatch.setattr("voxnest.models.registry.CARDS", {"redimnet-b5": unexplained})
    monkeypatch.setattr("voxnest.models.counting.CARDS", {"redimnet-b5": unexplained})
    monkeypatch.setattr(sys, "argv", ["voxnest", "models", "--check"])
    with pytest.raises(SystemExit, match="1"):
        app.main()
    assert "redimnet-b5: not explained" in capsys.readouterr().out
