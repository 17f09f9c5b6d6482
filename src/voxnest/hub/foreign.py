"""Read PyTorch files of others: official ReDimNet and ReDimNet2 checkpoints, and those of redimnet-mrl.

A PyTorch file is a pickle, which can run code when it is read. These are read with `weights_only=True`, which admits
tensors and plain containers; a file that needs more is refused.
"""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxnest.errors import CheckpointError, VoxnestError
from voxnest.hub.conversion import convert, convert_mrl, recognise, registry_name
from voxnest.models.encoder import SpeakerEncoder

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_EXPECTED = "an official ReDimNet or ReDimNet2 checkpoint, one of redimnet-mrl, or one of voxnest"

# A training loop stores its last error rate as a NumPy scalar. These hold a number and run nothing.
_SCALAR = np.float64(0).__reduce__()[0]
_ADMITTED: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
]


def is_pytorch_file(path: Path) -> bool:
    """By its name or its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix in SUFFIXES


def read_foreign(path: Path, name: str | None = None) -> SpeakerEncoder:
    """The encoder in a PyTorch file of one of the known kinds, in eval mode.

    Args:
        path: of the file.
        name: what to call the encoder; without, its file name may tell.

    Raises:
        CheckpointError: if the file is damaged, needs code to be run, or is of another kind.
    """
    contents = _read(path)
    if not isinstance(contents, dict):
        raise CheckpointError(path, f"holds a {type(contents).__name__}", _EXPECTED)
    try:
        if isinstance(contents.get("model_config"), dict) and isinstance(contents.get("state_dict"), dict):
            architecture = recognise(contents["model_config"])
            name = name or registry_name(architecture, _size(path))
            return convert(architecture, contents["model_config"], contents["state_dict"], name=name)
        if isinstance(contents.get("model_state_dict"), dict):
            return convert_mrl(contents, path)
    except VoxnestError as error:
        if error.subject == str(path):
            raise
        raise CheckpointError(path, f"{error.subject}: {error.found}", error.expected) from error
    keys = ", ".join(map(str, list(contents)[:6])) or "nothing"
    raise CheckpointError(path, f"holds {keys}", _EXPECTED)


def _read(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_ADMITTED):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path) or None)
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {error.strerror or error}") from error
    except Exception as error:  # what a damaged pickle raises is anything
        needs = _needed_code(path) if isinstance(error, pickle.UnpicklingError) else ""
        if needs:
            found = f"refused: reading it would run code of its own ({needs})"
            raise CheckpointError(path, found, "tensors and plain values; save it again with only those") from error
        raise CheckpointError(path, "damaged or cut, or not a PyTorch file", _EXPECTED) from error


def _needed_code(path: Path) -> str:
    """What a pickle wants beyond weights, or nothing if that cannot be told."""
    try:
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))[:4])
    except Exception:  # a damaged file: the caller says so
        return ""


def _size(path: Path) -> str | None:
    match = re.match(r"(?:redimnet2?-)?(b\d|s|m)-", path.name, re.IGNORECASE)
    return match[1] if match else None
