"""Find the recordings in a folder."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

_PLAIN = (".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".caf", ".sph")
_OTHER = (".mp3", ".m4a", ".aac", ".mp4", ".mov", ".webm", ".mka", ".mkv", ".wma", ".amr")
AUDIO_SUFFIXES = frozenset(_PLAIN + _OTHER)
"""How names of recordings end (lower case), for searching through a folder."""


Tell = Callable[[Path, str], None]
"""Called with a place and what is the matter with it."""


def list_recordings(folder: str | Path, unlisted: Tell | None = None, repeated: Tell | None = None) -> list[Path]:
    """The recordings in a folder, in order; see `walk`."""
    return sorted(Path(folder, path) for path in walk(folder, unlisted, repeated))


def walk(root: str | Path, unlisted: Tell | None = None, repeated: Tell | None = None) -> Iterator[str]:
    """The recordings in a folder, at all depths and in no order, by how their names end.

    Names that begin with "." and `__MACOSX` are left out. Linked folders are followed; a folder that can be reached
    in several ways is searched once, under its own name if that lies in `root`. What is named like a recording need
    not be a file.

    Args:
        root: where to search.
        unlisted: called with each place that cannot be searched, and why: a folder that may not be read (`root` too),
            links that go in a circle. All else is searched in spite of it.
        repeated: called with each link to a folder that is searched already, through which nothing is missed.

    Yields:
        Paths relative to `root`, each as soon as it is found: no more than the folders are kept.
    """
    unlisted, repeated = unlisted or _ignore, repeated or _ignore
    seen: set[tuple[int, int]] = set()
    folders, links = deque([""]), deque[str]()
    while folders or links:
        folder = (folders or links).popleft()
        place = os.path.join(root, folder)
        try:
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                repeated(Path(place), f"is a link to {os.path.realpath(place)}, which is searched already")
                continue
            seen.add((status.st_dev, status.st_ino))
            inside = os.scandir(place)
        except OSError as error:
            unlisted(Path(place), f"cannot be listed: {error.strerror}")
            continue
        below: list[tuple[str, bool]] = []
        with inside:
            for item in _listed(inside, unlisted, Path(place)):
                if item.name.startswith(".") or item.name == "__MACOSX":
                    continue
                path = f"{folder}/{item.name}" if folder else item.name
                try:
                    if item.is_dir():
                        below.append((path, item.is_symlink()))
                    elif os.path.splitext(item.name)[1].lower() in AUDIO_SUFFIXES:
                        yield path
                except OSError as error:
                    unlisted(Path(item.path), f"cannot be followed: {error.strerror}")
        for path, is_link in sorted(below):
            (links if is_link else folders).append(path)


def _listed(inside: Iterator[os.DirEntry[str]], unlisted: Tell, place: Path) -> Iterator[os.DirEntry[str]]:
    """What a folder holds, up to where it cannot be read."""
    try:
        yield from inside
    except OSError as error:
        unlisted(place, f"cannot be listed: {error.strerror}")


def _ignore(place: Path, reason: str) -> None:
    pass
