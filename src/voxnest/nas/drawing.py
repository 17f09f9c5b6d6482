"""Draw the cells of a genotype."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.drawing import INK, MUTED, save_figure
from voxnest.models.genotype import INPUTS, Genotype
from voxnest.nas.layout import Item, Layered

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of each kind of box: colour, line, half its height. Inches.
_LOOKS = {
    "input": ("#fbd9a5", INK, 0.19),
    "node": ("#bfdbfe", INK, 0.19),
    "output": ("#c7e9c0", INK, 0.19),
    "operation": ("white", MUTED, 0.13),
    "pass": ("", "", 0.0),
}
_LETTER = 0.083  # the width of one
_PASS = 0.12
_AFTER_NODES, _AFTER_OPERATIONS = 0.5, 0.34  # what is left free below a layer
_SPACE = 0.7  # between the cells
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def draw_genotype(genotype: Genotype, path: str | Path, title: str | None = None) -> None:
    """Draw the normal and the reduction cell side by side, as PNG, SVG or PDF.

    A cell is read from its inputs at the top to its output; each operation stands in a box on its line.

    Args:
        genotype: what to draw.
        path: of the picture; its ending says which kind.
        title: above the picture.

    Raises:
        ConfigError: another ending, or a path that cannot be written.
        VoxnestError: it cannot be written after all (a full disk, say).
    """
    save_figure(genotype_figure(genotype, title), path)


def genotype_figure(genotype: Genotype, title: str | None = None) -> Figure:
    """The picture that `draw_genotype` writes."""
    from matplotlib.figure import Figure

    cells = [lay_out(genotype, reduction=reduction) for reduction in (False, True)]
    heights = [_levels(cell)[1] for cell in cells]
    lefts = [min(item.x - item.width / 2 for layer in cell.layers for item in layer) for cell in cells]
    rights = [max(item.x + item.width / 2 for layer in cell.layers for item in layer) for cell in cells]
    width = sum(right - left for left, right in zip(lefts, rights, strict=True)) + _SPACE + 0.6
    top = 0.75 + (0.4 if title else 0.0)
    height = max(heights) + top + 0.3
    figure = Figure(figsize=(width, height), dpi=160, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    if title:
        axes.text(0.3, 0.4, title, color=INK, fontsize=13, fontweight="bold", va="center", parse_math=False)
    x = 0.3
    for name, cell, left, right in zip(("normal cell", "reduction cell"), cells, lefts, rights, strict=True):
        axes.text(x + (right - left) / 2, top - 0.4, name, color=INK, fontsize=11.5, ha="center", va="center")
        _draw(axes, cell, x - left, top)
        x += right - left + _SPACE
    return figure


def lay_out(genotype: Genotype, *, reduction: bool) -> Layered:
    """The boxes and lines of a cell, arranged."""
    edges, concat = genotype.cell(reduction=reduction)
    cell = Layered()
    states = [cell.add("input", f"cell k-{INPUTS - number}", 0.8, 0) for number in range(INPUTS)]
    for index in range(0, len(edges), INPUTS):
        pair = edges[index : index + INPUTS]
        depth = 2 + max(states[source].layer for _, source in pair)
        node = cell.add("node", f"x{str(len(states)).translate(_SUBSCRIPTS)}", 0.46, depth)
        for name, source in pair:
            operation = cell.add("operation", name, _LETTER * len(name) + 0.14, depth - 1)
            cell.connect(states[source], operation, _PASS)
            cell.connect(operation, node, _PASS)
        states.append(node)
    output = cell.add("output", "concatenated", 1.15, len(cell.layers))
    for number in concat:
        cell.connect(states[number], output, _PASS)
    cell.arrange()
    return cell


def _half(layer: list[Item]) -> float:
    return max(_LOOKS[item.kind][2] for item in layer)


def _levels(cell: Layered) -> tuple[list[float], float]:
    """The middle of every layer, and the height of all."""
    levels, y = [], 0.0
    for layer in cell.layers:
        operations = any(item.kind == "operation" for item in layer)
        levels.append(y + _half(layer))
        y += 2 * _half(layer) + (_AFTER_OPERATIONS if operations else _AFTER_NODES)
    return levels, levels[-1] + _half(cell.layers[-1])


def _smooth(places: list[tuple[float, float, float]]) -> list[tuple[float, float]]:
    """A curve through places (x, y, half a height), from below the first to above the last, upright at both ends.

    Between, it is as steep as the pieces before and after it in harmonic mean, so that it never swings out.
    """
    points = [(x, y) for x, y, _ in places]
    points[0], points[-1] = (points[0][0], points[0][1] + places[0][2]), (points[-1][0], points[-1][1] - places[-1][2])
    pieces = list(pairwise(points))
    slopes = [(end[0] - start[0]) / (end[1] - start[1]) for start, end in pieces]
    tangents = [
        0.0,
        *(2 * a * b / (a + b) if a * b > 0 else 0.0 for a, b in pairwise(slopes)),
        0.0,
    ]
    curve = [points[0]]
    for number, ((x0, y0), (x1, y1)) in enumerate(pieces):
        third = (y1 - y0) / 3
        # At a box, longer in the upright: the line leaves it straight.
        first, last = (third * (1.5 if end else 1.0) for end in (number == 0, number == len(pieces) - 1))
        curve += [(x0 + tangents[number] * first, y0 + first), (x1 - tangents[number + 1] * last, y1 - last), (x1, y1)]
    return curve


def _draw(axes: Axes, cell: Layered, x: float, y: float) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    levels, _ = _levels(cell)
    for line in cell.lines:
        vertices = _smooth([(x + item.x, y + levels[item.layer], _LOOKS[item.kind][2]) for item in line])
        codes = [Curve.MOVETO] + [Curve.CURVE4] * (len(vertices) - 1)
        to_output = line[-1].kind == "output"
        arrow = line[-1].kind != "operation"
        axes.add_patch(
            FancyArrowPatch(
                path=Curve(vertices, codes),
                arrowstyle="-|>,head_length=5,head_width=2.4" if arrow else "-",
                color=MUTED if to_output else INK,
                linewidth=1.0 if to_output else 1.3,
                linestyle=(0, (4, 2)) if to_output else "solid",
                shrinkA=0,
                shrinkB=0,
                joinstyle="miter",
            )
        )
    for item in (item for layer in cell.layers for item in layer if item.kind != "pass"):
        colour, edge, half = _LOOKS[item.kind]
        middle = y + levels[item.layer]
        corner = x + item.x - item.width / 2, middle - half
        rounding = half if item.kind == "operation" else 0.05
        axes.add_patch(
            FancyBboxPatch(
                corner, item.width, 2 * half, f"round,pad=0,rounding_size={rounding}",
                facecolor=colour, edgecolor=edge, linewidth=0.9, zorder=3,
            )
        )  # fmt: skip
        axes.text(x + item.x, middle, item.text, color=INK, fontsize=9, ha="center", va="center_baseline", zorder=4)
