"""Save an encoder in one safetensors file and build it again from that file alone.

The file's metadata holds, as JSON under the key "voxnest", the format version, the registry name, the resolved
settings, cosine thresholds per dimension, and whatever a training run wants to tell. No code runs from such a file.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxnest.errors import CheckpointError, ConfigError
from voxnest.files import atomic_write
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.registry import create_encoder

_FORMAT = 1


def save_encoder(encoder: SpeakerEncoder, path: str | Path, metadata: dict[str, Any] | None = None) -> None:
    """Write weights and configuration to `path` (usually `*.safetensors`), replacing it only when complete.

    Args:
        encoder: what to save; its `thresholds` go with it.
        path: where to.
        metadata: anything that JSON can hold, given back by `read_metadata`.

    Raises:
        CheckpointError: if it cannot be written (a full disk, say); what was there before is kept.
    """
    header = {
        "format": _FORMAT,
        "name": encoder.name,
        "config": encoder.config,
        "thresholds": encoder.thresholds,
        "metadata": metadata or {},
    }
    weights = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    try:
        with atomic_write(path) as temporary:
            save_file(weights, temporary, metadata={"voxnest": json.dumps(header)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(path, f"cannot be written: {error}") from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_encoder` was told about the file's encoder: format, name, config, thresholds, metadata.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a voxnest checkpoint.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(path, "no such file", "a voxnest checkpoint such as runs/NAME/best.safetensors")
    if path.is_dir():
        raise CheckpointError(path, "a directory", "a voxnest checkpoint such as runs/NAME/best.safetensors")
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get("voxnest")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(path, f"not readable as safetensors ({error})", "a voxnest checkpoint") from error
    if text is None:
        raise CheckpointError(path, "safetensors without voxnest's description of the model", "a voxnest checkpoint")
    header: dict[str, Any] = json.loads(text)
    if header.get("format") != _FORMAT:
        raise CheckpointError(path, f"format {header.get('format')}", f"format {_FORMAT}; use a newer voxnest")
    return header


def load_encoder(path: str | Path) -> SpeakerEncoder:
    """Build the encoder that `save_encoder` wrote, in eval mode on the CPU.

    Raises:
        CheckpointError: if the file is missing, damaged, or not a voxnest checkpoint, or its weights do not fit.
    """
    header = read_metadata(path)
    try:
        encoder = create_encoder(header["name"], **header["config"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(path, f"describes a model that cannot be built: {error}") from error
    try:
        with safe_open(Path(path), framework="pt") as file:
            encoder.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (RuntimeError, SafetensorError) as error:
        lines = " ".join(str(error).split())
        raise CheckpointError(path, f"weights do not fit {header['name']}: {lines}") from error
    encoder.thresholds = {int(dim): value for dim, value in header["thresholds"].items()}
    return encoder.eval()
