"""One training in a run folder at a time."""

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
from voxnest.training.folder import LOCK, RUNNING, write_json

_LINGER = 3.0  # seconds that processes which read data may outlive a training that was killed
_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder. The lock is the operating system's: it ends with the process, however that ends.

    Meanwhile `running.json` in the folder tells who holds it. Where a network disk knows no locks, nothing is held.

    Raises:
        ConfigError: another training holds the folder; it tells which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        try:
            lock.acquire(timeout=_LINGER if _is_gone(_owner(folder)) else 0)
        except Timeout as error:
            raise _refusal(folder) from error
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
        write_json(running, owner)
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


def _refusal(folder: Path) -> ConfigError:
    owner = _owner(folder)
    who = "process {process} on {host} since {since}: {command}".format_map(owner) if len(owner) == 4 else "another"
    return ConfigError(folder, f"is trained in already, by {who}", "another folder as `output`, or to wait for its end")
