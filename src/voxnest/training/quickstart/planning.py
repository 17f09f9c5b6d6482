"""Compare a folder with what a quickstart needs: what is there, what is left to do, what that takes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from voxnest.audio.folders import walk
from voxnest.corpora.prepare import STATISTICS
from voxnest.errors import ConfigError
from voxnest.hub.download import cached_path
from voxnest.hub.releases import find_release, names_release
from voxnest.training.config import TrainingConfig
from voxnest.training.folder import RunFolder
from voxnest.training.quickstart.pieces import ARCHIVES, LISTS, Download, Piece, Pieces
from voxnest.training.quickstart.unpacking import free_bytes
from voxnest.training.settings import load_config

CONFIG = "training.yaml"
MANIFEST = "manifest"
RUN = "run"
SPARE = 3_000_000_000
"""Bytes on disk for manifests and the run."""
BASE_MEMORY, UTTERANCE_MEMORY = 2_000_000_000, 2_000
"""Bytes in memory that a training needs, and for each utterance of its manifest."""


@dataclass(frozen=True)
class State:
    """How far a piece is.

    Attributes:
        piece: of the table.
        fetched: bytes of each of its downloads that are there, also of unfinished ones.
        whole: which of them are finished.
        recordings: that are unpacked.
        speakers: that they are of.
    """

    piece: Piece
    fetched: tuple[int, ...]
    whole: tuple[bool, ...]
    recordings: int
    speakers: frozenset[str]

    @property
    def complete(self) -> bool:
        """Whether the numbers are the official ones."""
        piece = self.piece
        return self.recordings == piece.recordings and piece.speakers in (None, len(self.speakers))

    def finished(self, allow_missing: bool) -> bool:
        """Whether nothing is to be done; recordings put there by hand, without an archive, may be fewer if allowed."""
        return self.complete or (allow_missing and self.recordings > 0 and not any(self.fetched))

    @property
    def to_download(self) -> int:
        """Bytes, about."""
        sizes = zip(self.piece.downloads, self.fetched, self.whole, strict=True)
        return sum(max(0, item.size - fetched) for item, fetched, whole in sizes if not whole)

    @property
    def to_unpack(self) -> int:
        """Bytes, about."""
        return int(self.piece.unpacked * max(0.0, 1 - self.recordings / self.piece.recordings))


@dataclass(frozen=True)
class Row:
    """A line of a plan: what it is about, its size in bytes (None: not known), what is there, what is to be done."""

    what: str
    size: int | None
    there: str
    todo: str


@dataclass(frozen=True)
class Plan:
    """What is there and what is left to do.

    Attributes:
        root: the folder of the quickstart.
        pieces: what is needed.
        states: of the pieces in archives.
        config: of the training.
        allow_missing: whether incomplete corpora are taken as they are.
    """

    root: Path
    pieces: Pieces
    states: tuple[State, ...]
    config: TrainingConfig
    allow_missing: bool

    @property
    def lists(self) -> list[Download]:
        """The lists that are not there."""
        wanted = [] if trials_path(self.pieces, self.root).exists() else [self.pieces.trials]
        return [*wanted, *(item for item in self.pieces.metas if not (self.root / LISTS / item.name).exists())]

    @property
    def unfinished(self) -> list[State]:
        """The pieces that are to be downloaded or unpacked."""
        return [state for state in self.states if not state.finished(self.allow_missing)]

    @property
    def download(self) -> int:
        """Bytes to download, about."""
        return sum(state.to_download for state in self.unfinished) + sum(item.size for item in self.lists)

    @property
    def needed(self) -> int:
        """Bytes of disk that are still needed, about: archives and what is in them together."""
        return self.download + sum(state.to_unpack for state in self.unfinished) + SPARE

    @cached_property
    def free(self) -> int:
        """Bytes free on the disk."""
        return free_bytes(self.root)

    @property
    def memory(self) -> int:
        """Bytes of memory that this machine has."""
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    @property
    def memory_needed(self) -> int:
        """Bytes of memory that the training needs, about."""
        caches = self.config.data.cache_gb + self.config.augmentation.noise_cache_gb
        return BASE_MEMORY + UTTERANCE_MEMORY * self.pieces.train.recordings + int(1e9 * caches)

    def check(self) -> None:
        """Refuse to begin what could not be ended.

        Raises:
            ConfigError: the disk or the memory is too small.
        """
        if self.free < self.needed:
            expected = f"{_gb(self.needed)} for archives and what is in them"
            raise ConfigError(self.root, f"has {_gb(self.free)} free", expected)
        if self.memory < self.memory_needed:
            expected = f"{_gb(self.memory_needed)}; less with data.cache_gb=0 augmentation.noise_cache_gb=0.1"
            raise ConfigError("memory", f"{_gb(self.memory)}", expected)

    def rows(self) -> list[Row]:
        """The plan as a table."""
        return [*map(self._row, self.states), *self._list_rows(), *self._training_rows()]

    def _row(self, state: State) -> Row:
        piece = state.piece
        if state.recordings:
            there = f"{state.recordings:,} of {piece.recordings:,} recordings"
        elif any(state.fetched):
            parts = f"{sum(state.whole)} of {len(state.whole)} parts, " if len(state.whole) > 1 else ""
            there = f"{parts}{_gb(sum(state.fetched))}"
        else:
            there = "no"
        if state.finished(self.allow_missing):
            todo = "" if state.complete else "taken as it is"
        else:
            todo = "unpack, count" if all(state.whole) else f"download {_gb(state.to_download)}, unpack, count"
        return Row(piece.title, piece.size, there, todo)

    def _list_rows(self) -> list[Row]:
        missing = self.lists
        trials = trials_path(self.pieces, self.root)
        rows = [Row(trials.name, self.pieces.trials.size, *_there(self.pieces.trials not in missing))]
        return rows + [Row(item.name, item.size, *_there(item not in missing)) for item in self.pieces.metas]

    def _training_rows(self) -> list[Row]:
        rows = []
        if (start := self.config.init_from) and names_release(start):
            rows.append(Row(f"weights {start}", None, *_there(cached_path(find_release(start)).exists())))
        train = next(state for state in self.states if state.piece is self.pieces.train)
        prepared = is_prepared(self.root, train.recordings)
        rows.append(Row("manifest", None, "yes" if prepared else "no", "" if prepared else "prepare"))
        assert self.config.output is not None
        run = RunFolder(self.config.output)
        there, todo = "no", "train"
        if run.read_result() is not None:
            there, todo = "finished", ""
        elif run.checkpoint.exists():
            there, todo = "unfinished", "train on"
        return [*rows, Row("run", None, there, todo)]


def make_plan(
    pieces: Pieces,
    root: Path,
    source: Path,
    overrides: Sequence[str] = (),
    *,
    allow_missing: bool = False,
) -> Plan:
    """Look at a folder.

    Args:
        pieces: what is needed.
        root: the folder of the quickstart, which need not be there.
        source: a configuration, whose places are replaced by those in `root`, unless it is the one written there.
        overrides: of it, `key=value`; these come last.
        allow_missing: take corpora as they are that have no archive.

    Raises:
        ConfigError: the configuration is wrong.
    """
    here = [] if source == root / CONFIG else places(pieces, root)
    config = load_config(source, [*here, *overrides])
    states = tuple(look(piece, root) for piece in pieces.archived)
    return Plan(root, pieces, states, config, allow_missing)


def places(pieces: Pieces, root: Path) -> list[str]:
    """Where a training finds everything, as overrides of its configuration."""
    values: dict[str, Any] = {
        "output": str(root / RUN),
        "data.train": str(root / MANIFEST),
        "data.validation": {"trials": str(trials_path(pieces, root)), "root": str(root / pieces.test.corpus)},
        "augmentation.noise": [str(root / folder) for folder in pieces.noises],
        "augmentation.rirs": [str(root / pieces.rooms.corpus)],
    }
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def look(piece: Piece, root: Path) -> State:
    """See how far a piece is, by the files that are there."""
    paths = [root / ARCHIVES / item.name for item in piece.downloads]
    whole = tuple(path.exists() for path in paths)
    fetched = tuple(_size(path) or _size(path.with_name(path.name + ".part")) for path in paths)
    corpus = root / piece.corpus
    found = list(walk(corpus)) if corpus.is_dir() else []
    return State(piece, fetched, whole, len(found), frozenset(path.partition("/")[0] for path in found))


def trials_path(pieces: Pieces, root: Path) -> Path:
    """The trial list that is there, or the one that is to be downloaded."""
    names = (pieces.trials.name, *pieces.other_trials)
    there = (path for name in names if (path := root / LISTS / name).exists())
    return next(there, root / LISTS / pieces.trials.name)


def is_prepared(root: Path, recordings: int) -> bool:
    """Whether there is a manifest of so many recordings, those that cannot be read included."""
    try:
        numbers = json.loads((root / MANIFEST / STATISTICS).read_text(encoding="utf-8"))
        return recordings == numbers["recordings"] + numbers["unreadable"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def gpus() -> list[tuple[str, int]]:
    """Name and bytes of memory of each GPU."""
    import torch

    found = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return [(one.name, one.total_memory) for one in found]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _there(there: bool) -> tuple[str, str]:
    return ("yes", "") if there else ("no", "download")


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
