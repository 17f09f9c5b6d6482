"""Read a PyTorch file safely.

It is a pickle, which can run code when it is read. Here it is read with `weights_only=True`, which admits tensors and
plain containers; a file that needs more is refused.
"""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from voxnest.errors import CheckpointError


class Genotype(NamedTuple):
    """Stands in for the class of that name whose instance AutoSpeech's checkpoints hold; its text is `repr`."""

    normal: Any
    normal_concat: Any
    reduce: Any
    reduce_concat: Any


# A training loop stores its last error rate as a NumPy scalar. These hold a number and run nothing.
_SCALAR = np.float64(0).__reduce__()[0]
_ADMITTED: list[Any] = [
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    np.dtype,
    range,
    *((Genotype, f"{module}.Genotype") for module in ("utils", "genotypes", "__main__")),
    *(type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")),
]


def read_pickle(path: Path, expected: str) -> Any:
    """What is in a PyTorch file; large tensors are mapped into memory.

    Raises:
        CheckpointError: if the file cannot be read, is damaged, or needs code to be run; `expected` says what it
            should be.
    """
    contents = _load(path, expected)
    if bad := next(_unusable_tensors(contents), None):
        raise CheckpointError(path, bad, expected)
    return contents


def _load(path: Path, expected: str) -> Any:
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
        raise CheckpointError(path, "damaged or cut, or not a PyTorch file", expected) from error


def _unusable_tensors(contents: Any) -> Iterator[str]:
    """Tensors that are not plain numbers in the file, such as one number that claims to be a million million."""
    seen: set[int] = set()
    waiting = [contents]
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
                yield f"a tensor of an unusual kind ({value.layout}, {value.device.type}, {value.dtype})"
            elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
                yield f"a tensor of shape {list(value.shape)} that holds fewer numbers"
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, Mapping) else value)


def _needed_code(path: Path) -> str:
    """What a pickle wants beyond weights, or nothing if that cannot be told."""
    try:
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))[:4])
    except Exception:  # a damaged file: the caller says so
        return ""
