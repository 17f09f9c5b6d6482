"""The DET plot: both error rates at every threshold, on axes that make normally distributed scores lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from voxnest.drawing import MUTED, new_axes, save_figure, series_style, shortened, style_axes, style_legend
from voxnest.evaluation.metrics import error_rates
from voxnest.evaluation.report import UNKNOWN_SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from voxnest.evaluation.report import EvaluationReport

_RARE = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
TICKS = (*_RARE, 0.5, *(1 - tick for tick in reversed(_RARE)))
FIGURE_SPACE = "\u2007"  # as wide as a digit
MOST_TICKS = 11
CELLS = 2000  # of the width of the axes: points in one are drawn as one


class Curve(NamedTuple):
    """One of a plot: a prefix size of a model, or one model of several."""

    name: str
    scores: NDArray[np.floating]
    labels: NDArray[np.bool_]
    eer: float


def plot_det(report: EvaluationReport | Mapping[str, EvaluationReport], path: str | Path) -> None:
    """Draw the detection error trade-off of every prefix size, or of several models, into one picture.

    The axes are normal deviates (Martin et al. 1997), labelled in percent; a marker shows the equal error rate. A curve
    with no errors, or nothing but errors, lies on the edge of the axes, and the legend says so.

    Args:
        report: of `evaluate`; or several by the names of their models, of which each is one curve, of its largest size.
        path: of the picture (.png, .svg, .pdf); the folder is made if need be.

    Raises:
        VoxnestError: it cannot be written.
    """
    reports = report if isinstance(report, Mapping) else {report.model: report}
    first = next(iter(reports.values()))
    counts = f"{first.targets:,} target and {first.nontargets:,} non-target trials"
    if first.trials:
        counts += f" of {Path(first.trials).name}"
    title = next(iter(reports)) if len(reports) == 1 else f"{len(reports)} models"
    save_figure(draw_det(reports, title, counts), path)


def draw_det(reports: Mapping[str, EvaluationReport], title: str = "", subtitle: str = "") -> Figure:
    """The picture of `plot_det`, not yet written."""
    curves = find_curves(reports)
    figure, axes = new_axes(9.4, 6.6)
    low, high = _limits(curves)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    numbers = range(len(curves)) if len(reports) > 1 else range(len(curves))[::-1]  # the largest stands out most
    for number, curve in zip(numbers, curves, strict=True):
        _, fnr, fpr = error_rates(curve.scores, curve.labels)
        edge = 0.0 if curve.eer in (0, 1) else 1.0  # those curves have no part but the edge
        x, y = (np.clip(_probit(rates), low - edge, high + edge) for rates in (fpr, fnr))
        x, y = _thin(x, y, high - low)
        note = {0.0: ", no errors", 1.0: ", all wrong"}.get(curve.eer, "")
        style = series_style(number)
        line = axes.plot(x, y, **style, label=f"{curve.name}EER {100 * curve.eer:.2f}%{note}", zorder=20 - number)[0]
        # The marker once, where the rates are equal, though it belongs to the whole curve in the legend.
        line.set(clip_on=bool(edge), markevery=[])
        centre = np.clip(_probit([curve.eer]), low, high)
        axes.plot(centre, centre, **style, zorder=40 - number, clip_on=False)

    ticks = _spaced_ticks(low, high)
    places, names = _probit(ticks), [f"{100 * tick:g}" for tick in ticks]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1, anchor="W")
    style_axes(axes, x="False acceptance rate (%)", y="False rejection rate (%)", title=title, subtitle=subtitle)
    beside = axes.legend(
        loc="upper left", bbox_to_anchor=(1.03, 1), borderaxespad=0, handlelength=3.5, labelspacing=0.8
    )
    style_legend(beside)
    return figure


def find_curves(reports: Mapping[str, EvaluationReport]) -> list[Curve]:
    """One for each prefix size of a model, or for the largest of each of several."""
    if len(reports) > 1:
        sizes = {label: max(report.dims) for label, report in reports.items()}
        return [
            Curve(
                f"{shortened(label, 26)}\n", report.scores[sizes[label]], report.labels, report.dims[sizes[label]].eer
            )
            for label, report in reports.items()
        ]
    (report,) = reports.values()
    width = len(str(max(report.dims)))
    return [
        Curve(_size_name(dim, width), report.scores[dim], report.labels, result.eer)
        for dim, result in report.dims.items()
    ]


def _size_name(dim: int, width: int) -> str:
    return "" if dim == UNKNOWN_SIZE else f"{FIGURE_SPACE * (width - len(str(dim)))}{dim}-D  "


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Choose the axes' limits, in deviates: ticks from well below to well above the equal error rates.

    Below one error in all trials of a kind, or one right answer, there is nothing to see.
    """
    rates = [curve.eer for curve in curves]
    targets = [int(np.count_nonzero(curve.labels)) for curve in curves]
    resolution = 1 / max(max(count, len(curve.labels) - count) for count, curve in zip(targets, curves, strict=True))
    floor = min(max(min(rates) / 10, resolution), 0.05)
    if max(rates) < 0.5:
        ceiling = min(max(5 * max(rates), 0.2), 0.9)
    else:
        ceiling = 1 - min(max((1 - max(rates)) / 10, resolution), 0.1)
    low = max([tick for tick in TICKS if tick <= floor] or TICKS[:1])
    high = min([tick for tick in TICKS if tick >= ceiling] or TICKS[-1:])
    deviates = _probit([low, high])
    return float(deviates[0]), float(deviates[1])


def _spaced_ticks(low: float, high: float) -> list[float]:
    """Give ticks within limits (in deviates), so far apart that their labels do not touch."""
    ticks: list[float] = []
    for tick, place in zip(TICKS, _probit(TICKS), strict=True):
        if low - 1e-9 <= place <= high + 1e-9 and (
            not ticks or place - _probit(ticks[-1:])[0] > (high - low) / MOST_TICKS
        ):
            ticks.append(tick)
    return ticks


def _thin(x: NDArray[np.float64], y: NDArray[np.float64], width: float) -> tuple[NDArray[np.float64], ...]:
    """Leave out points that could not be told from the one before: of half a million trials, nearly all."""
    cells = np.stack([x, y]) * CELLS // width
    kept = np.append(True, np.any(np.diff(cells) != 0, axis=0))
    return x[kept], y[kept]


def _probit(rates: ArrayLike) -> NDArray[np.float64]:
    """Normal deviates of rates; those of 0 and 1 are infinite."""
    return torch.special.ndtri(torch.as_tensor(rates, dtype=torch.float64)).numpy()
