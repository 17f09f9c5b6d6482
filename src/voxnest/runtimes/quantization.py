"""Weights and activations of an exported graph in 8 bits, with ranges learnt from recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxnest.audio import read_audio
from voxnest.runtimes.description import Description
from voxnest.runtimes.engine import import_extra

SECONDS = 10.0
"""Of each recording: the ranges of activations do not grow with the length."""
_KINDS = ["Conv", "MatMul", "Gemm"]


def quantize(path: Path, described: Description, recordings: Sequence[str | Path]) -> None:
    """Replace an exported ONNX file by the same in 8 bits; the front end and the head stay in float32.

    Raises:
        AudioError: a recording cannot be used.
        ConfigError: onnxruntime or onnx is not installed.
    """
    onnx = import_extra("onnx", "export")
    library = import_extra("onnxruntime.quantization", "onnx")
    graph = onnx.load(path).graph
    kept = [node.name for node in graph.node if "/frontend/" in node.name or "/head/" in node.name]
    library.quantize_static(
        str(path),
        str(path),
        _reader(library, described, recordings),
        quant_format=library.QuantFormat.QDQ,
        op_types_to_quantize=_KINDS,
        nodes_to_exclude=kept,
        per_channel=True,
        activation_type=library.QuantType.QUInt8,
        weight_type=library.QuantType.QInt8,
        extra_options={"WeightSymmetric": True},
    )


def _reader(library: Any, described: Description, recordings: Sequence[str | Path]) -> Any:
    class Reader(library.CalibrationDataReader):
        """What onnxruntime asks for the next input."""

        def __init__(self) -> None:
            self.waveforms = _waveforms(described, recordings)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.waveforms, None)

    return Reader()


def _waveforms(described: Description, recordings: Sequence[str | Path]) -> Iterator[dict[str, np.ndarray]]:
    rate = described.sample_rate
    for path in recordings:
        shortest = described.min_samples / rate
        samples = read_audio(path, sample_rate=rate, duration=SECONDS, min_duration=shortest).samples
        yield {"waveform": samples[None]}
