"""Which project a file or directory is of, and what it holds.

Files are those of the official ReDimNet, ReDimNet2, NeXt-TDNN and AutoSpeech, of redimnet-mrl, and 3D-Speaker's bare
weights; the keys in a file tell, not its name. Directories are those of wespeaker and SpeechBrain.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from voxnest.errors import CheckpointError, VoxnestError
from voxnest.foreign import redimnet, redimnet2
from voxnest.foreign.autospeech import describe_autospeech, is_autospeech
from voxnest.foreign.description import Description
from voxnest.foreign.encoders import make_encoder
from voxnest.foreign.kinds import is_wespeaker
from voxnest.foreign.next_tdnn import describe_next_tdnn, is_next_tdnn
from voxnest.foreign.pickles import read_pickle
from voxnest.foreign.redimnet_mrl import describe_mrl, registry_name
from voxnest.foreign.speechbrain import read_speechbrain
from voxnest.foreign.threedspeaker import describe_3dspeaker
from voxnest.foreign.wespeaker import read_wespeaker
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.family import MALFORMED

_DIRECTORY = "a model directory of wespeaker or SpeechBrain"
_EXPECTED = (
    "an official ReDimNet, ReDimNet2, NeXt-TDNN or AutoSpeech checkpoint, one of redimnet-mrl or 3D-Speaker, or one of "
    "voxnest such as best.safetensors"
)


def load_foreign(path: Path, name: str | None = None) -> SpeakerEncoder:
    """The encoder in a file or directory of one of the known kinds, in eval mode.

    Args:
        path: of the file or directory.
        name: what to call the encoder; without, its file name or size may tell.

    Raises:
        CheckpointError: if it is damaged, needs code to be run, or is of another kind.
    """
    with _about(path):
        description = read_foreign(path)
        return make_encoder(replace(description, name=name or description.name))


def read_foreign(path: Path) -> Description:
    """What a file or directory of one of the known kinds holds.

    Raises:
        VoxnestError: if it is damaged, needs code to be run, or is of another kind.
    """
    if path.is_dir():
        return read_wespeaker(path) if is_wespeaker(path) else read_speechbrain(path)
    contents = read_pickle(path, _EXPECTED)
    if not isinstance(contents, dict):
        raise CheckpointError(path, f"holds a {type(contents).__name__}", _EXPECTED)
    config, state = contents.get("model_config"), contents.get("state_dict")  # the latter also Lightning's word
    if isinstance(config, dict) and isinstance(state, dict):
        architecture = recognise(config)
        return Description(architecture, config, state, registry_name(architecture, _size(path)))
    if isinstance(contents.get("model_state_dict"), dict):
        return describe_mrl(contents, path)
    weights = state if isinstance(state, dict) else contents
    if is_next_tdnn(weights):
        return describe_next_tdnn(weights, path)
    if is_autospeech(weights):
        return describe_autospeech(weights, contents.get("genotype"), path)
    if weights is state:
        names = ", ".join(map(repr, list(weights)[:4])) or "nothing"
        raise CheckpointError(path, f"a state_dict of another model ({names})", _EXPECTED)
    if contents and all(isinstance(value, Tensor) for value in contents.values()):
        return describe_3dspeaker(contents, path)
    keys = ", ".join(map(str, list(contents)[:6])) or "nothing"
    raise CheckpointError(path, f"holds {keys}", _EXPECTED)


def recognise(config: Mapping[str, Any]) -> str:
    """Which of the two official classes takes these constructor arguments (`model_config` of a released file)."""
    stages = config.get("stages_setup") or [[1]]
    strides_in_time = isinstance(stages[0][0], (list, tuple))
    others = set(redimnet2.ARGUMENTS.names).difference(redimnet.ARGUMENTS.names)
    return "redimnet2" if strides_in_time or others & set(config) else "redimnet"


def _size(path: Path) -> str | None:
    match = re.match(r"(?:redimnet2?-)?(b\d|s|m)-", path.name, re.IGNORECASE)
    return match[1] if match else None


@contextmanager
def _about(source: Path) -> Iterator[None]:
    """Make whatever a foreign file or directory leads to a `CheckpointError` that names it, in one line."""
    try:
        yield
    except VoxnestError as error:
        if error.subject.startswith(str(source)):
            raise
        raise CheckpointError(source, f"{error.subject}: {error.found}", error.expected) from error
    except MALFORMED as error:
        found = f"malformed ({type(error).__name__}: {' '.join(str(error).split())})"
        raise CheckpointError(source, found, _DIRECTORY if source.is_dir() else _EXPECTED) from error
