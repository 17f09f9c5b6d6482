"""Read golden files and make their weights and inputs again.

The rule is that of `shared/parity/fill.py`, whose golden files were made from the reference implementations: every
weight is a function of its name alone, so that two implementations can be filled alike.
"""

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def read(path: Path) -> dict[str, Any]:
    with gzip.open(path, "rt") as file:
        contents: dict[str, Any] = json.load(file)
    return contents


def make_input(file: dict[str, Any]) -> Tensor:
    spec = file["input"]
    noise = np.random.default_rng(spec["seed"]).standard_normal(spec["shape"])
    return torch.from_numpy((spec["scale"] * noise).astype(np.float32))


def make_state_dict(file: dict[str, Any]) -> dict[str, Tensor]:
    filled = set(file["filled"])
    return {key: _weight(key, shape) if key in filled else torch.zeros(shape) for key, shape in file["keys"]}


def expected(file: dict[str, Any]) -> Tensor:
    return torch.tensor(file["output"]).reshape(file["output_shape"])


def bound(output: Tensor) -> float:
    return 1e-4 * max(1.0, output.abs().max().item())


def _weight(key: str, shape: list[int]) -> Tensor:
    noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(shape)).astype(np.float32)
    leaf = key.rsplit(".", 1)[-1]
    if leaf == "running_var":
        value = 1.0 + 0.1 * np.abs(noise)
    elif leaf == "weight" and len(shape) >= 2:
        value = noise * np.float32(np.prod(shape[1:]) ** -0.5)
    elif leaf == "weight":
        value = 1.0 + 0.1 * noise
    else:
        value = 0.1 * noise
    return torch.from_numpy(np.asarray(value, dtype=np.float32))
