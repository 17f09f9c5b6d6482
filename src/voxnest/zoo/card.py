"""A model's card: what builds it, and what was published about it. Data only; see `voxnest.zoo.cards`."""

from dataclasses import dataclass, field
from typing import Any

from voxnest.models.families import FAMILIES
from voxnest.models.family import Family


@dataclass(frozen=True)
class Published:
    """What the source says of a model.

    Attributes:
        parameters: in millions.
        gmacs: multiply-accumulates for 2 s of speech, in thousands of millions.
        eer: equal error rate in percent per test list, without score normalisation.
        eer_as_norm: the same with adaptive score normalisation.
        source: where it says so.
        note: why the built model's counts differ from the published ones by more than 3%.
    """

    parameters: float | None = None
    gmacs: float | None = None
    eer: dict[str, float] = field(default_factory=dict)
    eer_as_norm: dict[str, float] = field(default_factory=dict)
    source: str = ""
    note: str = ""

    def rate(self, trials: str) -> str:
        """The EER on a list as tables show it: with score normalisation in brackets, "-" for what was not published."""
        alone = f"{self.eer[trials]:.2f}" if trials in self.eer else "-"
        return f"{alone} ({self.eer_as_norm[trials]:.2f})" if trials in self.eer_as_norm else alone


@dataclass(frozen=True)
class Card:
    """One entry of the registry.

    Attributes:
        family: what the papers call it and its other sizes.
        summary: a few words on this size.
        architecture: the family of networks that it is of, as `voxnest.models.families` has it.
        settings: those that differ from the defaults.
        published: figures of the source.
    """

    family: str
    summary: str
    architecture: str
    settings: dict[str, Any]
    published: Published = Published()

    @property
    def network(self) -> Family:
        """What builds it; fields of its configuration are what `create_encoder` accepts."""
        return FAMILIES[self.architecture]


VOX1 = ("Vox1-O", "Vox1-E", "Vox1-H")
"""The trial lists that most papers report."""


def vox1(
    parameters: float,
    gmacs: float,
    eer: tuple[float, ...] = (),
    as_norm: tuple[float, ...] = (),
    *,
    source: str,
    note: str = "",
) -> Published:
    """Figures with EERs in the order of `VOX1`, without and with score normalisation (or none)."""
    rates = [dict(zip(VOX1, values, strict=True)) if values else {} for values in (eer, as_norm)]
    return Published(parameters, gmacs, rates[0], rates[1], source, note)
