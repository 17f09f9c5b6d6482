"""Load an encoder into the engine that is asked for. An exported model is loaded without torch."""

from __future__ import annotations

import contextlib
import gc
import json
import platform
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from voxnest import __version__
from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.files import atomic_write, cache_folder, writing
from voxnest.runtimes.engine import missing_extra
from voxnest.runtimes.onnx import OnnxEncoder
from voxnest.runtimes.openvino import OpenVINOEncoder
from voxnest.runtimes.proof import compare, speech
from voxnest.runtimes.timing import SECONDS, time_each

if TYPE_CHECKING:
    import torch

    from voxnest.models.embedder import Embedder, LoadedEncoder
    from voxnest.models.encoder import SpeakerEncoder

RUNTIMES = ("torch", "onnx", "openvino", "auto")
PRECISIONS = ("float32", "bfloat16", "int8")
_ENGINES: dict[str, Any] = {"onnx": OnnxEncoder, "openvino": OpenVINOEncoder}
_PACKAGES = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Loading leaves no garbage, yet its many objects would make Python look for some among the 170,000 of torch."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


# Of what name the encoder is, types do not know: an ONNX file's is no `SpeakerEncoder`, and all else is.
@overload
def load_encoder(
    source: str | Path = ...,
    *,
    runtime: None = ...,
    precision: Literal["float32"] = ...,
    device: str | torch.device = ...,
    train_type: str | None = ...,
    dataset: str | None = ...,
    sha256: str | None = ...,
    progress: bool = ...,
    adapter: str | Path | None = ...,
) -> SpeakerEncoder | Any: ...
@overload
def load_encoder(
    source: str | Path = ...,
    *,
    runtime: Literal["torch"],
    precision: Literal["float32"] = ...,
    device: str | torch.device = ...,
    train_type: str | None = ...,
    dataset: str | None = ...,
    sha256: str | None = ...,
    progress: bool = ...,
    adapter: str | Path | None = ...,
) -> SpeakerEncoder: ...
@overload
def load_encoder(
    source: str | Path = ...,
    *,
    runtime: str | None = ...,
    precision: str = ...,
    device: str | torch.device = ...,
    train_type: str | None = ...,
    dataset: str | None = ...,
    sha256: str | None = ...,
    progress: bool = ...,
    adapter: str | Path | None = ...,
) -> LoadedEncoder: ...
def load_encoder(
    source: str | Path = "default",
    *,
    runtime: str | None = None,
    precision: str = "float32",
    device: str | torch.device = "cpu",
    train_type: str | None = None,
    dataset: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
    adapter: str | Path | None = None,
) -> Any:
    """The encoder of published weights, a file or a directory, in the engine that is asked for.

    Args:
        source: see `voxnest.hub.load_encoder`; or an ONNX file of `voxnest export`, which needs no torch.
        runtime: "torch" gives a `SpeakerEncoder`. "onnx" (onnxruntime) and "openvino" run the encoder as a graph: it is
            exported at the first time, compared with torch on speech, and kept in the cache folder. "auto" is the
            fastest of those that are installed and proven equal, by the time that each takes for three seconds of
            speech: measured once on a machine, and kept too. None is "torch", of an ONNX file "onnx".
        precision: what the network computes in: "float32"; "bfloat16" with torch or, on a processor that has it,
            OpenVINO; "int8" of a file that was exported so. Embeddings are float32.
        device: see `voxnest.hub.load_encoder`; onnxruntime has those that it was built for, OpenVINO the CPU.
        train_type: of published weights, as the next; see `voxnest.hub.load_encoder`.
        dataset: of published weights.
        sha256: refuse a file with another digest.
        progress: show a download's progress on stderr.
        adapter: see `voxnest.hub.load_encoder`; an ONNX file takes none.

    Raises:
        CheckpointError: see `voxnest.hub.load_encoder`; or a graph that does not equal torch.
        ConfigError: an unknown runtime, precision or device, or one that the engine has not; no such published weights;
            or a package that is not installed.

    Examples:
        >>> encoder = load_encoder("redimnet-b2")
        >>> encoder = load_encoder("redimnet-b2", runtime="auto")
        >>> encoder = load_encoder("model.onnx")
    """
    if runtime not in (None, *RUNTIMES):
        raise ConfigError("runtime", repr(runtime), one_of(runtime, RUNTIMES))
    if precision not in PRECISIONS:
        raise ConfigError("precision", repr(precision), one_of(precision, PRECISIONS))
    if Path(source).suffix.lower() == ".onnx":
        if adapter is not None:
            expected = "the model that it was exported from, or an export of what voxnest adapter merge writes"
            raise ConfigError("adapter", f"given with the exported model {source}", expected)
        return _load_file(Path(source), runtime, precision, str(device), (train_type, dataset), sha256)
    if precision == "int8":
        expected = "a file of voxnest export --precision int8"
        raise ConfigError("precision", f"int8, of {source}", expected)
    if runtime in _ENGINES and find_spec(_PACKAGES[runtime]) is None:
        raise missing_extra(_PACKAGES[runtime], runtime)
    place = device if runtime in (None, "torch", "auto") else "cpu"
    with _no_collection():
        from voxnest.hub.checkpoint import load_encoder as load

        encoder = load(
            source,
            device=place,
            adapter=adapter,
            train_type=train_type,
            dataset=dataset,
            sha256=sha256,
            progress=progress,
        )
    if runtime in _ENGINES:
        return _proven(runtime, _exported(encoder), precision, str(device), encoder)
    in_torch = _in_torch(encoder, precision)
    if runtime == "auto" and next(encoder.parameters()).device.type == "cpu":
        return _fastest(encoder, in_torch, precision)
    return in_torch


