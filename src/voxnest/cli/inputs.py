"""Recordings that come through a pipe."""

import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from voxnest.errors import AudioError, ConfigError, VoxnestError

STANDARD_INPUT = "-"
"""The name of an input that is the standard input."""


def label(name: str) -> str:
    """What to call an input in a message."""
    return "standard input" if name == STANDARD_INPUT else name


@contextmanager
def readable(*names: str) -> Iterator[dict[str, str]]:
    """Give `{name: file}`, files that can be read again and from any place.

    What comes through a pipe ("-", a FIFO, `<(...)` of a shell) is copied to a temporary file, which is removed
    afterwards; other names are their own files. A `VoxnestError` of the block names what was given.

    Raises:
        AudioError: standard input is closed or a terminal.
        ConfigError: standard input is given twice.
    """
    if names.count(STANDARD_INPUT) > 1:
        raise ConfigError("standard input", "given twice", "one recording from it, and a file")
    with ExitStack() as stack:
        files = {}
        for name in dict.fromkeys(names):
            files[name] = name
            if name == STANDARD_INPUT or _is_pipe(name):
                folder = stack.enter_context(TemporaryDirectory(prefix="voxnest-"))
                files[name] = str(Path(folder, f"recording{Path(name).suffix}"))
                _spool(name, files[name])
        try:
            yield files
        except VoxnestError as error:
            texts = [error.subject, error.found, error.expected]
            for name, file in files.items():
                if file != name:
                    texts = [text.replace(file, label(name)) for text in texts]
            raise type(error)(*texts) from error


def _is_pipe(name: str) -> bool:
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _spool(name: str, file: str) -> None:
    with open(file, "wb") as target:
        if name != STANDARD_INPUT:
            with open(name, "rb") as source:
                shutil.copyfileobj(source, target)
        elif sys.stdin is None or sys.stdin.isatty():
            found = "is closed" if sys.stdin is None else "is a terminal"
            raise AudioError("standard input", found, "a recording, as in `... | voxnest verify - b.wav`")
        else:
            shutil.copyfileobj(sys.stdin.buffer, target)
