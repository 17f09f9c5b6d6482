"""Write files so that a reader never sees half of one, and so that what a name leads to is written, never replaced."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxnest.errors import ConfigError, VoxnestError

STANDARD_OUTPUT = "-"
"""The name of an output that is the standard output."""

_unfinished: set[Path] = set()


def cache_folder() -> Path:
    """Where voxnest keeps things: `VOXNEST_HOME`, or `voxnest` in `XDG_CACHE_HOME`, else in `~/.cache`."""
    if home := os.environ.get("VOXNEST_HOME"):
        return Path(home).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "voxnest"


def is_stream(path: str | Path) -> bool:
    """Whether an output is "-", a FIFO, a socket or a device: bytes go through it, and it cannot be replaced."""
    if str(path) == STANDARD_OUTPUT:
        return True
    # What /dev/stdout leads to may be a file, but it is the open one that is meant, at the place where it is.
    if Path(path).absolute().is_relative_to("/dev") or Path(path).absolute().is_relative_to("/proc"):
        return not Path(path).is_dir()
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_output(path: str | Path, *suffixes: str) -> None:
    """Refuse an output that could not be written, before hours are spent on what should be in it.

    Args:
        path: of a file that may exist, or what `is_stream` knows.
        suffixes: one of these its name must have, such as ".png"; that of a stream does not matter.

    Raises:
        ConfigError: it says why.
    """
    if is_stream(path):
        if str(path) != STANDARD_OUTPUT and not os.access(path, os.W_OK):
            raise ConfigError(path, "cannot be written", "an output that is there and that you may write to")
        return
    target = _target(path)
    folder = next(parent for parent in target.parents if parent.exists())
    if target.is_dir():
        raise ConfigError(path, "is a folder", "a file to write")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(path, f"cannot be written in {folder}", "a file in a folder that you may write to")
    if suffixes and Path(path).suffix.lower() not in suffixes:
        endings = " or ".join(suffixes)
        raise ConfigError(path, f"ends in {Path(path).suffix or 'nothing'}", f"a name that ends in {endings}")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path; what was written there becomes the content of `path` when the block succeeds.

    If the block raises (a full disk, say), the temporary file is removed and `path` keeps what it held. A link stays a
    link: the file that it leads to is replaced. A stream (see `is_stream`) gets the bytes at the end.
    The temporary name ends as `path` does, for writers that look at the ending.

    Raises:
        OSError: it cannot be written.
    """
    stream = is_stream(path)
    target = Path(path) if stream else _target(path)
    folder = Path(tempfile.gettempdir()) if stream else target.parent
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.stem}-", suffix=target.suffix)
    temporary = Path(name)
    _unfinished.add(temporary)
    os.close(handle)
    try:
        yield temporary
        if stream:
            _pour(temporary, target)
        else:
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only the owner can read
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
        _unfinished.discard(temporary)


@contextmanager
def writing(path: str | Path, error: type[VoxnestError] = VoxnestError, expected: str = "") -> Iterator[None]:
    """Around the writing of a file or folder: what the system refuses (a full disk, say) is one line that names it.

    Args:
        path: what is written, by the name that the user knows.
        error: what to raise.
        expected: what would help.

    Raises:
        VoxnestError: of the type `error`, if it cannot be written.
    """
    try:
        yield
    except OSError as reason:
        raise error(path, f"cannot be written: {reason.strerror or reason}", expected) from reason


def discard_unfinished() -> None:
    """Remove the temporary files of all `atomic_write` blocks: for a process that ends without leaving them."""
    for path in list(_unfinished):
        path.unlink(missing_ok=True)


def _target(path: str | Path) -> Path:
    """The file that a path leads to, through links; it may not exist yet."""
    return Path(os.path.realpath(path))


def _pour(source: Path, stream: Path) -> None:
    with source.open("rb") as file:
        if str(stream) == STANDARD_OUTPUT:
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.flush()
        else:
            # To the end of what is there already: /dev/stdout may be a file that a shell appends to.
            handle = os.open(stream, os.O_WRONLY | os.O_APPEND)
            with os.fdopen(handle, "wb") as output:
                shutil.copyfileobj(file, output)
