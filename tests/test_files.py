"""Outputs are whole or not there; what a name leads to is written, never replaced."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from voxnest.errors import ConfigError
from voxnest.files import atomic_write, check_output, discard_unfinished, is_stream


def write(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text)


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("old")
    with suppress(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path: Path) -> None:
    target, link = tmp_path / "deep" / "target.json", tmp_path / "link.json"
    target.parent.mkdir()
    link.symlink_to("deep/target.json")  # of a file that is not there yet
    for text in ("one", "two"):
        check_output(link, ".json")
        write(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["deep", "link.json", "target.json"]


def test_a_fifo_gets_the_bytes_and_stays_a_fifo(tmp_path: Path) -> None:
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    check_output(fifo, ".png")  # a stream's ending does not matter
    write(fifo, "through")
    reader.join(10)
    assert read == ["through"]
    assert fifo.is_fifo()


def test_a_device_is_not_replaced() -> None:
    check_output("/dev/null")
    write(Path("/dev/null"), "nothing")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/proc/self/fd/1"])
def test_standard_output_is_written_where_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    code = f"from tests.test_files import write, Path; write(Path({name!r}), 'now')"
    root = Path(__file__).parents[1]
    with path.open("a") as log:
        subprocess.run([sys.executable, "-c", code], cwd=root, stdout=log, check=True, timeout=60)
    assert path.read_text() == "before\nnow"
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_cannot_be_replaced_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_stream(tmp_path / "file")
    assert not is_stream(tmp_path / "new")
    assert not is_stream(tmp_path)
    assert not is_stream("/dev/shm")
    assert is_stream("-")
    assert is_stream("/dev/null")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("", "is a folder"),
        ("file/x.png", "cannot be written in"),
        ("x.txt", "ends in .txt"),
        ("x", "ends in nothing"),
        ("/dev/nothing/x.png", "cannot be written"),
        ("to-a-folder", "is a folder"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "to-a-folder").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=found):
        check_output(tmp_path / name, ".png", ".svg")


def test_a_process_that_must_end_leaves_no_temporary_file(tmp_path: Path) -> None:
    block = atomic_write(tmp_path / "x")
    assert block.__enter__().exists()
    discard_unfinished()
    assert list(tmp_path.iterdir()) == []
