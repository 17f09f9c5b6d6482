"""Write an encoder as one graph from the waveform to the embedding, that other engines run.

An ONNX file is made by recording what PyTorch does with one waveform. The newer way, by way of `torch.export`, takes
twenty times as long for the same graph, and bounds the length by what it cannot prove; it makes the `.pt2` files.
"""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from voxnest.errors import CheckpointError, ConfigError
from voxnest.files import atomic_write, check_output, writing
from voxnest.models.folding import fold
from voxnest.runtimes.description import KEY, Description
from voxnest.runtimes.engine import Engine, import_extra
from voxnest.runtimes.onnx import OnnxEncoder
from voxnest.runtimes.openvino import OpenVINOEncoder
from voxnest.runtimes.proof import compare, speech
from voxnest.runtimes.quantization import check_speed, quantize, time_engines

if TYPE_CHECKING:
    from voxnest.frontends import Frontend
    from voxnest.models.embedder import Embedder
    from voxnest.models.encoder import SpeakerEncoder

SUFFIXES = (".onnx", ".pt2")
_OPSET = 20
"""The first with GELU, which onnxruntime 1.17 and newer run."""


@dataclass(frozen=True)
class ExportReport:
    """What `export_encoder` wrote.

    Attributes:
        path: the model.
        description: what the file tells of itself.
        cosines: engine -> the least cosine similarity of its embeddings to those of PyTorch in float32.
        waveforms: how many each engine was compared on.
        script: the program beside an ONNX model that runs it.
        seconds: of int8: precision and runtime -> what a recording takes.
    """

    path: Path
    description: Description
    cosines: dict[str, float]
    waveforms: int
    script: Path | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def export_encoder(
    encoder: SpeakerEncoder,
    path: str | Path,
    *,
    dim: int | None = None,
    precision: str = "float32",
    check: Sequence[str | Path] = (),
    calibrate: Sequence[str | Path] = (),
    card: dict[str, Any] | None = None,
    script: bool = True,
    for_size: bool = False,
    approve: Callable[[Embedder], object] | None = None,
) -> ExportReport:
    """Write an encoder as one graph, front end inside: `waveform [batch, samples]` to `embedding [batch, dim]`.

    Batch and length are free. The file is loaded again and compared with PyTorch on speech of several lengths, at every
    prefix; only if it is equal does it get its name. "model.onnx" is for onnxruntime and OpenVINO, and tells of itself
    what `Description` has; "model.pt2" is for PyTorch without voxnest (`torch.export.load`), and may ask for a longer
    waveform (`description.min_samples` of the report): `torch.export` holds some networks to lengths like the one it
    saw.

    Args:
        encoder: it stays as it is. With `dim`, its part that gives so many numbers at least cost (`for_dim`).
        path: ends in .onnx or .pt2.
        dim: size of the embedding, one that the encoder has; the largest if None.
        precision: "float32"; of an ONNX file "int8" too.
        check: recordings to compare on, rather than on what sounds like speech.
        calibrate: recordings that int8 learns its ranges from.
        card: what is known of the model, for people.
        script: write a program beside an ONNX model that runs it.
        for_size: write int8 even where it is no faster than the same model in float32 or bfloat16, on this machine.
        approve: is called with what was written to an ONNX file, before it gets its name; not if it raises.

    Raises:
        AudioError: a recording cannot be used.
        CheckpointError: what was written differs from PyTorch (nothing is left of it).
        ConfigError: a wrong size, precision or name; int8 that is no faster; or a package that is not installed.
        VoxnestError: it cannot be written.
    """
    path = Path(path)
    check_output(path, *SUFFIXES)
    graph = ".pt2" if path.suffix.lower() == ".pt2" else ".onnx"
    known = {".onnx": ("float32", "int8"), ".pt2": ("float32",)}[graph]
    if precision not in known:
        raise ConfigError("precision", f"{precision!r}, of a {graph} file", " or ".join(known))
    if (precision == "int8") != bool(calibrate):
        found = "int8, without recordings" if precision == "int8" else "recordings, without int8"
        raise ConfigError("calibrate", found, "precision int8 and recordings that it learns from, or neither")
    size = encoder.check_dim(encoder.embedding_dim if dim is None else dim)
    encoder = encoder.for_dim(dim)
    dims = tuple(value for value in encoder.dims if value <= size)
    described = Description(
        *(encoder.name, encoder.architecture, encoder.sample_rate, dims, encoder.min_samples, encoder.digest()),
        precision,
        {dim: value for dim, value in encoder.thresholds.items() if dim in dims},
        {dim: value for dim, value in encoder.calibration.items() if dim in dims},
        card or {},
    )
    with writing(path), atomic_write(path) as temporary:
        if graph == ".pt2":
            return _write_pt2(encoder, described, path, temporary, check)
        seconds = {}
        if precision == "int8":
            seconds = _write_int8(encoder, described, temporary, calibrate)
        else:
            _write_onnx(encoder, described, temporary)
        engines = _installed(temporary, precision)
        proofs = {engine.runtime: compare(engine, encoder, precision, check, subject=path) for engine in engines}
        if seconds and not for_size:
            check_speed(path, seconds)
        if approve is not None:
            approve(engines[0])
    program = _write_script(path, described) if script else None
    cosines = {runtime: proof.cosine for runtime, proof in proofs.items()}
    waveforms = max(proof.waveforms for proof in proofs.values())
    return ExportReport(path, described, cosines, waveforms, program, seconds)


