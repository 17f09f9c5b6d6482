"""Shards as archives of Kaldi: vectors of float32 in binary, and `xvector.scp`, which tells where each is.

Source: the format as Kaldi's documentation has it (https://kaldi-asr.org/doc/io.html).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from voxnest.files import atomic_write
from voxnest.inference.bulk.formats import FileFormat, Model, text
from voxnest.inference.pipeline import Outcome

SCP = "xvector.scp"
_MARK = b"\0BFV \x04"  # binary, a vector of float32, and four bytes for its length


class Kaldi(FileFormat):
    """An archive for each shard; the paths in `xvector.scp` are absolute."""

    ending = ".ark"

    def objection(self, name: str) -> str:
        """See `FileFormat`."""
        return "has a blank in its id, which Kaldi does not allow" if len(name.split()) != 1 else ""

    def write_file(self, path: Path, model: Model, outcomes: Sequence[Outcome]) -> None:
        """See `FileFormat`."""
        with path.open("wb") as file:
            for outcome in outcomes:
                if outcome.embedding is not None:
                    numbers = outcome.embedding[: model.dim].astype("<f4")
                    file.write(text(outcome.name).encode() + b" " + _MARK + struct.pack("<i", len(numbers)))
                    file.write(numbers.tobytes())

    def finish(self, folder: Path) -> None:
        """See `FileFormat`."""
        with atomic_write(folder / SCP) as temporary, temporary.open("w", encoding="utf-8") as scp:
            for path in self.files(folder):
                for name, offset, _ in _vectors(path):
                    scp.write(f"{name} {path.absolute()}:{offset}\n")

    def read_file(self, path: Path) -> tuple[list[str], np.ndarray, str]:
        """See `FileFormat`."""
        found = list(_vectors(path))
        return [name for name, _, _ in found], np.stack([vector for _, _, vector in found]), ""


def _vectors(path: Path) -> Iterator[tuple[str, int, np.ndarray]]:
    """Names, where the vectors begin, and the vectors."""
    content = path.read_bytes()
    at = 0
    while at < len(content):
        begin = content.index(b" ", at) + 1
        start = begin + len(_MARK) + 4
        if content[begin : begin + len(_MARK)] != _MARK:
            raise ValueError(f"{path} holds something else than vectors of float32")
        end = start + 4 * struct.unpack("<i", content[start - 4 : start])[0]
        yield content[at : begin - 1].decode(), begin, np.frombuffer(content[start:end], "<f4")
        at = end
