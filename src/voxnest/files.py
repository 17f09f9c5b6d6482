"""Write files so that a reader never sees half of one."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from voxnest.errors import ConfigError


def check_output(path: Path, suffix: str = "") -> None:
    """Refuse an output that could not be written, before hours are spent on what should be in it.

    Args:
        path: of a file that may exist.
        suffix: that its name must have, such as ".png".

    Raises:
        ConfigError: it says why.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir():
        raise ConfigError(path, "is a folder", "a file to write")
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(path, f"cannot be written in {folder}", "a file in a folder that you may write to")
    if suffix and path.suffix.lower() != suffix:
        raise ConfigError(path, f"ends in {path.suffix or 'nothing'}", f"a name that ends in {suffix}")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block succeeds.

    If the block raises (a full disk, say), the temporary file is removed and `path` keeps what it held.
    The temporary name ends as `path` does, for writers that look at the ending.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only the owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
