"""One process in a folder at a time."""

from __future__ import annotations

import errno
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from voxnest.errors import ConfigError
from voxnest.files import atomic_write, writing

LOCK = ".lock"
RUNNING = "running.json"

_LINGER = 3.0  # seconds that processes which read data may outlive a training that was killed
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def locked(folder: Path, at_work: str) -> Iterator[None]:
    """Hold a folder, made if need be. The lock is the operating system's: it ends with the process, however that ends.

    Meanwhile `running.json` in the folder tells who holds it. Where a network disk knows no locks, nothing is held.

    Args:
        folder: to hold.
        at_work: what to say of a folder that another process holds, such as "is trained in".

    Raises:
        ConfigError: another process holds the folder; it tells which.
        VoxnestError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            lock.acquire(timeout=_LINGER if _is_gone(_owner(folder)) else 0)
        except Timeout as error:
            raise _refusal(folder, at_work) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    except NotImplementedError:  # what older versions of filelock make of ENOSYS
        pass
    running = folder / RUNNING
    owner = {
        "process": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
    try:
        with writing(running), atomic_write(running) as temporary:
            temporary.write_text(json.dumps(owner, indent=2) + "\n", encoding="utf-8")
        yield
    finally:
        running.unlink(missing_ok=True)
        lock.release()


def _owner(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / RUNNING).read_text(encoding="utf-8")))
    except (OSError, ValueError):  # it has not written it yet
        return {}


def _is_gone(owner: dict[str, object]) -> bool:
    if owner.get("host") != platform.node() or os.name != "posix":
        return False
    try:
        os.kill(int(str(owner["process"])), 0)
    except ProcessLookupError:
        return True
    except (KeyError, ValueError, OSError):
        pass
    return False


def _refusal(folder: Path, at_work: str) -> ConfigError:
    owner = _owner(folder)
    who = "process {process} on {host} since {since}: {command}".format_map(owner) if len(owner) == 4 else "another"
    return ConfigError(folder, f"{at_work} already, by {who}", "another folder, or to wait for its end")
