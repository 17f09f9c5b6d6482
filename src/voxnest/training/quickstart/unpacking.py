"""Unpack archives so that a kill loses nothing: whole members only, those that are there are not written again."""

import gzip
import io
import os
import shutil
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import IO, Any

from voxnest.errors import ConfigError, CorpusError
from voxnest.files import atomic_write

Progress = Callable[[int, int], None]
"""Called with the members looked at and their total, 0 if that is not known."""

_DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)
_CHUNK = 1 << 20


class Parts(io.RawIOBase):
    """Several files, read as the one that they were cut from.

    Args:
        paths: in order.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._stack = ExitStack()
        self._files = [self._stack.enter_context(path.open("rb")) for path in paths]
        self._starts = [0, *accumulate(path.stat().st_size for path in paths)]
        self._position = 0

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`; gives no more than is left of the part at the current position."""
        number = bisect_right(self._starts, self._position) - 1
        if number == len(self._files):
            return 0
        file = self._files[number]
        file.seek(self._position - self._starts[number])
        count = file.readinto(buffer)
        self._position += count
        return count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See `io.IOBase`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._starts[-1]}[whence]
        if start + offset < 0:
            raise OSError("it begins too late")  # what `zipfile` takes for the mark of a file that is too short
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._position

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def close(self) -> None:
        """Close all parts."""
        self._stack.close()
        super().close()


def unpack(parts: Sequence[Path], folder: Path, *, room: int = 0, progress: Progress | None = None) -> int:
    """Unpack a zip archive or a tar archive, which may be in parts.

    Args:
        parts: the files, in order.
        folder: where to; members that are there, of their size, are left as they are.
        room: bytes that are needed, of a tar archive, which does not tell before it is read.
        progress: see `Progress`.

    Returns:
        How many members were written.

    Raises:
        CorpusError: the archive is damaged, a member would leave the folder, or files cannot be written.
        ConfigError: the disk has not enough room.
    """
    name = parts[0].name if len(parts) == 1 else f"{parts[0].name} to {parts[-1].name}"
    archive = parts[0].with_name(name)
    written = done = 0
    try:
        with Parts(parts) as raw, io.BufferedReader(raw, _CHUNK) as file:
            members = _tar(file, folder, room) if ".tar" in parts[0].name else _zip(file, folder)
            with closing(members):
                for member, size, source, total in members:
                    path = _place(archive, folder, member)
                    if not _is_there(path, size):
                        _write(path, size, source)
                        written += 1
                    done += 1
                    if progress:
                        progress(done, total)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            found = f"cannot be unpacked: {error.strerror}"
            raise CorpusError(error.filename or archive, found, "room and permission to write") from error
        found = f"is damaged: {' '.join(str(error).split()) or type(error).__name__}"
        raise CorpusError(archive, found, "a whole archive; delete it, and run again to download it anew") from error
    return written


def check_room(folder: Path, needed: int) -> None:
    """Make sure that the disk of a folder, which need not be there yet, has so many bytes free.

    Raises:
        ConfigError: it has not.
    """
    free = free_bytes(folder)
    if free < needed:
        raise ConfigError(folder, f"has {free / 1e9:,.1f} GB free", f"{needed / 1e9:,.1f} GB for what is still to come")


def free_bytes(folder: Path) -> int:
    """Free on the disk of a folder, which need not be there yet."""
    return shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if place.exists())).free


_Member = tuple[str, int, Callable[[], IO[bytes]], int]
"""Its name, its size, what opens it, and how many members there are."""


def _zip(file: IO[bytes], folder: Path) -> Generator[_Member, None, None]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        there = (_is_there(folder / member.filename, member.file_size) for member in members)
        check_room(folder, sum(member.file_size for member, done in zip(members, there, strict=True) if not done))
        for member in members:
            if member.flag_bits & 1:
                raise zipfile.BadZipFile(f"{member.filename} is encrypted")
            yield member.filename, member.file_size, partial(archive.open, member), len(members)


def _tar(file: IO[bytes], folder: Path, room: int) -> Generator[_Member, None, None]:
    check_room(folder, room)
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            if member.isfile():
                yield member.name, member.size, partial(_content, archive, member), 0


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    assert file is not None  # of a regular file
    return file


def _place(archive: Path, folder: Path, name: str) -> Path:
    """Where a member goes, which is in the folder. Links in it are the user's: of archives none is made."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise CorpusError(archive, f"has a member {name!r}, which leaves the folder", "another archive")
    return folder / path


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _write(path: Path, size: int, source: Callable[[], IO[bytes]]) -> None:
    with source() as reading, atomic_write(path) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(reading, file, _CHUNK)
        if file.tell() != size:
            raise EOFError(f"{path.name} breaks off after {file.tell()} of {size} bytes")