class Graph(nn.Module):
    """An encoder as what is written down: no checks, and Fourier transforms as products.

    Args:
        encoder: is copied.
        size: of the embedding.
    """

    def __init__(self, encoder: SpeakerEncoder, size: int) -> None:
        super().__init__()
        self.encoder = fold(encoder).cpu()
        cast("Frontend", self.encoder.frontend).use_products()
        self.size = size

    def forward(self, waveform: Tensor) -> Tensor:
        """`[batch, samples]` to `[batch, size]`."""
        embedding = self.encoder.embed_features(self.encoder.frontend(waveform))
        return cast(Tensor, embedding)[:, : self.size]

    def example(self) -> Tensor:
        """A waveform to record with: two, of a length that leaves frames over in networks with strides."""
        rate = self.encoder.sample_rate
        seconds = 3.0 + self.encoder.min_samples / rate
        return torch.from_numpy(np.stack([speech(seconds, rate, voice) for voice in (0, 1)]))


def _write_onnx(encoder: SpeakerEncoder, described: Description, path: Path) -> None:
    onnx = import_extra("onnx", "export")
    graph = Graph(encoder, described.dims[-1])
    from voxnest.runtimes.graph import optimize
    from voxnest.runtimes.shapes import simplify

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of shapes that are taken for constants, which is found out below
        torch.onnx.export(
            graph,
            (graph.example(),),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["waveform"],
            output_names=["embedding"],
            dynamic_axes={"waveform": {0: "batch", 1: "samples"}, "embedding": {0: "batch"}},
        )
    shortest = described.min_samples / described.sample_rate
    waveforms = [
        np.stack([speech(seconds + 2 * shortest, described.sample_rate)] * batch)
        for batch, seconds in ((1, 1.3), (2, 3.1), (3, 5.2))
    ]
    model = optimize(simplify(onnx.load(path), waveforms))
    model.producer_name = "voxnest"
    onnx.helper.set_model_props(model, {KEY: described.to_json()})
    onnx.save(model, path)


def _write_int8(
    encoder: SpeakerEncoder, described: Description, path: Path, recordings: Sequence[str | Path]
) -> dict[str, float]:
    """Write the file, and give what `time_engines` does of it and of the same graph in other precisions."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float32.onnx")
        _write_onnx(encoder, replace(described, precision="float32"), plain)
        quantize(plain, path, described, recordings)
        return time_engines(_installed(path, "int8") + _installed(plain, "float32", "bfloat16"), recordings[0])


def _installed(path: Path, *precisions: str) -> list[Engine]:
    """The engines that are installed, for a file in each precision that they have.

    Raises:
        ConfigError: there is none.
    """
    engines: list[Engine] = []
    missing: list[ConfigError] = []
    for precision in precisions:
        for kind in (OnnxEncoder, OpenVINOEncoder):
            try:
                engines.append(kind(path, precision))
            except ConfigError as error:
                missing.append(error)
    if not engines:
        raise missing[0]
    return engines


def _write_pt2(
    encoder: SpeakerEncoder, described: Description, path: Path, temporary: Path, check: Sequence[str | Path]
) -> ExportReport:
    graph = Graph(encoder, described.dims[-1])
    free = {"waveform": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(graph, (graph.example(),), dynamic_shapes=free, strict=False)
        except Exception as error:
            raise CheckpointError(path, f"torch.export cannot: {' '.join(str(error).split())[:200]}") from error
        shortest = _shortest(program.module(), described, path)
        described = replace(described, min_samples=shortest)
        torch.export.save(program, temporary, extra_files={KEY: described.to_json()})
        module = torch.export.load(temporary).module()
        proof = compare(_Loaded(module, encoder, described), encoder, described.precision, check, subject=path)
    return ExportReport(path, described, {"torch": proof.cosine}, proof.waveforms)


def _shortest(module: Any, described: Description, path: Path) -> int:
    """The shortest waveform that a captured graph takes, of those tried."""
    rate = described.sample_rate
    for samples in sorted({described.min_samples, *(max(described.min_samples, n * rate // 10) for n in range(1, 31))}):
        with contextlib.suppress(AssertionError, RuntimeError):
            module(torch.zeros(1, samples))
            return samples
    raise CheckpointError(path, "a graph of torch.export that takes no second of sound", "an .onnx file")


class _Loaded:
    """A `.pt2` file as far as `compare` needs it."""

    def __init__(self, module: Any, encoder: Embedder, described: Description) -> None:
        self.module, self.dims, self.ready = module, described.dims, encoder.ready
        self.sample_rate, self.min_samples = described.sample_rate, described.min_samples

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        result: np.ndarray = self.module(torch.from_numpy(waveform)).float().numpy()
        return result


_SCRIPT = '''"""Speaker embeddings of WAV files at {rate} Hz: python {script} a.wav b.wav

Needs numpy, soundfile and onnxruntime, and nothing else. Written by voxnest export.
"""

import sys

import numpy as np
import onnxruntime
import soundfile

session = onnxruntime.InferenceSession("{model}")
for path in sys.argv[1:]:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate == {rate}, f"{{path}}: {{rate}} Hz, expected {rate}"
    (embedding,) = session.run(None, {{"waveform": samples.mean(axis=1)[None]}})  # [1, {dim}]; score by cosine
    print(path, *np.round(embedding[0] / np.linalg.norm(embedding), 5))
'''


def _write_script(path: Path, described: Description) -> Path:
    script = path.with_name(f"{path.stem}_run.py")
    text = _SCRIPT.format(rate=described.sample_rate, model=path.name, script=script.name, dim=described.dims[-1])
    with writing(script), atomic_write(script) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return script
