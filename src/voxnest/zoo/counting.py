"""Count what a model holds and does, and compare that with what was published."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from voxnest.models.embedding import eval_mode
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.registry import CARDS, create_encoder

KEPT = Path(__file__).parent / "counts.json"
"""Counts of the whole registry, for they take a quarter of a second each: written by `python tools/zoo.py --counts`."""

TOLERANCE = 0.03
"""By how much a count may differ from the published one without an explanation."""


def count_parameters(encoder: SpeakerEncoder) -> int:
    """Number of trainable numbers."""
    return sum(parameter.numel() for parameter in encoder.parameters() if parameter.requires_grad)


def count_macs(encoder: SpeakerEncoder, seconds: float = 2.0) -> int:
    """Multiply-accumulates of convolutions, matrix products and attention for one utterance of `seconds`.

    From the features on: papers leave the front end out. Counted on a forward pass, of shapes without numbers.
    """
    device = next(iter([*encoder.frontend.buffers(), *encoder.parameters()])).device
    with eval_mode(encoder), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        waveform = torch.zeros(1, int(seconds * encoder.sample_rate), device=device)
        flow = encoder.frontend(waveform).to("meta")
        before = counter.get_total_flops()
        for part in (encoder.backbone, encoder.pooling, encoder.head):
            numbers = {**dict(part.named_parameters()), **dict(part.named_buffers())}
            flow = functional_call(part, {key: value.to("meta") for key, value in numbers.items()}, flow)
    return (counter.get_total_flops() - before) // 2


def count_model(name: str) -> tuple[int, int]:
    """Parameters, and multiply-accumulates for 2 s, of a model of the registry, built without weights."""
    with torch.device("meta"):
        encoder = create_encoder(name)
    return count_parameters(encoder), count_macs(encoder)


def kept_counts(name: str) -> tuple[float, float]:
    """Millions of parameters, and GMACs for 2 s, of a model of the registry, as `count_model` gave them."""
    parameters, macs = _kept()[name]
    return parameters / 1e6, macs / 1e9


@cache
def _kept() -> dict[str, tuple[int, int]]:
    counts: dict[str, tuple[int, int]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return counts


@dataclass(frozen=True)
class Comparison:
    """Counts of a built model beside the published ones, in millions of parameters and GMACs for 2 s."""

    name: str
    parameters: float
    gmacs: float
    published_parameters: float
    published_gmacs: float | None
    note: str

    @property
    def differences(self) -> tuple[float, float | None]:
        """Of parameters and GMACs, as fractions of the published ones; None where those are not published."""
        gmacs = None if self.published_gmacs is None else self.gmacs / self.published_gmacs - 1
        return self.parameters / self.published_parameters - 1, gmacs

    @property
    def differs(self) -> bool:
        """One of them by more than `TOLERANCE`."""
        return any(abs(difference or 0.0) > TOLERANCE for difference in self.differences)

    @property
    def explained(self) -> bool:
        """It does not differ, or the registry says why."""
        return not self.differs or bool(self.note)


def compare_with_published(name: str) -> Comparison | None:
    """Compare the counts of a model of the registry; None if no parameters were published."""
    published = CARDS[name].published
    if published.parameters is None:
        return None
    return Comparison(name, *kept_counts(name), published.parameters, published.gmacs, published.note)
