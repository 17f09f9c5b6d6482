"""What an exported model tells of itself, in the ONNX file's metadata under the key "voxnest", as JSON.

This file needs neither torch nor onnx.
"""

from __future__ import annotations

import json
import math
import mmap
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from voxnest.errors import CheckpointError
from voxnest.scoring import Calibration

KEY = "voxnest"
_FORMAT = 1
_METADATA = 14  # the field of ONNX's ModelProto
_EXPECTED = "what voxnest export writes"


@dataclass(frozen=True)
class Description:
    """Of an exported model.

    Attributes:
        name: a label.
        architecture: the family of networks.
        sample_rate: in Hz.
        dims: sizes of embedding, ascending; the last one is what the graph gives.
        min_samples: the shortest waveform.
        digest: of the encoder that was exported; see `Embedder.digest`.
        precision: "float32", or "int8".
        thresholds: see `Embedder`.
        calibration: see `Embedder`.
        card: what is published of the model and how it was trained, for people.
    """

    name: str
    architecture: str
    sample_rate: int
    dims: tuple[int, ...]
    min_samples: int
    digest: str
    precision: str = "float32"
    thresholds: Mapping[int, float] = field(default_factory=dict)
    calibration: Mapping[int, Calibration] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """What `from_json` reads."""
        values = {name: getattr(self, name) for name in vars(self) if name != "calibration"}
        values["calibration"] = {dim: calibration.to_dict() for dim, calibration in self.calibration.items()}
        return json.dumps({"format": _FORMAT, **values})

    @classmethod
    def from_json(cls, text: str, path: str | Path) -> Description:
        """The description in a file's text.

        Raises:
            CheckpointError: it is none, or of a newer voxnest.
        """
        try:
            values: Any = json.loads(text)
            version = values.pop("format")
            if version != _FORMAT:
                raise CheckpointError(path, f"format {reprlib.repr(version)}", f"format {_FORMAT}; use a newer voxnest")
            values["dims"] = tuple(map(int, values["dims"]))
            values["thresholds"] = {int(dim): float(value) for dim, value in values["thresholds"].items()}
            values["calibration"] = {
                int(dim): Calibration.from_dict(value, int(dim)) for dim, value in values["calibration"].items()
            }
            found = cls(**values)
            sizes = (*found.dims, found.sample_rate, found.min_samples)
            right = found.dims and all(type(size) is int and size > 0 for size in sizes)
            right = right and all(math.isfinite(value) for value in found.thresholds.values())
            right = right and all(isinstance(text, str) for text in (found.name, found.digest, found.precision))
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            found_ = f"a description that does not fit ({type(error).__name__}: {error})"
            raise CheckpointError(path, found_, _EXPECTED) from error
        if not right:
            raise CheckpointError(path, f"a description with {reprlib.repr(asdict(found))}", _EXPECTED)
        return found


def read_description(path: str | Path) -> Description:
    """What an exported model tells of itself.

    Raises:
        CheckpointError: the file is missing or damaged, or voxnest did not write it.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for number, start, end in _fields(data, 0, len(data)):
                if number == _METADATA:
                    entry = {key: bytes(data[first:last]) for key, first, last in _fields(data, start, end)}
                    if entry.get(1) == KEY.encode():
                        return Description.from_json(entry[2].decode(), path)
    except FileNotFoundError as error:
        raise CheckpointError(path, "no such file", "a model of voxnest export") from error
    except OSError as error:
        raise CheckpointError(
            path, f"cannot be read: {error.strerror or error}", "a model of voxnest export"
        ) from error
    except (IndexError, KeyError, ValueError) as error:  # mmap of an empty file too
        raise CheckpointError(path, "damaged, or no ONNX file", "a model of voxnest export") from error
    raise CheckpointError(path, "ONNX without voxnest's description of the model", "a model of voxnest export")


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of the fields of a message that have bytes, in the encoding of Protocol Buffers.

    Raises:
        ValueError: there is no such message.
    """
    while position < end:
        tag, position = _varint(data, position)
        if tag & 7 == 2:
            size, position = _varint(data, position)
            yield tag >> 3, position, position + size
            position += size
        elif tag & 7 == 0:
            _, position = _varint(data, position)
        else:
            position += {1: 8, 5: 4}.get(tag & 7, end)
    if position != end:
        raise ValueError("fields that do not fill the message")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise ValueError("a number of more than 64 bits")
