"""Save an encoder in one safetensors file; load one from that, from files of others, or from published weights.

Our file is enough to build the encoder again. Its metadata holds, as JSON under the key "voxnest", the format version,
the registry name, the resolved settings, cosine thresholds and calibration per dimension ("64", and "64@2" at the exit
after stage 2), and whatever a training run wants to tell.
A model that was trained to name speakers has its classifier in the same file: tensors whose keys begin with
"classifier.", and the speakers' names in the metadata. Who only embeds passes over them.
No code runs from such a file.
"""

import json
import math
import os
import re
import reprlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.files import atomic_write, writing
from voxnest.foreign.kinds import SUFFIXES, is_model_directory, is_pytorch_file
from voxnest.foreign.weights import load_weights
from voxnest.hub.download import check_digest, fetch
from voxnest.hub.releases import find_release, names_release, published_models
from voxnest.models.classifier import SpeakerClassifier
from voxnest.models.device import find_device
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.exits import by_exit, named, named_thresholds
from voxnest.models.families import FAMILIES
from voxnest.models.family import MALFORMED, Family
from voxnest.scoring import Calibration
from voxnest.zoo.cards import CARDS

DEFAULT = "default"
"""The name of the model that comes with voxnest."""
DEFAULT_FILE = Path(__file__).parent / "default.safetensors"
_FORMAT = 1
_CLASSIFIER = "classifier."
_DESCRIPTION = "what voxnest writes: format, name, config, thresholds, calibration, metadata"
_EXPECTED = "a checkpoint such as runs/NAME/best.safetensors, or a name of `voxnest models weights`"
_SUFFIXES = (".safetensors", *SUFFIXES)
_IN_DIRECTORY = ("best.safetensors", "last.safetensors", "best.pt", "latest.pt")


