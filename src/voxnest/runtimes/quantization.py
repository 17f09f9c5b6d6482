"""Weights and activations of an exported graph in 8 bits, with ranges learnt from recordings; and whether that pays."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from voxnest.audio import read_audio
from voxnest.errors import ConfigError
from voxnest.runtimes.description import KEY, Description
from voxnest.runtimes.engine import Engine, import_extra
from voxnest.runtimes.timing import SECONDS, time_each

LEARNT_FROM = 10.0
"""Seconds of each recording: the ranges of activations do not grow with the length."""
MOST_RECORDINGS = 64
"""Of those that are given, so many from all over the list: each takes a second, and more do not change the ranges."""
MOST_LOSS = 0.03
"""The most that the EER may grow by, of itself."""
_KINDS = ["Conv", "MatMul", "Gemm"]
_ALL_THE_SAME = "--for-size to have it all the same, for its size"


def quantize(source: Path, target: Path, described: Description, recordings: Sequence[str | Path]) -> None:
    """Write an exported ONNX file again in 8 bits; the front end and the head stay in float32.

    Args:
        source: in float32.
        target: the same in 8 bits.
        described: what it will tell of itself.
        recordings: that the ranges are learnt from, `MOST_RECORDINGS` of them.

    Raises:
        AudioError: a recording cannot be used.
        ConfigError: onnxruntime or onnx is not installed.
    """
    onnx = import_extra("onnx", "export")
    library = import_extra("onnxruntime.quantization", "onnx")
    graph = onnx.load(source).graph
    kept = [node.name for node in graph.node if "/frontend/" in node.name or "/head/" in node.name]
    logging.disable(logging.WARNING)  # it advises to simplify the graph first, which is done
    try:
        library.quantize_static(
            str(source),
            str(target),
            _reader(library, described, recordings[:: -(-len(recordings) // MOST_RECORDINGS)]),
            quant_format=library.QuantFormat.QDQ,
            op_types_to_quantize=_KINDS,
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=library.QuantType.QUInt8,
            weight_type=library.QuantType.QInt8,
            extra_options={"WeightSymmetric": True},
        )
    finally:
        logging.disable(logging.NOTSET)
    model = onnx.load(target)
    onnx.helper.set_model_props(model, {KEY: described.to_json()})
    onnx.save(model, target)


def time_engines(engines: Sequence[Engine], recording: str | Path) -> dict[str, float]:
    """Precision and runtime -> seconds for the first `SECONDS` of a recording, by turns."""
    described = engines[0].description
    waveform = next(_waveforms(described, [recording]))["waveform"][:, : round(SECONDS * described.sample_rate)]
    return time_each({f"{engine.precision} ({engine.runtime})": engine for engine in engines}, waveform)


def check_speed(path: Path, seconds: Mapping[str, float]) -> None:
    """Refuse a file in 8 bits that is not faster than every other way to run the model here.

    Args:
        path: of the file.
        seconds: see `time_engines`.

    Raises:
        ConfigError: with the times of both.
    """
    fastest = min(seconds, key=lambda name: seconds[name])
    if not fastest.startswith("int8"):
        own = min((name for name in seconds if name.startswith("int8")), key=lambda name: seconds[name])
        times = f"{own} takes {1e3 * seconds[own]:.1f} ms a recording, {fastest} {1e3 * seconds[fastest]:.1f} ms"
        raise ConfigError(path, f"not written: {times}", f"int8 to be faster; {_ALL_THE_SAME}")


def check_errors(path: Path, before: Mapping[int, float], after: Mapping[int, float]) -> None:
    """Refuse a file in 8 bits whose equal error rate is more than `MOST_LOSS` above that in float32, at any size.

    Args:
        path: of the file.
        before: size of embedding -> EER in float32.
        after: the same in 8 bits.

    Raises:
        ConfigError: with both rates, at the size that loses most.
    """
    worse = {dim: after[dim] - rate for dim, rate in before.items() if after[dim] > (1 + MOST_LOSS) * rate}
    if worse:
        dim = max(worse, key=lambda dim: worse[dim])
        found = f"the EER of {dim} numbers is {after[dim]:.3%} in int8 and {before[dim]:.3%} in float32"
        raise ConfigError(path, f"not written: {found}", f"at most {MOST_LOSS:.0%} more; {_ALL_THE_SAME}")


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
        samples = read_audio(path, sample_rate=rate, duration=LEARNT_FROM, min_duration=shortest).samples
        yield {"waveform": samples[None]}
