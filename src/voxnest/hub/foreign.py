"""Read PyTorch files of others: official ReDimNet, ReDimNet2 and NeXt-TDNN, redimnet-mrl, 3D-Speaker's bare weights.

What a PyTorch file is cannot be seen from its name: the keys in it tell.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from voxnest.errors import CheckpointError, VoxnestError
from voxnest.hub.conversion import convert, convert_mrl, recognise, registry_name
from voxnest.hub.next_tdnn import is_next_tdnn, read_next_tdnn
from voxnest.hub.pickles import read_pickle
from voxnest.hub.threedspeaker import describe
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.settings import MALFORMED

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
_EXPECTED = (
    "an official ReDimNet, ReDimNet2 or NeXt-TDNN checkpoint, one of redimnet-mrl or 3D-Speaker, or one of voxnest "
    "such as best.safetensors"
)


def is_pytorch_file(path: Path) -> bool:
    """By its name or its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix in SUFFIXES


@contextmanager
def about(source: str | Path, expected: str = _EXPECTED) -> Iterator[None]:
    """Make whatever a foreign file or directory leads to a `CheckpointError` that names it, in one line."""
    try:
        yield
    except VoxnestError as error:
        if error.subject.startswith(str(source)):
            raise
        raise CheckpointError(source, f"{error.subject}: {error.found}", error.expected) from error
    except MALFORMED as error:
        found = " ".join(str(error).split())
        raise CheckpointError(source, f"malformed ({type(error).__name__}: {found})", expected) from error


def read_foreign(path: Path, name: str | None = None) -> SpeakerEncoder:
    """The encoder in a PyTorch file of one of the known kinds, in eval mode.

    Args:
        path: of the file.
        name: what to call the encoder; without, its file name may tell.

    Raises:
        CheckpointError: if the file is damaged, needs code to be run, or is of another kind.
    """
    contents = read_pickle(path, _EXPECTED)
    if not isinstance(contents, dict):
        raise CheckpointError(path, f"holds a {type(contents).__name__}", _EXPECTED)
    with about(path):
        if isinstance(contents.get("model_config"), dict) and isinstance(contents.get("state_dict"), dict):
            architecture = recognise(contents["model_config"])
            name = name or registry_name(architecture, _size(path))
            return convert(architecture, contents["model_config"], contents["state_dict"], name=name)
        if isinstance(contents.get("model_state_dict"), dict):
            return convert_mrl(contents, path)
        state = contents.get("state_dict")  # as Lightning calls it
        weights = state if isinstance(state, dict) else contents
        if is_next_tdnn(weights):
            return read_next_tdnn(weights, path, name)
        if weights is state:
            names = ", ".join(map(repr, list(weights)[:4])) or "nothing"
            raise CheckpointError(path, f"a state_dict of another model ({names})", _EXPECTED)
        if contents and all(isinstance(value, Tensor) for value in contents.values()):
            architecture, config, weights = describe(contents, path)
            return convert(architecture, config, weights, name=name)
    keys = ", ".join(map(str, list(contents)[:6])) or "nothing"
    raise CheckpointError(path, f"holds {keys}", _EXPECTED)


def _size(path: Path) -> str | None:
    match = re.match(r"(?:redimnet2?-)?(b\d|s|m)-", path.name, re.IGNORECASE)
    return match[1] if match else None
