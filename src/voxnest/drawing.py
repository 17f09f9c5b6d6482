"""What all pictures look like: white, few lines, grey text, one PNG written at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture of that many inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr, call-arg]
    return figure, figure.add_subplot()


def style_axes(axes: Axes, *, x: str, y: str, title: str, subtitle: str) -> None:
    """Name the axes and the picture, and draw what surrounds the data."""
    axes.set_xlabel(x, color=INK, fontsize=11, labelpad=8)
    axes.set_ylabel(y, color=INK, fontsize=11, labelpad=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, pad=7, labelsize=9.5, labelcolor=MUTED)
    for side in axes.spines.values():
        side.set_color(GRID)
    axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold", pad=24)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, color=MUTED, fontsize=9.5)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a picture; the folder is made if need be."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
