"""What shards look like on a disk: a file of this folder for each format."""

from __future__ import annotations

import os
import platform
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from voxnest.errors import ConfigError, CorpusError, one_of
from voxnest.inference.pipeline import Outcome

FORMATS = {
    "parquet": "voxnest.inference.bulk.parquet:Parquet",
    "kaldi": "voxnest.inference.bulk.kaldi:Kaldi",
    "lance": "voxnest.inference.bulk.lance:Lance",
}
UNFINISHED = ".tmp"
"""How the name of a file in a scratch folder ends."""


class Model(NamedTuple):
    """What embeddings are of.

    Attributes:
        name: of the model.
        digest: SHA-256, in hexadecimal, of all that they depend on.
        dim: how many numbers are kept of each.
    """

    name: str
    digest: str
    dim: int


class Format(ABC):
    """How shards lie in a folder."""

    needs: tuple[str, str] | None = None  # a library, and the extra of voxnest that brings it
    parallel = True  # whether several processes may write shards at once

    def check(self) -> None:
        """See that it can be used.

        Raises:
            ConfigError: a library is not installed.
        """
        if self.needs is not None and find_spec(self.needs[0]) is None:
            library, extra = self.needs
            raise ConfigError(extra, f"needs {library}, which is not installed", f"pip install 'voxnest[{extra}]'")

    def objection(self, name: str) -> str:
        """Why a recording cannot have that name; nothing if it can."""
        return ""

    @abstractmethod
    def write(self, folder: Path, number: int, model: Model, outcomes: Sequence[Outcome], scratch: Path) -> None:
        """Write a shard whole, or not at all.

        Args:
            folder: of the shards.
            number: of the shard.
            model: what embedded them.
            outcomes: recordings, each with an embedding.
            scratch: folder on the same disk for what is unfinished.

        Raises:
            OSError: it cannot be written.
        """

    @abstractmethod
    def keep(self, folder: Path, shards: Mapping[int, int]) -> set[int]:
        """Remove shards that are not known, and tell which of those that are known are gone.

        Args:
            folder: of the shards.
            shards: number -> recordings in it.
        """

    @abstractmethod
    def read(self, folder: Path) -> tuple[list[str], np.ndarray, str]:
        """Names, embeddings `[n, dim]` and the name of the model; "" if the format does not keep it.

        Raises:
            ValueError: what there is, is something else.
        """

    def finish(self, folder: Path) -> None:  # noqa: B027
        """Write what a folder has beside its shards; nothing in most formats."""


class FileFormat(Format):
    """Shards in files of their own, `part-NNNNN`; writing one again replaces it."""

    ending: str

    def write(self, folder: Path, number: int, model: Model, outcomes: Sequence[Outcome], scratch: Path) -> None:
        """See `Format`."""
        path = folder / f"part-{number:05d}{self.ending}"
        temporary = scratch / f"{path.name}.{platform.node()}-{os.getpid()}{UNFINISHED}"
        self.write_file(temporary, model, outcomes)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # it is about to be noted as written
        temporary.replace(path)

    def keep(self, folder: Path, shards: Mapping[int, int]) -> set[int]:
        """See `Format`."""
        there = {int(path.stem[5:]): path for path in self.files(folder)}
        for number in there.keys() - shards.keys():
            there[number].unlink()
        return shards.keys() - there.keys()

    def read(self, folder: Path) -> tuple[list[str], np.ndarray, str]:
        """See `Format`."""
        names: list[str] = []
        matrices: list[np.ndarray] = []
        models: set[str] = set()
        for path in self.files(folder):
            found, matrix, model = self.read_file(path)
            names += found
            matrices.append(matrix)
            models.add(model)
        if len(models) > 1:
            raise ValueError(f"embeddings of {' and '.join(sorted(models))}")
        return names, np.concatenate(matrices), models.pop()

    def files(self, folder: Path) -> list[Path]:
        """The files of shards, in order."""
        found = (path for path in folder.glob(f"part-*{self.ending}") if path.stem[5:].isdecimal())
        return sorted(found, key=lambda path: int(path.stem[5:]))

    @abstractmethod
    def write_file(self, path: Path, model: Model, outcomes: Sequence[Outcome]) -> None:
        """Write a shard."""

    @abstractmethod
    def read_file(self, path: Path) -> tuple[list[str], np.ndarray, str]:
        """As `read`, of one shard."""


def find_format(name: str) -> Format:
    """The format of a name of `FORMATS`.

    Raises:
        ConfigError: there is no such, or a library that it needs is not installed.
    """
    if name not in FORMATS:
        raise ConfigError("--format", repr(name), one_of(name, ["npz", *FORMATS]))
    module, _, kind = FORMATS[name].partition(":")
    found: Format = getattr(import_module(module), kind)()
    found.check()
    return found


def shards_format(folder: Path) -> str | None:
    """In which format a folder holds shards; None if it holds none."""
    kinds = {"parquet": "part-*.parquet", "kaldi": "part-*.ark", "lance": "_versions"}
    return next((name for name, pattern in kinds.items() if any(folder.glob(pattern))), None)


def read_shards(folder: Path) -> tuple[list[str], np.ndarray, str]:
    """See `Format.read`, of a folder in whatever format it is.

    Raises:
        CorpusError: it holds no shards.
        ConfigError: a library is not installed.
    """
    found = shards_format(folder)
    if found is None:
        raise CorpusError(folder, "no embeddings in it", "a folder that voxnest embed wrote")
    try:
        return find_format(found).read(folder)
    except (ValueError, KeyError, OSError) as error:
        raise CorpusError(folder, f"cannot be read: {error}", "embeddings as voxnest embed writes them") from error


def text(value: object) -> str:
    """A name or path as proper Unicode; bytes that are none are written as `\\xNN`."""
    return os.fsencode(str(value)).decode("utf-8", "backslashreplace")
