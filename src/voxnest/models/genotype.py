"""A genotype: what the two kinds of cell of a searched network compute, in the text form of DARTS and AutoSpeech."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from voxnest.errors import ConfigError, one_of
from voxnest.models.operations import OPERATIONS

Edge = tuple[str, int]
"""An operation, and the node that it reads."""

INPUTS = 2
"""Nodes 0 and 1 of a cell are the outputs of the cell before the last and of the last one."""
EXAMPLE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)], normal_concat=range(2, 3), "
    "reduce=[('max_pool_3x3', 0), ('dil_conv_5x5', 1)], reduce_concat=range(2, 3))"
)


@dataclass(frozen=True)
class Genotype:
    """The normal cell and the reduction cell of a network.

    Two edges each are added up to a new node: the first two to node 2, the next two to node 3, and so on. The output
    of a cell is some of these nodes side by side.

    Attributes:
        normal: the edges of the normal cell, two for each new node.
        normal_concat: the nodes that are its output, ascending or not.
        reduce: the edges of the reduction cell, which halves frames and bins at the edges that read nodes 0 and 1.
        reduce_concat: the nodes that are its output.

    Raises:
        ConfigError: for an operation or a node that there is not.
    """

    normal: Sequence[Edge]
    normal_concat: Sequence[int]
    reduce: Sequence[Edge]
    reduce_concat: Sequence[int]

    def __post_init__(self) -> None:
        for cell in ("normal", "reduce"):
            edges = _check_edges(cell, getattr(self, cell))
            concat = _check_concat(f"{cell}_concat", getattr(self, f"{cell}_concat"), INPUTS + len(edges) // 2)
            object.__setattr__(self, cell, edges)
            object.__setattr__(self, f"{cell}_concat", concat)

    @classmethod
    def parse(cls, text: str) -> "Genotype":
        """A genotype of its text, such as `EXAMPLE`, which is read and never evaluated.

        Raises:
            ConfigError: that says what is wrong with it.
        """
        text = text.strip()
        try:
            call = ast.parse(text, mode="eval").body
        except SyntaxError as error:
            start = max((error.offset or 1) - 1, 0)
            raise _malformed(f"cannot be read from {_shown(text[start:] or text)}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise _malformed(_shown(text)) from error
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == cls.__name__):
            raise _malformed(_shown(text))
        names = [field.name for field in fields(cls)]
        given: dict[str, Any] = {}
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise _malformed("a field without its name")
        for keyword in call.keywords:
            name = str(keyword.arg)
            if name not in names:
                raise ConfigError("genotype", f"field {name!r}", one_of(name, names))
            if name in given:
                raise ConfigError("genotype", f"field {name!r} twice", "each field once")
            given[name] = _value(name, keyword.value)
        if missing := [name for name in names if name not in given]:
            raise ConfigError("genotype", f"no {', '.join(missing)}", "the fields " + ", ".join(names))
        return cls(**given)

    def __str__(self) -> str:
        """The text that `parse` reads, letter by letter as the original writes it."""

        def written(value: Sequence[Any]) -> str:
            return repr(value if isinstance(value, range) else list(value))

        return f"Genotype({', '.join(f'{field.name}={written(getattr(self, field.name))}' for field in fields(self))})"

    def cell(self, *, reduction: bool) -> tuple[Sequence[Edge], Sequence[int]]:
        """The edges and the output nodes of a normal or a reduction cell."""
        return (self.reduce, self.reduce_concat) if reduction else (self.normal, self.normal_concat)


def _shown(value: object) -> str:
    text = " ".join(str(value).split())
    text = text if len(text) <= 60 else f"{text[:60]}..."
    return repr(text) if isinstance(value, str) else text


def _malformed(found: str) -> ConfigError:
    return ConfigError("genotype", found, f"a text such as {EXAMPLE}")


def _value(name: str, node: ast.expr) -> Any:
    """The list or range that a field is given."""
    try:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
            return range(*(ast.literal_eval(argument) for argument in node.args))
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        expected = "range(2, 6) or a list of nodes" if name.endswith("concat") else "a list of ('operation', node)"
        raise ConfigError("genotype", f"{name}={_shown(ast.unparse(node))}", expected) from error


def _is_node(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_edges(cell: str, edges: Any) -> tuple[Edge, ...]:
    if not isinstance(edges, list | tuple) or not edges or len(edges) % 2:
        found = f"{len(edges)} edges" if isinstance(edges, list | tuple) else _shown(edges)
        raise ConfigError("genotype", f"{cell}: {found}", "a list of ('operation', node), two for each new node")
    for index, edge in enumerate(edges):
        where = f"edge {index + 1} of {cell}: "
        if not (isinstance(edge, list | tuple) and len(edge) == 2 and isinstance(edge[0], str) and _is_node(edge[1])):
            raise ConfigError("genotype", where + _shown(edge), "('operation', node)")
        operation, node = edge
        if operation not in OPERATIONS:
            raise ConfigError(
                "genotype", f"{where}operation {_shown(operation)}", one_of(operation, OPERATIONS, few=20)
            )
        there = INPUTS + index // 2
        if not 0 <= node < there:
            raise ConfigError("genotype", f"{where}no node {node} before it", f"a node from 0 to {there - 1}")
    return tuple((operation, node) for operation, node in edges)


def _check_concat(name: str, concat: Any, nodes: int) -> Sequence[int]:
    """Nodes in a row become a range, as the original writes them."""
    expected = f"nodes from {INPUTS} to {nodes - 1}, each once"
    if not isinstance(concat, list | tuple | range) or not concat:
        raise ConfigError("genotype", f"{name}={_shown(concat)}", expected)
    for count, node in enumerate(concat):  # a range may be endless
        if count >= nodes or not _is_node(node) or not INPUTS <= node < nodes:
            raise ConfigError("genotype", f"{name}={_shown(concat)}", expected)
    if len(set(concat)) < len(concat):
        raise ConfigError("genotype", f"{name}={_shown(concat)}", expected)
    in_a_row = range(concat[0], concat[0] + len(concat))
    return in_a_row if list(concat) == list(in_a_row) else tuple(concat)
