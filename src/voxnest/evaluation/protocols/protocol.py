"""A trial list that papers report on, as data: `*.yaml` in this folder."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from voxnest.errors import ConfigError, one_of

_FOLDER = files("voxnest.evaluation.protocols")
_SUFFIX = ".yaml"


@dataclass(frozen=True)
class Protocol:
    """Where a list and its recordings are, below the folder of the corpus.

    Attributes:
        name: what `--protocol` takes.
        title: what it is.
        list: names of the trial list; the first one that is there.
        folders: that paths in the lists may start from; for each path the first in which it is.
        address: where the list is published, if it is.
        sha256: of the published list, if known.
        enrollment: names of the list that tells the recordings of each enrolled speaker; empty if trials name
            recordings.
        model_suffix: what trials may add to the names of that list.
        trials: how many there are, if known.
    """

    name: str
    title: str
    list: tuple[str, ...]
    folders: tuple[str, ...]
    address: str | None = None
    sha256: str | None = None
    enrollment: tuple[str, ...] = ()
    model_suffix: str = ""
    trials: int | None = None


def protocol_names() -> list[str]:
    """The names of all protocols."""
    return sorted(item.name.removesuffix(_SUFFIX) for item in _FOLDER.iterdir() if item.name.endswith(_SUFFIX))


def find_protocol(name: str) -> Protocol:
    """Give a protocol by its name.

    Raises:
        ConfigError: there is none of that name.
    """
    names = protocol_names()
    if name not in names:
        raise ConfigError("protocol", repr(name), one_of(name, names, few=len(names)))
    values: dict[str, Any] = yaml.safe_load(_FOLDER.joinpath(name + _SUFFIX).read_text(encoding="utf-8"))
    for key in ("list", "folders", "enrollment"):
        given = values.get(key, ())
        values[key] = (given,) if isinstance(given, str) else tuple(given)
    return Protocol(name=name, **values)
