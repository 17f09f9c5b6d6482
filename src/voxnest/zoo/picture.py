"""The figure that papers on compact encoders show: error rate against computation, of all models of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxnest.drawing import BLUE, MUTED, RED, new_axes, save_figure, style_axes, style_legend
from voxnest.zoo.card import VOX1, Published
from voxnest.zoo.counting import kept_counts
from voxnest.zoo.registry import CARDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

# Drawn in colour and labelled by their size alone. All others are what these are compared with.
_COLOURS = {"ReDimNet2": RED, "ReDimNet": BLUE}
_DASHES = {"ReDimNet2": "solid", "ReDimNet": (0, (5, 1.5))}
_MARKERS = {"ReDimNet2": "o", "ReDimNet": "s"}
_OTHERS = "#64748b"
_HIGHEST = 2.0
"""Percent. Higher ones would push together those that anyone would take."""
_TICKS = (0.3, 0.5, 1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class Point:
    """A model in the picture.

    Attributes:
        name: of the registry.
        family: of its card.
        series: sizes of one family whose rates were published together; a line connects them.
        gmacs: for 2 s, as built here.
        eer: percent, as published: the mean of VoxCeleb1-O, E and H.
        normalised: no rate was published but with adaptive score normalisation.
    """

    name: str
    family: str
    series: str
    gmacs: float
    eer: float
    normalised: bool

    @property
    def colour(self) -> str:
        """Of its family, or that of the many."""
        return _COLOURS.get(self.family, _OTHERS)

    @property
    def marker(self) -> str:
        """Of its family, or that of the many."""
        return _MARKERS.get(self.family, "D")

    @property
    def label(self) -> str:
        """What stands beside it: the size alone where the colour tells the family."""
        return self.name.rsplit("-", 1)[1] if self.family in _COLOURS else self.name


def points() -> Iterator[Point]:
    """Every model of the registry with error rates published on all three lists."""
    for name, card in CARDS.items():
        rates, normalised = _rates(card.published)
        if rates:
            series = f"{card.family} {card.published.source}"
            yield Point(name, card.family, series, kept_counts(name)[1], float(np.mean(rates)), normalised)


def _rates(published: Published) -> tuple[list[float], bool]:
    for eer, normalised in ((published.eer, False), (published.eer_as_norm, True)):
        if set(VOX1) <= set(eer):
            return [eer[item] for item in VOX1], normalised
    return [], False


def plot_models(path: str | Path) -> list[Point]:
    """Draw error rate against multiply-accumulates of every model with published rates in one picture.

    Args:
        path: of the picture (.png, .svg, .pdf); the folder is made if need be.

    Returns:
        What is in the picture.
    """
    drawn = [point for point in points() if point.eer <= _HIGHEST]
    figure, axes = new_axes(10, 7)
    axes.set_xscale("log")
    for point in drawn:
        own = point.family in _COLOURS
        face = "white" if point.normalised else point.colour
        axes.plot(
            *(point.gmacs, point.eer, point.marker),
            color=point.colour,
            markerfacecolor=face,
            markersize=8 if own else 5,
            zorder=4 if own else 3,
        )
    lines = []
    for series in dict.fromkeys(point.series for point in drawn if point.family in _COLOURS):
        sizes = sorted((point for point in drawn if point.series == series), key=lambda point: point.gmacs)
        x, y = np.array([point.gmacs for point in sizes]), np.array([point.eer for point in sizes])
        if len(sizes) > 2:
            axes.plot(x, y, color=sizes[0].colour, linestyle=_DASHES[sizes[0].family], linewidth=1.8, zorder=2)
            lines.append((x, y))
    for family, colour in {**_COLOURS, "others": _OTHERS}.items():
        dashes, marker = _DASHES.get(family, "none"), _MARKERS.get(family, "D")
        axes.plot([], [], color=colour, linestyle=dashes, marker=marker, label=family, markersize=7)
    axes.plot([], [], "D", color=MUTED, markerfacecolor="white", label="with score normalisation", markersize=7)
    axes.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    costs = [point.gmacs for point in drawn]
    axes.set_xlim(min(costs) / 4, 2 * max(costs))  # room for labels
    style_axes(
        axes,
        x="GMACs for 2 s of speech",
        y="Equal error rate (%), mean of VoxCeleb1-O, E and H",
        title="Accuracy and cost of speaker encoders",
        subtitle="Error rates as published, most of them after large-margin fine-tuning; GMACs as built here",
    )
    style_legend(axes.legend(loc="upper right", borderpad=0.9, handlelength=3))
    figure.draw_without_rendering()  # places of the axes in pixels are known from here on
    _label(axes, drawn, lines)
    save_figure(figure, path)
    return drawn


def _label(axes: Axes, drawn: Sequence[Point], lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Write each point's label beside it, at that of eight places where it covers least."""
    from matplotlib.transforms import Bbox

    def around(x: float, y: float, reach: float) -> Bbox:
        centre_x, centre_y = axes.transData.transform((x, y))
        return Bbox.from_extents(centre_x - reach, centre_y - reach, centre_x + reach, centre_y + reach)

    taken = [around(point.gmacs, point.eer, 9) for point in drawn]
    for x, y in lines:
        along = np.linspace(0, len(x) - 1, 40 * len(x))
        numbers = np.arange(len(x))
        taken += [
            around(np.exp(log_x), height, 2)
            for log_x, height in zip(np.interp(along, numbers, np.log(x)), np.interp(along, numbers, y), strict=True)
        ]
    sides = [(7, 0, "left"), (-7, 0, "right"), (0, 11, "center"), (0, -11, "center")]
    sides += [(6, 8, "left"), (-6, 8, "right"), (6, -8, "left"), (-6, -8, "right")]
    for point in sorted(drawn, key=lambda point: point.family not in _COLOURS):
        own = point.family in _COLOURS
        best = None
        for right, up, side in sides:
            text = axes.annotate(
                *(point.label, (point.gmacs, point.eer), (right, up)),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=9.5 if own else 7.5,
                fontweight="bold" if own else "normal",
                color=point.colour,
                zorder=6,
            )
            box = text.get_window_extent()
            outside = box.width * box.height - _overlap(box, axes.bbox)
            covered = outside + sum(_overlap(box, other) for other in taken)
            text.remove()
            if best is None or covered < best[0]:
                best = covered, text, box
        assert best is not None
        axes.add_artist(best[1])
        taken.append(best[2])


def _overlap(one: Bbox, other: Bbox) -> float:
    """Area that two boxes share, in square pixels."""
    shared = type(one).intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)
