"""Adapters: small files that change the weights of an encoder, one at a time; the encoder stays what it is.

An adapter in use is written into the weights, and taken out from a copy of those it has changed. So an adapted encoder
costs no time, and everything that takes an encoder (embedding, export, digest, saving) takes it as it is.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from voxnest.errors import CheckpointError, ConfigError, one_of
from voxnest.files import atomic_write, writing
from voxnest.models.embedding import base_digest
from voxnest.models.exits import by_exit, set_thresholds
from voxnest.models.low_rank import Pair

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

_FORMAT = 1
_KEY = "voxnest-adapter"
_DOWN, _UP, _VALUE = "lora_down.", "lora_up.", "value."
_EXPECTED = "an adapter such as runs/NAME/best.adapter.safetensors"


@dataclass(frozen=True)
class Adapter:
    """What an adapter changes.

    Attributes:
        base: digest of the encoder it belongs to, by architecture and weights.
        base_name: what that was called.
        pairs: name of a weight -> its change of low rank.
        scale: of the changes.
        values: name of a weight or buffer -> what takes its place (of the head or of norms that were trained whole).
        settings: it was trained with.
        thresholds: cosine at the equal error rate of the adapted encoder, by names of sizes ("64", "64@2" at an exit).
        metadata: what else a training told.
    """

    base: str
    base_name: str
    pairs: Mapping[str, Pair]
    scale: float
    values: Mapping[str, Tensor] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return sum(tensor.numel() for tensor in self._tensors().values())

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"{_VALUE}{key}": value for key, value in self.values.items()}
        for key, pair in self.pairs.items():
            tensors |= {f"{_DOWN}{key}": pair.down, f"{_UP}{key}": pair.up}
        return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}

    def save(self, path: str | Path) -> None:
        """Write it to one safetensors file.

        Raises:
            CheckpointError: it cannot be written; what was there before is kept.
        """
        header = {
            "format": _FORMAT,
            "base": self.base,
            "base_name": self.base_name,
            "scale": self.scale,
            "settings": dict(self.settings),
            "thresholds": dict(self.thresholds),
            "metadata": dict(self.metadata),
        }
        with writing(path, CheckpointError), atomic_write(path) as temporary:
            try:
                save_file(self._tensors(), temporary, metadata={_KEY: json.dumps(header)})
            except SafetensorError as error:
                raise OSError(error) from error

    @staticmethod
    def load(path: str | Path) -> Adapter:
        """Read what `save` wrote.

        Raises:
            CheckpointError: the file is missing, damaged, or no adapter.
        """
        if not Path(path).is_file():
            raise CheckpointError(path, "no such file", _EXPECTED)
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get(_KEY)
                tensors = {key: file.get_tensor(key) for key in list(file.keys())} if text else {}
        except (OSError, SafetensorError) as error:
            raise CheckpointError(path, f"not readable as safetensors ({error})", _EXPECTED) from error
        if text is None:
            raise CheckpointError(path, "safetensors that are no adapter", _EXPECTED)
        try:
            return _read(json.loads(text), tensors)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointError(path, f"a malformed adapter: {reprlib.repr(str(error))}", _EXPECTED) from error


def _read(header: dict[str, Any], tensors: dict[str, Tensor]) -> Adapter:
    if header["format"] != _FORMAT:
        raise ValueError(f"format {header['format']}, this voxnest reads {_FORMAT}")
    if not all(value.isfinite().all() for value in tensors.values()):
        raise ValueError("NaN or infinite numbers")

    def of(kind: str) -> dict[str, Tensor]:
        return {key.removeprefix(kind): value for key, value in tensors.items() if key.startswith(kind)}

    down, up = of(_DOWN), of(_UP)
    return Adapter(
        base=str(header["base"]),
        base_name=str(header["base_name"]),
        pairs={key: Pair(down[key], up[key]) for key in up},
        scale=float(header["scale"]),
        values=of(_VALUE),
        settings=dict(header["settings"]),
        thresholds={size: float(value) for size, value in header["thresholds"].items()},
        metadata=dict(header["metadata"]),
    )


class AdapterRack:
    """The adapters of one encoder, of which one or none is in use.

    Attributes:
        loaded: name -> adapter.
        used: the name of the one in use; None if none is.
    """

    def __init__(self) -> None:
        self.loaded: dict[str, Adapter] = {}
        self.used: str | None = None
        self._kept: dict[str, Tensor] = {}
        self._told: dict[int | None, tuple[dict[int, float], dict[int, Any]]] = {}

    def load(self, encoder: SpeakerEncoder, path: str | Path, name: str | None) -> str:
        """See `SpeakerEncoder.load_adapter`."""
        adapter = Adapter.load(path)
        name = name or re.sub(r"(\.adapter)?\.safetensors$", "", Path(path).name)
        used = self.used
        self.use(encoder, None)
        try:
            _check(adapter, encoder, path)
            self.loaded[name] = adapter
        finally:
            self.use(encoder, used)
        return name

    @torch.no_grad()
    def use(self, encoder: SpeakerEncoder, name: str | None) -> None:
        """See `SpeakerEncoder.use_adapter`."""
        if name is not None and name not in self.loaded:
            expected = one_of(name, self.loaded) if self.loaded else "load_adapter first"
            raise ConfigError("adapter", repr(name), expected)
        state = encoder.state_dict()
        for key, value in self._kept.items():
            state[key].copy_(value)
        for stage, told in self._told.items():
            encoder.ends[stage].thresholds, encoder.ends[stage].calibration = told
        self._kept, self._told, self.used = {}, {}, name
        if name is None:
            return
        adapter = self.loaded[name]
        self._kept = {key: state[key].clone() for key in (*adapter.pairs, *adapter.values)}
        for key, pair in adapter.pairs.items():
            on_device = Pair(*(part.to(state[key].device) for part in pair))
            state[key].add_(on_device.change(state[key], adapter.scale).to(state[key].dtype))
        for key, value in adapter.values.items():
            state[key].copy_(value)
        self._told = {stage: (end.thresholds, end.calibration) for stage, end in encoder.ends.items()}
        set_thresholds(encoder, adapter.thresholds)
        for end in encoder.ends.values():
            end.calibration = {}


def _check(adapter: Adapter, encoder: SpeakerEncoder, path: str | Path) -> None:
    """Refuse an adapter of other weights, and one that does not fit."""
    if adapter.base != (found := base_digest(encoder)):
        raise CheckpointError(
            path,
            f"an adapter of another encoder: of {adapter.base_name} with digest {adapter.base[:12]}",
            f"one of this {encoder.name}, whose digest is {found[:12]}",
        )
    try:
        by_exit(encoder, adapter.thresholds)
    except ConfigError as error:
        raise CheckpointError(path, f"a threshold for {error.subject} numbers", error.expected) from error
    state = encoder.state_dict()
    for key in (*adapter.pairs, *adapter.values):
        if key in adapter.pairs:
            down, up = adapter.pairs[key]
            fits = key in state and up.ndim == down.ndim == 2 and up.shape[1] == down.shape[0]
            fits = fits and (up.shape[0], down.shape[1]) == (len(state[key]), state[key][0].numel())
        else:
            fits = key in state and adapter.values[key].shape == state[key].shape
        if not fits:
            raise CheckpointError(path, f"a change of {key} that does not fit", f"one of {encoder.name}")
