"""The command as a new user meets it: it answers at once, and trouble is one line and exit status 2."""

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import voxnest
from voxnest.cli import app, main
from voxnest.cli.command import with_json_file
from voxnest.zoo.registry import CARDS

Run = Callable[..., tuple[int, str, str]]


def run_alone(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The real command, as a process of its own."""
    command = [sys.executable, "-m", "voxnest", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250)


def test_help_lists_every_command_without_importing_torch() -> None:
    code = "import sys, voxnest.cli.app as a; print(sorted({'torch', 'lightning', 'lhotse'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert loaded.stdout.strip() == "[]"
    shown = run_alone("--help")
    assert shown.returncode == 0
    assert all(command in shown.stdout for command in app.COMMANDS)


@pytest.mark.parametrize("group", [[], ["matryoshka"]])
def test_a_group_without_words_shows_its_help(run: Run, group: list[str]) -> None:
    assert run(*group) == (0, run(*group, "--help")[1], "")


def test_importing_voxnest_does_not_import_lightning() -> None:
    code = "import sys, voxnest; voxnest.create_encoder; print('lightning' in sys.modules, 'lhotse' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == "False False"


def test_a_users_mistake_is_one_line_and_status_2(tmp_path: Path) -> None:
    missing = tmp_path / "[bold]odd[name].wav"
    shown = run_alone("verify", missing, missing, "--model", tmp_path / "no.safetensors")
    assert shown.returncode == 2
    assert shown.stderr.count("\n") == 1
    assert "no.safetensors: no such file" in shown.stderr


def test_brackets_in_a_path_are_shown_as_they_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["prepare", str(tmp_path / "[red]corpus"), "-o", str(tmp_path / "m")]
    assert main.run(lambda: app.app(words, standalone_mode=False)) == 2
    assert "[red]corpus" in capsys.readouterr().err


def test_what_the_system_refuses_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "results.json")

    assert main.run(full) == 2
    assert capsys.readouterr().err == "error: results.json: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError("a bug\nof ours"), "failed with RuntimeError: a bug (the traceback is in "),
        (OSError("no errno: not the system's answer"), "failed with OSError: no errno"),
        (MemoryError(), "out of memory (the traceback is in "),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"), "out of memory"),
        (SystemExit(1), "failed with SystemExit"),  # of a library, not an answer
    ],
)
def test_a_crash_is_one_line_with_a_log_and_never_status_1(
    error: BaseException,
    line: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path))

    def broken() -> None:
        raise error

    assert main.run(broken) == 2
    shown = capsys.readouterr().err
    assert line in shown
    assert shown.count("\n") == 1
    (log,) = (tmp_path / "logs").iterdir()
    assert str(log) in shown
    assert "in broken" in log.read_text()


def test_a_log_that_cannot_be_written_in_the_cache_goes_elsewhere(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "home").write_text("a file, no folder")
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main.run(lambda: 1 // 0) == 2
    assert str(tmp_path / "voxnest-") in capsys.readouterr().err


@pytest.mark.parametrize("words", [["verify"], ["verify", "a"], ["embed", "a"], ["models", "--jsn"]])
def test_wrong_words_are_one_line_and_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(lambda: app.app(words, standalone_mode=False)) == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "--help)" in shown


def test_a_misspelt_command_or_option_is_answered_with_the_right_one(capsys: pytest.CaptureFixture[str]) -> None:
    main.run(lambda: app.app(["verfy"], standalone_mode=False))
    main.run(lambda: app.app(["verify", "--modle", "x"], standalone_mode=False))
    shown = capsys.readouterr().err
    assert "'verify'" in shown
    assert "--model" in shown


def test_short_options_of_help_and_version(run: Run) -> None:
    assert run("-V") == run("--version") == (0, f"voxnest {voxnest.__version__}\n", "")
    for command in ([], *([name] for name in app.COMMANDS), ["matryoshka", "fit"]):
        shown = CliRunner().invoke(app.app, [*command, "-h"], env={"COLUMNS": "80"})
        assert shown.exit_code == 0, command
        assert max(map(len, shown.output.splitlines())) <= 80, command
        assert "<bool>" not in shown.output, command
        assert "{" not in shown.output, command
    summaries = run("--help")[1].split("Commands:")[1]
    assert "..." not in summaries


def test_json_needs_no_file() -> None:
    words = ["--json", "a.wav", "b.wav"], ["a", "--json"], ["--json", "x.json", "a"], ["--json", "-", "a"]
    assert [with_json_file(each) for each in words] == [
        ["--json", "-", "a.wav", "b.wav"],
        ["a", "--json", "-"],
        ["--json", "x.json", "a"],
        ["--json", "-", "a"],
    ]
    assert with_json_file(["--", "--json"]) == ["--", "--json"]


def test_the_configuration_that_help_names_can_be_printed(run: Run) -> None:
    assert "example" in run("config")[1].split()
    status, shown, _ = run("config", "example")
    assert status == 0
    assert "optimizer:" in shown
    status, _, errors = run("config", "exmple")
    assert status == 2
    assert "'example'?" in errors


SLOW_IMPORT = """
import signal, sys, threading, time, voxnest.cli.main as main
def busy():
    {work}
main._app = busy
sys.argv = ["voxnest"]
main.main()
"""


def test_a_command_ends_after_its_threads_and_handlers_with_all_that_was_printed() -> None:
    work = (
        "import atexit, concurrent.futures as futures; atexit.register(print, 'handler'); print('out')\n"
        "    threading.Thread(target=lambda: (time.sleep(0.2), print('thread'))).start()\n"
        "    busy.pool = futures.ThreadPoolExecutor(1); busy.pool.submit(int)\n"
        "    return 1"
    )
    done = subprocess.run(
        [sys.executable, "-c", SLOW_IMPORT.format(work=work)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (1, ["out", "thread", "handler"], "")


@pytest.mark.parametrize(
    ("number", "work"),
    [
        (signal.SIGINT, "time.sleep(30)"),
        (signal.SIGTERM, "time.sleep(30)"),
        (signal.SIGINT, "threading.Thread(target=time.sleep, args=(30,)).start(); time.sleep(30)"),
        # A library that takes the interruption for something else, and one that takes its time.
        (signal.SIGINT, "\n    try: time.sleep(30)\n    except BaseException: raise ImportError('half a module')"),
        (signal.SIGINT, "\n    try: time.sleep(30)\n    except BaseException: time.sleep(30)"),
    ],
)
def test_an_interruption_ends_the_process_within_a_second(number: int, work: str, tmp_path: Path) -> None:
    written = (
        "from voxnest.files import atomic_write; block = atomic_write('x'); block.__enter__(); print(1, flush=True); "
    )
    command = [sys.executable, "-c", SLOW_IMPORT.format(work=written + work)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=20) == 128 + number
        assert time.monotonic() - start < 1.5
        assert process.stderr.read() == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_closes_early_is_no_answer(tmp_path: Path) -> None:
    command = f"{sys.executable} -m voxnest models weights --json | true; exit ${{PIPESTATUS[0]}}"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert shown.returncode in (0, 2)  # by whether anything was still to be written when the reader left
    assert "Traceback" not in shown.stderr
    assert "Exception ignored" not in shown.stderr


@pytest.mark.slow
def test_the_demo_goes_from_nothing_to_a_verification(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voxnest.cli.demo.TRAIN_SPEAKERS", 8)  # how many is not the point here
    monkeypatch.setattr("voxnest.cli.demo.TEST_SPEAKERS", 3)
    folder = tmp_path / "demo"
    status, shown, errors = run("demo", folder, "--minutes", "0.05")
    assert status == 0, errors
    for step in ("voxnest prepare", "voxnest train", "voxnest evaluate", "voxnest verify", "Next"):
        assert step in shown
    assert (folder / "results.json").exists()
    assert (folder / "det.png").read_bytes().startswith(b"\x89PNG")
    status, again, errors = run("demo", folder, "--minutes", "0.05")
    assert status == 0, errors
    assert "already finished" in again


def test_models_fit_80_columns_and_are_told_as_json(run: Run) -> None:
    for options in ([], ["weights"], ["check"]):
        shown = CliRunner().invoke(app.app, ["models", *options], env={"COLUMNS": "80"})
        assert shown.exit_code == 0
        assert max(map(len, shown.output.splitlines())) <= 80, options
    assert "redimnet-b6" in run("models")[1]
    listed = json.loads(run("models", "--json")[1])
    assert {"name", "parameters", "macs_2s", "eer"} <= set(listed[0])
    weights = json.loads(run("models", "weights", "--json")[1])
    assert weights[0]["address"].startswith("https://")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--json", "check"], "--json before the command (expected voxnest models check --json)"),
        (["chekc"], "no such command 'chekc' (expected 'check'"),
        (["--check"], "no such option --check (expected "),
        (["plot", "x.txt"], "x.txt"),
        (["plot"], "missing argument 'FILE'"),
    ],
)
def test_wrong_words_after_models_are_one_line(run: Run, words: list[str], said: str) -> None:
    status, shown, errors = run("models", *words)
    assert (status, shown, len(errors.splitlines())) == (2, "", 1)
    assert said in errors


def test_counts_agree_with_the_published_ones_or_say_why(run: Run) -> None:
    status, shown, _ = run("models", "check")
    assert status == 0
    assert "redimnet2-b6" in shown
    assert "redimnet-b5: the released checkpoint holds 7.66 M" in shown


def test_an_unexplained_difference_of_counts_is_an_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = CARDS["redimnet-b5"]
    unexplained = replace(card, published=replace(card.published, note=""))
    monkeypatch.setattr("voxnest.zoo.registry.CARDS", {"redimnet-b5": unexplained})
    monkeypatch.setattr("voxnest.zoo.counting.CARDS", {"redimnet-b5": unexplained})
    assert main.run(lambda: app.app(["models", "check"], standalone_mode=False)) == 1
    assert "redimnet-b5: not explained" in capsys.readouterr().out