def save_encoder(
    encoder: SpeakerEncoder,
    path: str | Path,
    metadata: dict[str, Any] | None = None,
    classifier: SpeakerClassifier | None = None,
) -> None:
    """Write weights and configuration to `path` (usually `*.safetensors`), replacing it only when complete.

    Args:
        encoder: what to save; its `thresholds` and `calibration` go with it.
        path: where to.
        metadata: anything that JSON can hold, given back by `read_metadata`.
        classifier: of the speakers it was trained on, given back by `load_classifier`.

    Raises:
        CheckpointError: if it cannot be written (a full disk, say); what was there before is kept.
    """
    header = {
        "format": _FORMAT,
        "architecture": encoder.architecture,
        "name": encoder.name,
        "config": encoder.config,
        "thresholds": named_thresholds(encoder),
        "metadata": metadata or {},
    }
    if calibration := named({stage: end.calibration for stage, end in encoder.ends.items()}):
        header["calibration"] = {name: found.to_dict() for name, found in calibration.items()}
    state = encoder.state_dict()
    if classifier is not None:
        header["classifier"] = {"speakers": classifier.speakers, "scale": classifier.scale}
        state |= {f"{_CLASSIFIER}{key}": value for key, value in classifier.state_dict().items()}
    weights = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with writing(path, CheckpointError), atomic_write(path) as temporary:
        try:
            save_file(weights, temporary, metadata={"voxnest": json.dumps(header)})
        except SafetensorError as error:
            raise OSError(error) from error


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_encoder` was told about the file's encoder: format, name, config, thresholds, calibration,
    metadata.

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
    try:
        header: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"a description of the model that is not JSON ({error})", _DESCRIPTION) from error
    if not isinstance(header, dict):
        raise CheckpointError(path, f"a description of the model that is {reprlib.repr(header)}", _DESCRIPTION)
    if header.get("format") != _FORMAT:
        raise CheckpointError(path, f"format {header.get('format')}", f"format {_FORMAT}; use a newer voxnest")
    header = {"thresholds": {}, "calibration": {}, "metadata": {}, **header}
    kinds = {"name": str, "config": dict, "thresholds": dict, "calibration": dict, "metadata": dict}
    for key, kind in kinds.items():
        if not isinstance(header.get(key), kind):
            found = f"{key} {reprlib.repr(header[key])}" if key in header else f"no {key}"
            raise CheckpointError(path, f"a description of the model with {found}", _DESCRIPTION)
    if not isinstance(header.get("architecture", ""), str):
        found = f"architecture {reprlib.repr(header['architecture'])}"
        raise CheckpointError(path, f"a description of the model with {found}", _DESCRIPTION)
    for size, threshold in header["thresholds"].items():
        right = isinstance(threshold, (int, float)) and not isinstance(threshold, bool) and math.isfinite(threshold)
        if not (re.fullmatch(r"\d+(@\d+)?", size) and right):
            found = f"threshold {reprlib.repr(threshold)} for {size!r}"
            raise CheckpointError(path, found, "a cosine for each size of embedding")
    return header


def find_metadata(source: str | Path = DEFAULT) -> dict[str, Any]:
    """What was told about the encoder that `load_encoder` gives when it was saved; empty for files of others.

    Raises:
        CheckpointError: as `read_metadata`.
    """
    path = DEFAULT_FILE if source == DEFAULT and isinstance(source, str) else own_file(source)
    found: dict[str, Any] = {} if path is None else read_metadata(path)["metadata"]
    return found


def own_file(source: str | Path) -> Path | None:
    """The voxnest checkpoint that a source means, itself or in a directory; None if it means anything else.

    Raises:
        CheckpointError: there is nothing of that name.
    """
    source, _ = split_exit(source)
    known = isinstance(source, str) and (source == DEFAULT or (names_release(source) and not _is_local_file(source)))
    if known or is_model_directory(source) or is_pytorch_file(path := _file_in(source)):
        return None
    return path


def save_changed(encoder: SpeakerEncoder, source: str | Path, path: str | Path, told: dict[str, Any]) -> None:
    """Write an encoder that came from a source and was changed, with the metadata and the classifier that were there.

    Args:
        encoder: what to save.
        source: what it was loaded from.
        path: where to.
        told: more metadata.

    Raises:
        CheckpointError: it cannot be written, or the source cannot be read again.
    """
    own = DEFAULT_FILE if source == DEFAULT and isinstance(source, str) else own_file(source)
    classifier = load_classifier(own) if own is not None and "classifier" in read_metadata(own) else None
    save_encoder(encoder, path, find_metadata(source) | told, classifier)


def load_encoder(
    source: str | Path = DEFAULT,
    *,
    train_type: str | None = None,
    dataset: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
    device: str | torch.device = "cpu",
    adapter: str | Path | None = None,
) -> SpeakerEncoder:
    """The encoder of published weights, a file, or a directory: in eval mode.

    Args:
        source: "default" (the small model that comes with voxnest, see docs/default-model.md), the name of a model
            with published weights ("redimnet-b2", downloaded at first use; see `voxnest.hub.releases`), a voxnest
            checkpoint, an official file of ReDimNet, ReDimNet2, NeXt-TDNN or AutoSpeech, a checkpoint of redimnet-mrl
            or of 3D-Speaker's CAM++ and ERes2Net, a model directory of wespeaker or SpeechBrain, or a directory with
            one of the others (of a run: its best). A name comes before a file of that name; write `./NAME` for the
            file, or give a `Path`, which is never a name. "MODEL@3" is the part of MODEL up to its exit after stage 3.
        train_type: of published weights, "ptn", "ft_lm" or "ft_mix"; by default the recommended one of the model.
        dataset: of published weights, what they were trained on: "vox2", "vb2", "vb2+vox2+cnc".
        sha256: refuse a file with another digest.
        progress: show a download's progress on stderr.
        device: where to put it: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.
        adapter: file of an adapter to use it with; see `SpeakerEncoder.load_adapter`.

    Raises:
        CheckpointError: if the file is missing, damaged, unsafe to read or of an unknown kind, its weights do not fit
            or are not finite, or it cannot be downloaded; or the adapter is of another encoder.
        ConfigError: if no such weights are published (it lists those that are), or the device is not there.

    Examples:
        >>> encoder = load_encoder()
        >>> encoder = load_encoder("redimnet-b2")
        >>> encoder = load_encoder("redimnet-m", train_type="ptn", dataset="vb2")
        >>> encoder = load_encoder("runs/mine")
    """
    place = find_device(device)  # before anything is downloaded
    source, stage = split_exit(source)
    encoder = _load(source, train_type, dataset, sha256, progress).to(place)
    if adapter is not None:
        encoder.use_adapter(encoder.load_adapter(adapter))
    return encoder if stage is None else encoder.at_exit(stage)


def split_exit(source: str | Path) -> tuple[str | Path, int | None]:
    """A model and the exit that is asked for: "MODEL@3" is (MODEL, 3), "MODEL" or a file of that name has None."""
    model, mark, stage = str(source).rpartition("@")
    if not (mark and model and stage.isdecimal()) or Path(source).exists():
        return source, None
    return type(source)(model), int(stage)


def load_classifier(source: str | Path, *, device: str | torch.device = "cpu") -> SpeakerClassifier:
    """The classifier that was saved with an encoder: which of the speakers of its training an embedding is of.

    Args:
        source: a voxnest checkpoint, or a directory with one (of a run: its best).
        device: where to put it; see `load_encoder`.

    Raises:
        CheckpointError: the file is missing or damaged, or has no classifier.
    """
    place = find_device(device)
    path = _file_in(DEFAULT_FILE if source == DEFAULT else source)
    header = {} if is_pytorch_file(path) else read_metadata(path)
    described = header.get("classifier")
    if described is None:
        expected = "a run of `task: identification`, which keeps one"
        raise CheckpointError(path, "a model without a classifier of speakers", expected)
    try:
        found = _tensors(path, classifier=True)
        weight, bias = found["weight"].float(), found.get("bias")
        names = [str(name) for name in described["speakers"]]
        scale = float(described["scale"])
        classifier = SpeakerClassifier(names, weight, None if bias is None else bias.float(), scale=scale)
    except (ConfigError, SafetensorError, *MALFORMED) as error:
        raise CheckpointError(path, f"a classifier that does not fit: {' '.join(str(error).split())}") from error
    if not all(value.isfinite().all() for value in classifier.state_dict().values()):
        raise CheckpointError(path, "a classifier with NaN or infinite numbers")
    return classifier.to(place).eval()


def _load(
    source: str | Path, train_type: str | None, dataset: str | None, sha256: str | None, progress: bool
) -> SpeakerEncoder:
    name = source if isinstance(source, str) else ""
    if name == DEFAULT:
        if train_type or dataset:
            raise ConfigError("train_type and dataset", "given with the default model", "the name of a model")
        source = DEFAULT_FILE
    if names_release(name) and not _is_local_file(name):
        release = find_release(name, train_type=train_type, dataset=dataset)
        return _load_foreign(fetch(release, progress=progress, sha256=sha256), release.model)
    if (train_type or dataset) and not Path(source).exists():
        find_release(str(source))  # tells which names there are
    if is_model_directory(source):
        return _load_foreign(Path(source))
    path = _file_in(source)
    if train_type or dataset:
        raise ConfigError("train_type and dataset", f"given with the file {path}", "the name of a model")
    check_digest(path, sha256)
    return _load_foreign(path) if is_pytorch_file(path) else _read_own(path)


def _load_foreign(path: Path, name: str | None = None) -> SpeakerEncoder:
    from voxnest.foreign.reading import load_foreign  # all projects and families, which our own files do without

    return load_foreign(path, name)


def _is_local_file(source: str) -> bool:
    """Whether a file name that could be a release's is that of a file here; a bare name is always a model's."""
    return source.endswith(".pt") and Path(source).exists()


def _file_in(source: str | Path) -> Path:
    """The checkpoint that a path means: itself, or the one in a directory."""
    path = Path(source)
    if path.is_dir():
        found = [path / name for name in _IN_DIRECTORY if (path / name).exists()][:1]
        found = found or sorted(item for item in path.iterdir() if item.suffix in _SUFFIXES)
        if len(found) != 1:
            names = ", ".join(item.name for item in found[:4]) or "no checkpoint"
            raise CheckpointError(path, f"a directory with {names}", "one checkpoint, or best.safetensors")
        return found[0]
    if not path.exists():
        if source in CARDS:
            expected = "a name with published weights (voxnest models weights)"
            raise CheckpointError(path, "no such file, and no published weights", expected)
        raise CheckpointError(path, "no such file", f"{_nearest(source)}{_EXPECTED}")
    return path


def _nearest(source: str | Path) -> str:
    """What may have been meant: the name of a model (by a string), or a checkpoint or folder that lies there."""
    names = [DEFAULT, *published_models()] if isinstance(source, str) else []
    folder = Path(source).parent
    if folder.is_dir() and os.access(folder, os.R_OK):
        names += [str(item) for item in folder.iterdir() if item.suffix in _SUFFIXES or item.is_dir()]
    near = one_of(source, names, few=0)
    return f"{near} " if near.endswith("?") else ""


def _family(header: dict[str, Any]) -> Family:
    """What builds the network of a file; older ones tell it by the name of a published size alone."""
    architecture = header.get("architecture")
    if architecture is None:
        if header["name"] not in CARDS:
            raise ConfigError("model", repr(header["name"]), one_of(header["name"], CARDS))
        return CARDS[header["name"]].network
    if architecture not in FAMILIES:
        raise ConfigError("architecture", repr(architecture), one_of(architecture, FAMILIES))
    return FAMILIES[architecture]


def _read_own(path: Path) -> SpeakerEncoder:
    header = read_metadata(path)
    name: str = header["name"]
    try:
        family = _family(header)
        with torch.device("meta"):  # what is described may be far larger than what is in the file
            planned = family.build(header["config"], name)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(path, f"describes a model that cannot be built: {error}") from error
    try:
        weights = _tensors(path, classifier=False)
        shapes = {key: value.shape for key, value in planned.state_dict().items()}
        fits = all(shapes.get(key) == value.shape for key, value in weights.items())
        encoder = family.build(header["config"], name) if fits else planned
        load_weights(encoder, name, weights, lambda key: key, lambda value, *_: value)
    except (CheckpointError, SafetensorError, *MALFORMED) as error:
        found = error.found if isinstance(error, CheckpointError) else " ".join(str(error).split())
        raise CheckpointError(path, f"weights do not fit {name}: {found}") from error
    for stage, thresholds in _of_ends(encoder, header, "threshold", "thresholds", path).items():
        encoder.ends[stage].thresholds = thresholds
    for stage, values in _of_ends(encoder, header, "calibration", "calibration", path).items():
        try:
            encoder.ends[stage].calibration = {dim: Calibration.from_dict(value, dim) for dim, value in values.items()}
        except CheckpointError as error:
            raise CheckpointError(path, f"a calibration that does not fit: {error.found}", error.expected) from error
    return encoder.eval()


def _of_ends(encoder: SpeakerEncoder, header: dict[str, Any], what: str, key: str, path: Path) -> dict[Any, Any]:
    """What a file tells of sizes of embedding, for every exit and the end."""
    try:
        return by_exit(encoder, header[key])
    except ConfigError as error:
        raise CheckpointError(path, f"a {what} for {reprlib.repr(error.subject)} numbers", error.expected) from error


def _tensors(path: Path, *, classifier: bool) -> dict[str, torch.Tensor]:
    """The weights of the encoder in a file of ours, or of the classifier that was saved with it."""
    with safe_open(path, framework="pt") as file:
        keys = [key for key in list(file.keys()) if key.startswith(_CLASSIFIER) == classifier]
        return {key.removeprefix(_CLASSIFIER): file.get_tensor(key) for key in keys}
