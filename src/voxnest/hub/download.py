"""Download published weights once, whole and verified, and keep them.

Files lie in `weights/<architecture>/` of the cache folder (`voxnest.files.cache_folder`), trial lists in `lists/`.
Beside each is `<file>.sha256`, its digest when it was first used. A file gets its name only when it is complete; until
then it is `<file>.part`, with what is needed to resume in `<file>.part.json`.
"""

import hashlib
import http.client
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, build_opener

from voxnest import __version__
from voxnest.errors import CheckpointError, ConfigError
from voxnest.files import atomic_write, cache_folder
from voxnest.hub.releases import Release

TIMEOUT = 10.0
"""Seconds without a byte after which a connection is given up."""

ATTEMPTS = 3
"""How often to try without getting a single byte further."""

BACKOFF = 0.5
"""Seconds before the second attempt, doubled before each further one."""

Check = Callable[[Path, str], None]
"""Refuses a file that came from an address, by a `CheckpointError`."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 18


def weights_folder() -> Path:
    """Where downloaded weights are kept."""
    return cache_folder() / "weights"


def cached_path(release: Release) -> Path:
    """Where `fetch` puts the file of a release."""
    return weights_folder() / release.family.architecture / release.file


def fetch(release: Release, *, progress: bool = True, sha256: str | None = None) -> Path:
    """The file of a release, downloaded if it is not there yet. With the file there, no request is made.

    An interrupted download goes on where it broke off, if the server can tell that the file is still the same. Two
    processes at once download one after the other, so the second finds the file. Proxies are those that the environment
    names; `VOXNEST_MIRROR=https://host/prefix/` takes the place of the release's address.

    Args:
        release: see `voxnest.hub.releases`.
        progress: show a bar on stderr.
        sha256: what the file's digest must be, in hexadecimal.

    Raises:
        CheckpointError: if the file cannot be had, or is not what it was when first used; nothing half-written remains
            under its name.
        ConfigError: if `VOXNEST_MIRROR` is not an http(s) address.
    """
    return _fetch(release.address, cached_path(release), _check_weights, progress, sha256)


def fetch_list(address: str, file: str, *, progress: bool = True, sha256: str | None = None) -> Path:
    """A published list, such as one of trials, downloaded if it is not there yet, as `fetch` does.

    Args:
        address: of the file; `VOXNEST_MIRROR` takes the place of all before its name.
        file: its name in the folder of lists, and in a mirror.
        progress: show a bar on stderr.
        sha256: what the file's digest must be, in hexadecimal.

    Raises:
        CheckpointError: as `fetch`.
        ConfigError: as `fetch`.
    """
    return _fetch(address, cache_folder() / "lists" / file, _check_text, progress, sha256)


def fetch_file(address: str, path: Path, *, progress: bool = True) -> Path:
    """A file of a corpus, downloaded as `fetch` does, to a place outside of the cache.

    Of these, which may be large, no digest is kept; one that is there is not read again.

    Args:
        address: of the file; `VOXNEST_MIRROR` takes the place of all before its name.
        path: where it goes; its name is the one it has in a mirror.
        progress: show a bar on stderr.

    Raises:
        CheckpointError: as `fetch`; its `__cause__` is the `HTTPError` of a server that refuses.
        ConfigError: as `fetch`.
    """
    check = _check_text if path.suffix in (".csv", ".txt") else _check_bytes
    return _fetch(address, path, check, progress, None, remember=False)


def _fetch(
    address: str, path: Path, check: Check, progress: bool, sha256: str | None, *, remember: bool = True
) -> Path:
    try:
        if not path.exists():
            from filelock import FileLock  # here, for most models are there already

            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():  # another process may have been here meanwhile
                    _download(_mirrored(address, path.name), path, check, progress, sha256, remember)
                    return path
        if remember:
            check_digest(path, sha256)
            _check_recorded(path, file_digest(path))
    except OSError as error:
        raise CheckpointError(error.filename or path, f"cannot be written or read: {error.strerror}") from error
    return path


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_digest(path: Path, sha256: str | None) -> None:
    """Compare a file with the digest its user wants.

    Raises:
        CheckpointError: if it has another.
    """
    if sha256 is not None and (found := file_digest(path)) != sha256.lower():
        raise CheckpointError(path, f"SHA-256 is {found}", sha256.lower())


def _check_recorded(path: Path, digest: str, *, downloaded: bool = False) -> None:
    """Compare with the digest of the file's first use, or record it if this is the first."""
    record = path.with_name(path.name + ".sha256")
    if not record.exists():
        with atomic_write(record) as temporary:
            temporary.write_text(f"{digest}  {path.name}\n")
        return
    recorded = record.read_text().split(" ")[0]
    if digest != recorded:
        what = "the download differs from the file first used" if downloaded else "has changed since its first use"
        raise CheckpointError(
            path, f"{what}: SHA-256 is {digest}", f"{recorded}; delete the file, or if the change is right, {record}"
        )


def _mirrored(address: str, name: str) -> str:
    mirror = os.environ.get("VOXNEST_MIRROR")
    if not mirror:
        return address
    if urlsplit(mirror).scheme not in ("http", "https"):
        raise ConfigError("VOXNEST_MIRROR", repr(mirror), "an address such as https://host/prefix/")
    return mirror.rstrip("/") + "/" + name