def _load_file(
    path: Path, runtime: str | None, precision: str, device: str, published: tuple[str | None, ...], sha256: str | None
) -> Embedder:
    if any(published):
        raise ConfigError("train_type and dataset", f"given with the file {path}", "the name of a model")
    if runtime == "torch":
        raise ConfigError("runtime", f"'torch', of {path}", "onnx, openvino or auto for an exported model")
    if sha256 is not None:
        from voxnest.hub.download import check_digest

        check_digest(path, sha256)
    if runtime == "auto":
        runtime = "onnx" if find_spec("onnxruntime") is not None else "openvino"
    engine: Embedder = _ENGINES[runtime or "onnx"](path, precision, device)
    if isinstance(engine, OnnxEncoder):
        engine.load_ahead()
    return engine


def _in_torch(encoder: SpeakerEncoder, precision: str) -> Embedder:
    if precision == "float32":
        return encoder
    from voxnest.runtimes.torch import BFloat16Encoder

    return BFloat16Encoder(encoder)


def _exported(encoder: SpeakerEncoder) -> Path:
    """The encoder as an ONNX file of the cache folder, exported if it is not there."""
    path = cache_folder() / "runtimes" / f"{encoder.digest()[:32]}-{__version__}.onnx"
    if not path.exists():
        from voxnest.runtimes.export import export_encoder

        export_encoder(encoder, path, script=False)
    return path


def _proven(runtime: str, path: Path, precision: str, device: str, encoder: SpeakerEncoder) -> Embedder:
    """The engine of an exported encoder, compared with torch at its first use by this version of it on this machine."""
    engine: Embedder = _ENGINES[runtime](path, precision, device)
    notes = _Notes(path)
    key = f"{runtime} {_version(runtime)} {precision} {device} {platform.processor()} {platform.node()}"
    if key not in notes.known:
        notes.keep(key, compare(engine, encoder, precision, subject=f"{encoder.name} in {runtime}").cosine)
    return engine


def _fastest(encoder: SpeakerEncoder, in_torch: Embedder, precision: str) -> Embedder:
    """The engine that takes the least time for one waveform."""
    candidates = {"torch": in_torch}
    there = [name for name in _ENGINES if find_spec(_PACKAGES[name]) is not None]
    if not there or find_spec("onnx") is None:
        return in_torch
    path = _exported(encoder)
    for name in there:
        try:
            candidates[name] = _proven(name, path, precision, "cpu", encoder)
        except (CheckpointError, ConfigError):
            continue  # not equal, or not in this precision
    versions = " ".join(f"{name} {_version(name)}" for name in candidates)
    key, notes = f"fastest {versions} {precision} {platform.node()}", _Notes(path)
    if key not in notes.known:
        seconds = time_each(candidates, speech(SECONDS, encoder.sample_rate)[None])
        notes.keep(key, min(seconds, key=lambda name: seconds[name]))
    return candidates[str(notes.known[key])]


class _Notes:
    """What was found out about an exported model, in a file beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_suffix(".json")
        self.known: dict[str, float | str] = {}
        # Nothing yet, or nothing that can be relied on: it is found out again.
        with contextlib.suppress(OSError, ValueError, TypeError):
            self.known = dict(json.loads(self.path.read_text(encoding="utf-8")))

    def keep(self, key: str, value: float | str) -> None:
        """Add to what is known."""
        self.known[key] = value
        with writing(self.path), atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.known), encoding="utf-8")


def _version(runtime: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(_PACKAGES[runtime])
    except PackageNotFoundError:
        return "unknown"
