"""What may stand on each edge of a cell: the spaces of AutoSpeech, and the user's own.

A cell has two inputs and four nodes; node i receives an edge from each input and each earlier node, so there are
2 + 3 + 4 + 5 = 14 edges, ordered by the node they lead to, then by where they come from.

Source: Ding et al., AutoSpeech (arXiv 2005.03215), and its implementation (VITA-Group/AutoSpeech). s1 is the first
reduced space of Zela et al. (openreview.net/forum?id=H1gDNyrKDS), s2 that of DARTS (arXiv 1806.09055), s3 has
convolutions over time or frequency alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voxnest.errors import ConfigError, one_of
from voxnest.models.operations import OPERATIONS

NODES = 4
"""Nodes of a cell beside its two inputs."""
EDGES = tuple((source, node) for node in range(NODES) for source in range(node + 2))
"""Of each edge, the number of the state it comes from (0 and 1 are the inputs) and of the node it leads to."""
NONE = "none"
CELLS = ("normal", "reduce")

_POOLS = ("max_pool_3x3", "avg_pool_3x3")
_DARTS = (NONE, *_POOLS, "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5")
_ONE_DIMENSIONAL = (
    NONE, *_POOLS, "skip_connect", "sep_conv_3x3", "sep_conv_3x1", "sep_conv_1x3",
    "dil_conv_3x3", "dil_conv_3x1", "dil_conv_1x3",
)  # fmt: skip
# Two operations for each edge, by letters: Skip, Max, Avg, sep_conv 3, dil_conv 3 (d) and 5 (D).
_LETTERS = {
    "S": "skip_connect", "M": "max_pool_3x3", "A": "avg_pool_3x3",
    "s": "sep_conv_3x3", "d": "dil_conv_3x3", "D": "dil_conv_5x5",
}  # fmt: skip
_REDUCED_NORMAL = "Sd SD SD Ss Sd MS Ss Ss Sd Ss MS Sd dD dD"
_REDUCED_REDUCE = "MA Md MA MA SD MA Ms Sd SD MA MA SD SD SD"


@dataclass(frozen=True)
class Space:
    """The operations to choose from.

    Attributes:
        name: of the space.
        normal: for each of the `EDGES` of the normal cell, the names of its operations.
        reduce: the same of the reduction cell.
    """

    name: str
    normal: tuple[tuple[str, ...], ...]
    reduce: tuple[tuple[str, ...], ...]

    def edges(self, cell: str) -> tuple[tuple[str, ...], ...]:
        """The operations of each edge of the "normal" or "reduce" cell."""
        return self.normal if cell == "normal" else self.reduce

    @property
    def width(self) -> int:
        """The most operations that an edge has."""
        return max(map(len, (*self.normal, *self.reduce)))


def _everywhere(name: str, operations: tuple[str, ...]) -> Space:
    return Space(name, (operations,) * len(EDGES), (operations,) * len(EDGES))


def _spelt(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(_LETTERS[letter] for letter in edge) for edge in text.split())


SPACES = {
    "s1": Space("s1", _spelt(_REDUCED_NORMAL), _spelt(_REDUCED_REDUCE)),
    "s2": _everywhere("s2", _DARTS),
    "s3": _everywhere("s3", _ONE_DIMENSIONAL),
}


def find_space(name: str) -> Space:
    """One of `SPACES` by name, or the space that a YAML file describes.

    The file holds a list of operations, the same for every edge, or the keys `normal` and `reduce`, each with such a
    list or with a list of lists, one for each of the 14 edges.

    Raises:
        ConfigError: an unknown name, a file that cannot be read, an unknown operation, lists that are not such.
    """
    if name in SPACES:
        return SPACES[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError("space", f"{name!r} is unknown", f"{one_of(name, SPACES)}, or a YAML file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}", "a YAML file") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(path, f"not YAML: {str(error).splitlines()[0]}", "a list of operations") from error
    return read_space(content, path)


def read_space(content: Any, where: str | Path) -> Space:
    """The space that the content of a YAML file describes; see `find_space`.

    Raises:
        ConfigError: about `where`.
    """
    if not isinstance(content, Mapping):
        operations = _cell(content, where, "the space")
        return Space(str(where), operations, operations)
    if unknown := [key for key in content if key not in CELLS]:
        raise ConfigError(where, f"unknown key {unknown[0]!r}", one_of(unknown[0], CELLS))
    if missing := [cell for cell in CELLS if cell not in content]:
        raise ConfigError(where, f"{missing[0]!r} is missing", "both normal and reduce, or one list for both")
    return Space(str(where), *(_cell(content[cell], where, cell) for cell in CELLS))


def _cell(content: Any, where: str | Path, cell: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(content, list) or not content:
        raise ConfigError(where, f"{cell} is {content!r}"[:100], "a list of operations, or one list for each edge")
    if not any(isinstance(item, list) for item in content):
        return (_edge(content, where, cell),) * len(EDGES)
    if len(content) != len(EDGES):
        raise ConfigError(where, f"{cell} has lists for {len(content)} edges", f"{len(EDGES)} lists")
    return tuple(_edge(edge, where, f"edge {number} of {cell}") for number, edge in enumerate(content))


def _edge(content: Any, where: str | Path, name: str) -> tuple[str, ...]:
    if not isinstance(content, list):
        raise ConfigError(where, f"{name} is {content!r}"[:100], "a list of operations")
    for operation in content:
        if not isinstance(operation, str) or operation not in OPERATIONS:
            raise ConfigError(where, f"{name} has the unknown operation {operation!r}", one_of(operation, OPERATIONS))
    if len(set(content)) < len(content):
        raise ConfigError(where, f"{name} has an operation twice", "different operations")
    if set(content) <= {NONE}:
        raise ConfigError(where, f"{name} has nothing to choose", f"an operation other than {NONE}")
    return tuple(content)
