"""Save an encoder in one safetensors file; load one from that, from files of others, or from published weights.

Our file is enough to build the encoder again. Its metadata holds, as JSON under the key "voxnest", the format version,
the registry name, the resolved settings, cosine thresholds per dimension, and whatever a training run wants to tell.
No code runs from such a file.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxnest.errors import CheckpointError, ConfigError, VoxnestError
from voxnest.files import atomic_write
from voxnest.hub.conversion import convert
from voxnest.hub.download import check_digest, fetch
from voxnest.hub.foreign import SUFFIXES, is_pytorch_file, read_foreign
from voxnest.hub.releases import find_release, names_release
from voxnest.hub.speechbrain import is_speechbrain, read_speechbrain
from voxnest.hub.wespeaker import is_wespeaker, read_wespeaker
from voxnest.models.device import find_device
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.registry import CARDS, create_encoder

DEFAULT = "default"
"""The name of the model that comes with voxnest."""
DEFAULT_FILE = Path(__file__).parent / "default.safetensors"
_FORMAT = 1
_EXPECTED = "a checkpoint such as runs/NAME/best.safetensors, or a name of `voxnest models --weights`"
_IN_DIRECTORY = ("best.safetensors", "last.safetensors", "best.pt", "latest.pt")


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


def load_encoder(
    source: str | Path = DEFAULT,
    *,
    train_type: str | None = None,
    dataset: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
    device: str | torch.device = "cpu",
) -> SpeakerEncoder:
    """The encoder of published weights, a file, or a directory: in eval mode.

    Args:
        source: "default" (the small model that comes with voxnest, see docs/default-model.md), the name of a model
            with published weights ("redimnet-b2", downloaded at first use; see `voxnest.hub.releases`), a voxnest
            checkpoint, an official `.pt` file of ReDimNet, ReDimNet2 or NeXt-TDNN, a checkpoint of redimnet-mrl or of
            3D-Speaker's CAM++ and ERes2Net, a model directory of wespeaker or SpeechBrain, or a directory with one of
            the others (of a run: its best). A name comes before a file of that name; write `./NAME` for the file.
        train_type: of published weights, "ptn", "ft_lm" or "ft_mix"; by default the recommended one of the model.
        dataset: of published weights, what they were trained on: "vox2", "vb2", "vb2+vox2+cnc".
        sha256: refuse a file with another digest.
        progress: show a download's progress on stderr.
        device: where to put it: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe to read or of an unknown kind, its weights do not fit,
            or it cannot be downloaded.
        ConfigError: if no such weights are published (it lists those that are), or the device is not there.

    Example:
        >>> encoder = load_encoder()
        >>> encoder = load_encoder("redimnet-b2")
        >>> encoder = load_encoder("redimnet-m", train_type="ptn", dataset="vb2")
        >>> encoder = load_encoder("runs/mine")
    """
    place = find_device(device)  # before anything is downloaded
    return _load(source, train_type, dataset, sha256, progress).to(place)


def _load(
    source: str | Path, train_type: str | None, dataset: str | None, sha256: str | None, progress: bool
) -> SpeakerEncoder:
    if str(source) == DEFAULT:
        if train_type or dataset:
            raise ConfigError("train_type and dataset", "given with the default model", "the name of a model")
        source = DEFAULT_FILE
    if names_release(str(source)) and not _is_local_file(str(source)):
        release = find_release(str(source), train_type=train_type, dataset=dataset)
        return read_foreign(fetch(release, progress=progress, sha256=sha256), release.model)
    if (train_type or dataset) and not Path(source).exists():
        find_release(str(source))  # tells which names there are
    for is_kind, read in _DIRECTORIES:
        if is_kind(source):
            return _with_subject(read, Path(source))
    path = _file_in(Path(source))
    if train_type or dataset:
        raise ConfigError("train_type and dataset", f"given with the file {path}", "the name of a model")
    check_digest(path, sha256)
    return read_foreign(path) if is_pytorch_file(path) else _read_own(path)


# Model directories of others: how to know one, and how to read it.
_DIRECTORIES: list[tuple[Callable[[str | Path], bool], Callable[[Path], SpeakerEncoder]]] = [
    (is_wespeaker, lambda directory: convert(*read_wespeaker(directory))),
    (is_speechbrain, read_speechbrain),
]


def _with_subject(read: Callable[[Path], SpeakerEncoder], directory: Path) -> SpeakerEncoder:
    """Read a directory; errors that do not name a file of it name it."""
    try:
        return read(directory)
    except VoxnestError as error:
        if str(error.subject).startswith(str(directory)):
            raise
        raise CheckpointError(directory, f"{error.subject}: {error.found}", error.expected) from error


def _is_local_file(source: str) -> bool:
    """Whether a file name that could be a release's is that of a file here; a bare name is always a model's."""
    return source.endswith(".pt") and Path(source).exists()


def _file_in(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the one in a directory."""
    if path.is_dir():
        found = [path / name for name in _IN_DIRECTORY if (path / name).exists()][:1]
        found = found or sorted(item for item in path.iterdir() if item.suffix in (".safetensors", *SUFFIXES))
        if len(found) != 1:
            names = ", ".join(item.name for item in found[:4]) or "no checkpoint"
            raise CheckpointError(path, f"a directory with {names}", "one checkpoint, or best.safetensors")
        return found[0]
    if not path.exists():
        card = str(path) in CARDS
        expected = "a name with published weights (voxnest models --weights)" if card else _EXPECTED
        raise CheckpointError(path, "no such file" + (", and no published weights" if card else ""), expected)
    return path


def _read_own(path: Path) -> SpeakerEncoder:
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
