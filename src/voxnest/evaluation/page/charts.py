"""The plots of a page, as SVG in its own colours: those of the reader, by day and by night, and of a printer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from voxnest.drawing import (
    BLUE,
    GRID,
    INK,
    MUTED,
    RED,
    new_axes,
    series_style,
    shortened,
    style_axes,
    style_legend,
    svg_text,
)
from voxnest.evaluation.page.html import Markup, tag

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from voxnest.evaluation.report import DimensionResult, EvaluationReport

# The variables of style.css.
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    RED: "red",
    BLUE: "blue",
    "#ffffff": "paper",
    "#009e73": "green",
    "#cc79a7": "pink",
    "#e69f00": "orange",
    "#56b4e9": "sky",
}
_COLOUR = re.compile("|".join(_VARIABLES), re.IGNORECASE)
_OUTSIDE = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_GROUP = re.compile(r'<g id="[^"]*"')
_SIZE = re.compile(r' (?:width|height)="[\d.]+pt"| version="1.1"')

REM_PER_INCH = 5.5
BINS = 60
PROBABILITY_BINS = 10
LEAST_IN_BIN = 5


def figure_element(figure: Figure, description: str, number: int, caption: str = "", title: str = "") -> Markup:
    """A plot as an element of a page.

    Args:
        figure: what matplotlib drew.
        description: what a reader is told who cannot see it.
        number: of the plot in the page, so that no two have parts of one name.
        caption: below it.
        title: above it.
    """
    text = _GROUP.sub("<g", _OUTSIDE.sub("", svg_text(figure, f"voxnest-{number}")))
    head, rest = text.split(">", 1)
    text = _SIZE.sub("", head) + f' role="img" aria-label="{escape(description)}">' + rest
    text = _COLOUR.sub(lambda found: f"var(--{_VARIABLES[found.group().lower()]})", text)
    heading = tag("h3", title) if title else None
    width = f"max-width: {REM_PER_INCH * figure.get_figwidth():.1f}rem"  # so that letters are of one size in all
    below = tag("figcaption", caption) if caption else None
    return tag("figure", heading, Markup(text), below, class_="chart", style=width)


def draw_scores(report: EvaluationReport, dim: int) -> Figure:
    """How the scores of both kinds of trials are spread, with the thresholds."""
    scores, labels, result = report.scores[dim], report.labels, report.dims[dim]
    figure, axes = new_axes(6.4, 3.7)
    edges = np.histogram_bin_edges(scores, BINS)
    kinds = (("non-target", ~labels, RED, (0, (4, 1.2))), ("target", labels, BLUE, "solid"))
    for name, chosen, colour, dashes in kinds:
        heights = np.histogram(scores[chosen], edges, density=True)[0]
        axes.stairs(heights, edges, color=colour, alpha=0.16, fill=True, linewidth=0)
        axes.stairs(heights, edges, color=colour, linestyle=dashes, linewidth=1.6, label=name)
    axes.axvline(result.threshold, color=INK, linewidth=1.3, label=f"at the EER, {result.threshold:.3f}")
    if result.verify:
        text = f"of verify, {result.verify.threshold:.3f}{'' if result.verify.calibrated else ' (generic)'}"
        axes.axvline(result.verify.threshold, color=MUTED, linewidth=1.3, linestyle=(0, (1, 1.2)), label=text)
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    style_axes(axes, x="Score", y="Density")
    _legend(axes, loc="lower left", bbox_to_anchor=(0, 1.02), ncols=2, frameon=False)
    return figure


def draw_prefixes(reports: Mapping[str, EvaluationReport]) -> Figure:
    """The equal error rate over the size of the prefix, with intervals where there are some."""
    figure, axes = new_axes(9.4, 4.6)
    for number, (label, report) in enumerate(reports.items()):
        dims = np.array(list(report.dims))
        style = series_style(number)
        eers = np.array([100 * result.eer for result in report.dims.values()])
        axes.plot(dims, eers, **style, label=shortened(label, 26), clip_on=False)
        limits = _limits(report.dims)
        if limits is not None:
            shift = dims * 1.02**number  # so that no bar hides another
            axes.vlines(shift, *limits, color=style["color"], linewidth=1.2, alpha=0.6)
    sizes = sorted({dim for report in reports.values() for dim in report.dims})
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, map(str, sizes))
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    style_axes(axes, x="Numbers of the embedding", y="EER (%)")
    if len(reports) > 1:
        _legend(axes, loc="upper left", bbox_to_anchor=(1.03, 1))
    return figure


def draw_reliability(curves: Mapping[str, tuple[NDArray[np.floating], NDArray[np.bool_]]]) -> Figure:
    """How often trials are target trials, over the probability that their log-likelihood ratios promise.

    Args:
        curves: name -> (log-likelihood ratios [trials], labels [trials]).
    """
    figure, axes = new_axes(8.6, 5.2)
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), label="ideal")
    for number, (name, (ratios, labels)) in enumerate(curves.items()):
        predicted, observed, counts = reliability(ratios, labels)
        enough = counts >= LEAST_IN_BIN
        axes.plot(predicted[enough], observed[enough], **series_style(number), label=shortened(name, 26), clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1), box_aspect=1, anchor="W")
    style_axes(axes, x="Predicted probability", y="Observed share of targets")
    _legend(axes, loc="upper left", bbox_to_anchor=(1.03, 1))
    return figure


def reliability(
    ratios: NDArray[np.floating], labels: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Compare predicted with observed probabilities in ten bins of equal width, at even odds.

    Trials weigh so that both kinds are as frequent; log-likelihood ratios are then log odds.

    Returns:
        Mean prediction, share of targets and number of trials of each bin that has any.
    """
    targets = np.count_nonzero(labels)
    weights = np.where(labels, 1 / targets, 1 / (len(labels) - targets))
    probabilities = 1 / (1 + np.exp(-np.clip(np.asarray(ratios, dtype=np.float64), -700, 700)))
    bins = np.minimum((probabilities * PROBABILITY_BINS).astype(int), PROBABILITY_BINS - 1)
    total = np.bincount(bins, weights, PROBABILITY_BINS)
    some = total > 0
    predicted = np.bincount(bins, weights * probabilities, PROBABILITY_BINS)[some] / total[some]
    observed = np.bincount(bins, weights * labels, PROBABILITY_BINS)[some] / total[some]
    return predicted, observed, np.bincount(bins, minlength=PROBABILITY_BINS)[some]


def _limits(results: Mapping[int, DimensionResult]) -> NDArray[np.float64] | None:
    """Ends of the intervals [2, sizes] in percent; None unless all have one."""
    limits = [result.eer_interval for result in results.values() if result.eer_interval]
    return 100 * np.array(limits).T if len(limits) == len(results) else None


def _legend(axes: Axes, **place: Any) -> None:
    """Beside or above, where it hides nothing."""
    style_legend(axes.legend(borderaxespad=0, handlelength=3, labelspacing=0.7, **place))