def _download(address: str, path: Path, check: Check, progress: bool, sha256: str | None, remember: bool) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    part = _Part(path, address, check)
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description}"), *columns, console=console, disable=not progress) as bar:
        task = bar.add_task(path.name, total=None)
        failures, furthest = 0, part.size
        while True:
            try:
                for total in part.transfer():
                    bar.update(task, completed=part.size, total=total)
                break
            except HTTPError as error:
                problem = f"the server answers {error.code} {error.reason}"
                if error.code not in _PASSING:
                    raise CheckpointError(address, problem, f"a file {path.name} there{_elsewhere(path)}") from error
            except URLError as error:
                problem = f"cannot be reached: {_reason(error.reason)}"
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, OSError) and error.filename is not None:
                    raise  # the disk's trouble, not the connection's
                problem = f"the connection broke at {part.size} bytes: {_reason(error)}"
            failures = 0 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures >= ATTEMPTS:
                kept = "; what has come is kept for the next try" if part.size else ""
                raise CheckpointError(address, problem, f"a whole file{kept}{_elsewhere(path)}")
            time.sleep(BACKOFF * 2 ** max(failures - 1, 0))
    part.finish(sha256, remember)


def _elsewhere(path: Path) -> str:
    """What to do without that server: on a machine that is offline, say."""
    return f". Without a connection: put the file at {path}, or name a mirror, VOXNEST_MIRROR=https://host/prefix/"


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} s"
    return " ".join(str(error).split()) or type(error).__name__


class _Part:
    """A file on its way: its bytes so far, and the validator that tells whether the rest belongs to them."""

    def __init__(self, path: Path, address: str, check: Check) -> None:
        self.path, self.address, self.check = path, address, check
        self.file = path.with_name(path.name + ".part")
        self.notes = path.with_name(path.name + ".part.json")
        self.total: int | None = None
        self.validator: str | None = None
        notes = self._read_notes()
        if notes.get("address") == address and notes.get("validator"):
            self.total, self.validator = notes.get("total"), notes["validator"]
        else:
            self.restart()

    @property
    def size(self) -> int:
        return self.file.stat().st_size if self.file.exists() else 0

    def restart(self) -> None:
        self.file.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.total = self.validator = None

    def transfer(self) -> Iterator[int | None]:
        """Fetch what is missing; yields the size of the whole, if known, after every piece.

        Raises:
            OSError, http.client.HTTPException: if the connection fails or breaks; what has come is kept.
        """
        start = self.size
        if start and start == self.total:
            return
        headers = {"User-Agent": f"voxnest/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            response = build_opener().open(Request(self.address, headers=headers), timeout=TIMEOUT)
        except HTTPError as error:
            if error.code == 416:  # what we have is longer than the file now is
                self.restart()
                raise ConnectionError("the file on the server has changed") from error
            raise
        with response:
            validator = _validator(response.headers)
            if response.status == 206 and start:
                first, total = _content_range(response.headers)
                # A server may leave out the date that we sent it.
                if first != start or total != self.total or validator not in (None, self.validator):
                    self.restart()
                    raise ConnectionError("the file on the server has changed")
            else:
                self.restart()
                length = response.headers.get("Content-Length")
                self.total, self.validator = None if length is None else int(length), validator
                with atomic_write(self.notes) as temporary:
                    notes = {"address": self.address, "total": self.total, "validator": validator}
                    temporary.write_text(json.dumps(notes))
            with self.file.open("ab") as file:
                while chunk := response.read1(_CHUNK):
                    self._write(file, chunk)
                    yield self.total
        if self.total is not None and self.size < self.total:
            raise ConnectionError(f"{self.total - self.size} bytes are missing")

    def _write(self, file: IO[bytes], chunk: bytes) -> None:
        try:
            file.write(chunk)
            file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.file)) from error

    def finish(self, sha256: str | None, remember: bool) -> None:
        """Verify, record the digest if it is to be remembered, and give the file its name."""
        try:
            if self.total is not None and self.size != self.total:
                raise CheckpointError(self.address, f"{self.size} bytes", f"{self.total}")
            self.check(self.file, self.address)
            if remember:
                digest = file_digest(self.file)
                if sha256 is not None and digest != sha256.lower():
                    raise CheckpointError(self.address, f"SHA-256 is {digest}", sha256.lower())
                _check_recorded(self.path, digest, downloaded=True)
        except CheckpointError:
            self.restart()
            raise
        with self.file.open("rb") as file:
            os.fsync(file.fileno())
        self.file.replace(self.path)
        self.notes.unlink(missing_ok=True)

    def _read_notes(self) -> dict[str, Any]:
        try:
            notes = json.loads(self.notes.read_text())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}


def _check_weights(file: Path, address: str) -> None:
    """A page in place of a file (a login, say), or a damaged file, must not be kept as weights."""
    expected = "a file of PyTorch weights"
    with file.open("rb") as opened:
        start = opened.read(16)
    if start.startswith(b"\x80"):  # a bare pickle: PyTorch's format before 1.6
        return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise CheckpointError(address, f"the server sent something else, {start!r}...", expected) from error
    if damaged:
        raise CheckpointError(address, f"{damaged} in it is damaged", expected)


def _check_text(file: Path, address: str) -> None:
    """Nor must a page be kept as a list."""
    with file.open("rb") as opened:
        start = opened.read(256)
    if b"\0" in start or start.lstrip().startswith(b"<") or not start.strip():
        raise CheckpointError(address, f"the server sent something else, {start[:16]!r}...", "a list, as lines of text")


def _check_bytes(file: Path, address: str) -> None:
    """Nor as a piece of an archive, of which nothing else is known."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if start.lstrip().startswith(b"<") or not start:
        raise CheckpointError(address, f"the server sent something else, {start[:16]!r}...", "an archive")


def _validator(headers: http.client.HTTPMessage) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _content_range(headers: http.client.HTTPMessage) -> tuple[int | None, int | None]:
    """First byte and size of the whole, of a header such as `bytes 100-199/200`."""
    try:
        span, total = headers.get("Content-Range", "").removeprefix("bytes ").split("/")
        return int(span.split("-")[0]), int(total)
    except ValueError:
        return None, None
