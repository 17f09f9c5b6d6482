"""Exported models in onnxruntime."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

import numpy as np

from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.runtimes.engine import Engine, import_extra

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}


class OnnxEncoder(Engine):
    """An exported model in onnxruntime.

    Args:
        path: of an ONNX file of `voxnest export`.
        precision: "float32", or "int8" of a file that is in it.
        device: "cpu"; "cuda" or "mps" where this onnxruntime has them; "auto" for a GPU if there is one.

    Raises:
        CheckpointError: the file is missing or damaged, or voxnest did not write it.
        ConfigError: onnxruntime is not installed, or has no such device or precision.
    """

    runtime = "onnx"

    def __init__(self, path: str | Path, precision: str = "float32", device: str = "cpu") -> None:
        if precision == "bfloat16":
            expected = "float32; or --runtime openvino or torch"
            raise ConfigError("precision", "bfloat16, which onnxruntime does not compute in", expected)
        self._library = import_extra("onnxruntime", "onnx")
        self._library.set_default_logger_severity(3)
        self._providers = _providers(self._library, device)
        super().__init__(path, precision)
        self._sessions: dict[bool, Any] = {}
        self._locks = {alone: threading.Lock() for alone in (False, True)}

    def load_ahead(self) -> None:
        """Begin to load what the threads of `ready` compute with, while the program goes on.

        onnxruntime lets other threads of Python run meanwhile, which a command has imports for.
        """

        def load() -> None:
            with contextlib.suppress(CheckpointError):  # who asks for an embedding is told
                self._session(alone=False)

        threading.Thread(target=load, name="load").start()

    def run(self, waveform: np.ndarray, *, alone: bool) -> np.ndarray:
        """See `Engine`."""
        result: np.ndarray = self._session(alone).run(None, {"waveform": waveform})[0]
        return result

    def _session(self, alone: bool) -> Any:
        with self._locks[alone]:
            if alone not in self._sessions:
                self._sessions[alone] = self._load(self.threads if alone else 1)
            return self._sessions[alone]

    def _load(self, threads: int) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = threads
        # A thread that waits for work in a loop takes the processor from those of the program.
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(threads > 1)))
        try:
            return self._library.InferenceSession(str(self.path), options, providers=self._providers)
        except Exception as error:
            found = f"onnxruntime cannot load it: {' '.join(str(error).split())}"
            raise CheckpointError(self.path, found, "a whole file of voxnest export") from error


def _providers(library: Any, device: str) -> list[str]:
    kind, _, number = device.partition(":")
    there = [name for name, provider in _PROVIDERS.items() if provider in library.get_available_providers()]
    if kind == "auto":
        kind = "cuda" if "cuda" in there else "cpu"
    if kind not in there:
        raise ConfigError("device", f"{device!r}, with onnxruntime", one_of(device, ["auto", *there]))
    provider: Any = _PROVIDERS[kind]
    if kind == "cuda":
        provider = (provider, {"device_id": number or "0"})
    return [provider] if kind == "cpu" else [provider, _PROVIDERS["cpu"]]
