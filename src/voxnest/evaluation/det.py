"""The DET plot: both error rates at every threshold, on axes that make normally distributed scores lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from voxnest.drawing import MUTED, new_axes, save_figure, series_style, style_axes, style_legend
from voxnest.evaluation.metrics import error_rates

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

_RARE = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
TICKS = (*_RARE, 0.5, *(1 - tick for tick in reversed(_RARE)))
FIGURE_SPACE = "\u2007"  # as wide as a digit
MOST_TICKS = 11
CELLS = 2000  # of the width of the axes: points in one are drawn as one


def plot_det(report: EvaluationReport, path: str | Path) -> None:
    """Draw the detection error trade-off of every prefix size into one picture.

    The axes are normal deviates (Martin et al. 1997), labelled in percent; a marker shows the equal error rate. A size
    with no errors, or nothing but errors, lies on the edge of the axes, and the legend says so.

    Args:
        report: of `evaluate`.
        path: of the picture (.png, .svg, .pdf); the folder is made if need be.

    Raises:
        VoxnestError: it cannot be written.
    """
    figure, axes = new_axes(9.4, 6.6)
    low, high = _limits(report)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    width = len(str(max(report.dims)))
    for number, (dim, result) in zip(range(len(report.dims))[::-1], report.dims.items(), strict=True):
        _, fnr, fpr = error_rates(report.scores[dim], report.labels)
        edge = 0.0 if result.eer in (0, 1) else 1.0  # those curves have no part but the edge
        x, y = (np.clip(_probit(rates), low - edge, high + edge) for rates in (fpr, fnr))
        x, y = _thin(x, y, high - low)
        note = {0.0: ", no errors", 1.0: ", all wrong"}.get(result.eer, "")
        padding = FIGURE_SPACE * (width - len(str(dim)))
        label = f"{padding}{dim}-D  EER {100 * result.eer:.2f}%{note}"
        style = series_style(number)  # the largest stands out most
        curve = axes.plot(x, y, **style, label=label, zorder=20 - number)[0]
        # The marker once, where the rates are equal, though it belongs to the whole curve in the legend.
        curve.set(clip_on=bool(edge), markevery=[])
        centre = np.clip(_probit([result.eer]), low, high)
        axes.plot(centre, centre, **style, zorder=40 - number, clip_on=False)

    ticks = _spaced_ticks(low, high)
    places, names = _probit(ticks), [f"{100 * tick:g}" for tick in ticks]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1, anchor="W")
    counts = f"{report.targets:,} target and {report.nontargets:,} non-target trials"
    if report.trials:
        counts += f" of {Path(report.trials).name}"
    style_axes(axes, x="False acceptance rate (%)", y="False rejection rate (%)", title=report.model, subtitle=counts)
    beside = axes.legend(
        loc="upper left", bbox_to_anchor=(1.03, 1), borderaxespad=0, handlelength=3.5, labelspacing=0.8
    )
    style_legend(beside)
    save_figure(figure, path)


def _limits(report: EvaluationReport) -> tuple[float, float]:
    """Choose the axes' limits, in deviates: ticks from well below to well above the equal error rates.

    Below one error in all trials of a kind, or one right answer, there is nothing to see.
    """
    rates = [result.eer for result in report.dims.values()]
    resolution = 1 / max(report.targets, report.nontargets)
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
