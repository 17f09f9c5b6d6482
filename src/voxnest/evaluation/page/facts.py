"""What must be known to repeat an evaluation: the command, the machine, and what each model is."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

LIBRARIES = ("voxnest", "torch", "numpy", "soundfile", "soxr")
LONGEST = 300  # letters of a fact


def environment() -> dict[str, str]:
    """When, by which command, with what and where: name -> text."""
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
        "machine": system,
        "gpu": ", ".join(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())) or "none",
    }


def describe_encoder(encoder: Embedder, metadata: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The card of a model: name -> text.

    Args:
        encoder: what it is.
        metadata: what its checkpoint tells of its training (`voxnest.hub.checkpoint.find_metadata`).
    """
    facts = {
        "name": encoder.name,
        **_network(encoder),
        "embedding sizes": ", ".join(map(str, encoder.dims)),
        "sample rate": f"{encoder.sample_rate:,} Hz",
        "shortest recording": f"{encoder.min_samples / encoder.sample_rate:.2g} s",
    }
    told = dict(metadata or {})
    card = told.pop("card", {})
    for key, value in {**told, **(card if isinstance(card, dict) else {"card": card})}.items():
        facts[(f"training: {key}" if key in told else key).replace("_", " ")] = _short(value)
    return facts


def _network(encoder: Embedder) -> dict[str, str]:
    """What only PyTorch knows of a model, or what computes an exported one."""
    if isinstance(encoder, torch.nn.Module):
        weights = sum(weight.numel() for weight in encoder.parameters())
        return {"architecture": str(encoder.architecture), "parameters": f"{weights:,}"}
    return {"runtime": type(encoder).__name__}


def _short(value: Any) -> str:
    text = _plain(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _plain(value: Any) -> str:
    """JSON values as a reader wants them: no braces around the whole, numbers of four digits."""
    if isinstance(value, Mapping):
        inner = (
            (key, f"({_plain(item)})" if isinstance(item, Mapping) else _plain(item)) for key, item in value.items()
        )
        return ", ".join(f"{key}: {text}" for key, text in inner)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
