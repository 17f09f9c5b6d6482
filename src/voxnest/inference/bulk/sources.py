"""Which recordings a caller means, one after the other: files, folders, patterns, manifests, lists."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from voxnest.audio.folders import walk
from voxnest.corpora.manifest import is_manifest, stream_manifest
from voxnest.errors import AudioError, CorpusError
from voxnest.inference.pipeline import Span

LISTS = (".txt", ".lst", ".list", ".scp")
"""How names of lists end."""

STANDARD_INPUT = "-"

Named = tuple[str, Span]
Failed = Callable[[str, str], None]
"""Called with a place, or a line of a list, and why there is no recording."""


def find_spans(places: Iterable[str], failed: Failed, *, in_order: bool = False) -> Iterator[Named]:
    """Names of recordings and where they are, each as soon as it is found; one that is named twice comes twice.

    A place is a recording, a folder (searched at all depths), a pattern, the folder of a manifest (names are the ids of
    its utterances), a list (its name ends as one of `LISTS`), or "-", a list on standard input. A line of a list is a
    path, or an id, a blank and a path, as in Kaldi's wav.scp. Relative paths of a list in a file start at its folder if
    the first of them exists there, else at the current folder.

    Args:
        places: where to look.
        failed: called with what cannot be used; all else is found in spite of it.
        in_order: recordings of a folder come in the order of their paths, which are in memory then.

    Raises:
        CorpusError: a malformed manifest, or a list that cannot be read.
    """
    for place in places:
        if place == STANDARD_INPUT:
            yield from _lines(_standard_input(), "standard input", [Path()], failed)
        elif os.path.isdir(place):
            if is_manifest(Path(place)):
                for _, item in stream_manifest(place):
                    yield item.id, Span(item.path, item.offset, item.duration)
            else:
                yield from _folder(place, failed, in_order)
        elif place.lower().endswith(LISTS):
            yield from _list(Path(place), failed)
        elif os.path.exists(place):  # a name may well hold [ or *
            yield place, Span(Path(place))
        else:
            for path in sorted(glob.glob(place, recursive=True)) or [place]:
                yield path, Span(Path(path))


def count_spans(places: Iterable[str]) -> int | None:
    """How many recordings `find_spans` gives; None if that cannot be told before."""
    if STANDARD_INPUT in places:
        return None
    return sum(1 for _ in find_spans(places, lambda *_: None))


def _folder(place: str, failed: Failed, in_order: bool) -> Iterator[Named]:
    unlisted: list[Path] = []

    def tell(folder: Path, reason: str) -> None:
        unlisted.append(folder)
        failed(str(folder), reason + " (expected a folder that you may read)" * (folder == Path(place)))

    empty = True
    paths = walk(place, tell)
    for path in sorted(paths) if in_order else paths:
        empty = False
        file = Path(place, path)
        yield str(file), Span(file)
    if empty and Path(place) not in unlisted:
        failed(place, "no recordings in it (expected files ending in .wav, .flac, .mp3, .m4a, ...)")


def _list(place: Path, failed: Failed) -> Iterator[Named]:
    try:
        with place.open("rb") as file:
            yield from _lines(file, str(place), [place.parent, Path()], failed)
    except OSError as error:
        raise CorpusError(place, error.strerror or str(error), "a list of recordings") from error


def _lines(file: BinaryIO, where: str, bases: list[Path], failed: Failed) -> Iterator[Named]:
    """What a list names; the first relative path tells which of `bases` it starts from, and so do all others."""
    kaldi = where.lower().endswith(".scp")
    for number, content in enumerate(file, start=1):
        line = os.fsdecode(content).strip()
        if not line:
            continue
        if line.endswith("|") or "\0" in line:
            failed(f"{where}:{number}", "no path (expected one, or an id, a blank and a path: commands are not run)")
            continue
        words = line.split(maxsplit=1)
        # Else it is a path with a blank in it.
        both = len(words) == 2 and (kaldi or not any(os.path.exists(base / line) for base in bases))
        name, path = words if both else (line, line)
        if len(bases) > 1 and not os.path.isabs(path):
            bases = [next((base for base in bases if os.path.exists(base / path)), bases[-1])]
        yield name, Span(bases[-1] / path)


def _standard_input() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        found = "is closed" if sys.stdin is None else "is a terminal"
        raise AudioError("standard input", found, "a list of recordings, such as find prints")
    return sys.stdin.buffer
