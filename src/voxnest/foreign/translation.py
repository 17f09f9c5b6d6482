"""What the translation of a family of models consists of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from voxnest.foreign.description import Description
from voxnest.foreign.weights import Adapt, squeeze_axes
from voxnest.models.family import Family

Settings = Mapping[str, Any]


def whole_state(description: Description, _: Settings) -> Mapping[str, Tensor]:
    """All weights, as they are."""
    return description.state


@dataclass(frozen=True)
class Translation:
    """How a reference's model of one family becomes ours.

    Attributes:
        family: of ours.
        settings: of a description.
        key: our name of one of its keys in a model of these (complete) settings.
        state: the weights that ours takes, still under their keys; some have to be joined, turned or left out.
        adapt: see `Adapt`.
    """

    family: Family
    settings: Callable[[Description], dict[str, Any]]
    key: Callable[[str, Settings], str]
    state: Callable[[Description, Settings], Mapping[str, Tensor]] = whole_state
    adapt: Adapt = squeeze_axes
