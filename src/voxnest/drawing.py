"""What all pictures look like: white, few lines, grey text; no two things differ in colour alone."""

from __future__ import annotations

import warnings
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxnest.files import atomic_write, check_output, writing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.text import Text

INK, MUTED, GRID = "#1f2430", "#6b7280", "#e5e7eb"
RED, BLUE = "#b42318", "#1d4ed8"
PICTURES = (".png", ".svg", ".pdf")
"""Endings of what can be drawn; a stream without one gets a PNG."""

# Hues that the colour-blind tell apart (after Okabe and Ito 2008), the darkest first.
_COLOURS = (INK, RED, BLUE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "solid",
    (0, (5, 1.5)),
    (0, (1, 1.2)),
    (0, (7, 1.5, 1, 1.5)),
    (0, (3, 1.2, 1, 1.2, 1, 1.2)),
)
_MARKERS = "os^Dv<>"


def series_style(number: int) -> dict[str, Any]:
    """Colour, dashes and marker of one of several series, as arguments of `Axes.plot`; 0 stands out most."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _DASHES[number % len(_DASHES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markeredgecolor": "white",
        "markeredgewidth": 0.7,
        "linewidth": 1.8,
        "markersize": 9,
    }


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty picture of that many inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=160, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.15)  # type: ignore[union-attr, call-arg]
    return figure, figure.add_subplot()


def style_axes(axes: Axes, *, x: str, y: str, title: str = "", subtitle: str = "") -> None:
    """Name the axes and the picture, and draw what surrounds the data.

    A title that is wider than the picture is made smaller, then shortened in the middle.
    """
    axes.set_xlabel(x, color=INK, fontsize=11, labelpad=8)
    axes.set_ylabel(y, color=INK, fontsize=11, labelpad=8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", length=0, pad=7, labelsize=9.5, labelcolor=MUTED)
    for side in axes.spines.values():
        side.set_color(GRID)
    if not title:
        return
    heading = axes.set_title(title, loc="left", color=INK, fontsize=13, fontweight="bold", pad=24, parse_math=False)
    below = axes.text(0, 1.02, subtitle, transform=axes.transAxes, color=MUTED, fontsize=9.5, parse_math=False)
    for text in (heading, below):
        _fit(text)


def style_legend(legend: Legend) -> None:
    """Make a legend look like the rest."""
    legend.get_frame().set(edgecolor=GRID, facecolor="white", alpha=1)
    for text in legend.get_texts():
        text.set(color=INK, fontsize=9.5)


def svg_text(figure: Figure, salt: str = "voxnest") -> str:
    """A picture as SVG, with its letters as text of the reader's fonts; `salt` makes the ids its own."""
    from matplotlib import rc_context

    picture = StringIO()
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", "Glyph")
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture as PNG, SVG or PDF, as its name ends; the same picture gives the same bytes.

    Raises:
        ConfigError: another ending, or a path that cannot be written.
        VoxnestError: it cannot be written after all (a full disk, say).
    """
    from matplotlib import rc_context

    check_output(path, *PICTURES)
    suffix = Path(path).suffix.lower()
    kind = suffix[1:] if suffix in PICTURES else "png"
    dates = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    # In memory, because what matplotlib raises on a full disk may say nothing of it.
    picture = BytesIO()
    with warnings.catch_warnings(), rc_context({"svg.hashsalt": "voxnest"}):
        warnings.filterwarnings("ignore", "Glyph")  # of a name in a script that the font lacks
        figure.savefig(picture, format=kind, metadata=dates.get(kind))
    with writing(path), atomic_write(path) as temporary:
        temporary.write_bytes(picture.getvalue())


def shortened(text: str, limit: int) -> str:
    """A text of that many characters at most: what is too long is left out in the middle."""
    if len(text) <= limit:
        return text
    kept = limit - 1
    return f"{text[: kept // 2]}…{text[len(text) - (kept - kept // 2) :]}"


def _fit(text: Text) -> None:
    """Make a text that begins where the axes do end before the picture does."""
    assert text.figure is not None
    room = text.figure.bbox.width - 1.1 * text.figure.dpi  # what is left of the axes takes less than that
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        if text.get_window_extent().width > room:
            text.set_fontsize(9.5)
        whole = text.get_text()
        kept = len(whole) + 1
        while text.get_window_extent().width > room:
            kept -= 1
            text.set_text(shortened(whole, kept))
