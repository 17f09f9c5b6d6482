"""Exported models in OpenVINO."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np

from voxnest.errors import CheckpointError, ConfigError
from voxnest.runtimes.engine import MOST_THREADS, Engine, import_extra

_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
_WARM_UP = 2  # seconds


class OpenVINOEncoder(Engine):
    """An exported model in OpenVINO, on the CPU.

    Args:
        path: of an ONNX file of `voxnest export`.
        precision: "float32"; "bfloat16" where the processor computes in it, with embeddings in float32; "int8" of a
            file that is in it.
        device: "cpu" or "auto".

    Raises:
        CheckpointError: the file is missing or damaged, or voxnest did not write it.
        ConfigError: OpenVINO is not installed, the processor has no bfloat16 (OpenVINO would compute in float32 and not
            say so), or another device.
    """

    runtime = "openvino"

    def __init__(self, path: str | Path, precision: str = "float32", device: str = "cpu") -> None:
        if device not in ("cpu", "auto"):
            raise ConfigError("device", f"{device!r}, with OpenVINO", "cpu")
        self._core = the_core(import_extra("openvino", "openvino"))
        if precision == "bfloat16" and not has_bfloat16(self._core):
            raise ConfigError("precision", "bfloat16, which this processor does not compute in", "float32")
        super().__init__(path, precision)
        self._compiled: dict[bool, Any] = {}
        self._lock = threading.Lock()
        self._requests = threading.local()

    def run(self, waveform: np.ndarray, *, alone: bool) -> np.ndarray:
        """See `Engine`."""
        requests: dict[bool, Any] = self._requests.__dict__.setdefault("of", {})
        if alone not in requests:
            with self._lock:
                if alone not in self._compiled:
                    self._compiled[alone] = self._compile(alone)
                requests[alone] = self._compiled[alone].create_infer_request()
        result = requests[alone].infer({0: waveform}, share_inputs=True)
        return np.array(result[0])

    def _compile(self, alone: bool) -> Any:
        threads = min(self.threads, MOST_THREADS)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
            "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT",
            "NUM_STREAMS": 1 if alone else threads,
            "INFERENCE_NUM_THREADS": self.threads if alone else threads,
        }
        try:
            compiled = self._core.compile_model(str(self.path), "CPU", settings)
        except Exception as error:
            found = f"OpenVINO cannot load it: {' '.join(str(error).split())}"
            raise CheckpointError(self.path, found, "a whole file of voxnest export") from error
        # What OpenVINO (2026.4) decides at the first waveform it keeps: if that is so short that a network with strides
        # has one frame left, later ones are embedded wrongly. All streams hear seconds of noise first, so.
        noise = np.random.default_rng(0).normal(0, 0.01, (1, self.min_samples + _WARM_UP * self.sample_rate))
        requests = [compiled.create_infer_request() for _ in range(settings["NUM_STREAMS"])]
        for request in requests:
            request.start_async({0: noise.astype(np.float32)})
        for request in requests:
            request.wait()
        return compiled


@functools.cache
def the_core(library: Any) -> Any:
    """The one core of this process, never released.

    A core gives its thread a stack for signals. Of two that are released in the order they were made, the second leaves
    the stack of the first there, which is gone (OpenVINO 2026.4): the next signal, Ctrl-C say, ends the process.
    """
    return library.Core()


def has_bfloat16(core: Any) -> bool:
    """Whether the processor computes in bfloat16."""
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
