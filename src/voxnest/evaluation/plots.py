"""The DET plot: both error rates at every threshold, on axes that make normally distributed scores lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from voxnest.drawing import INK, MUTED, new_axes, save_png, style_axes
from voxnest.evaluation.metrics import error_rates

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

TICKS = (
    0.0001,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.3,
    0.4,
    0.5,
    0.6,
    0.7,
    0.8,
    0.9,
)
FIGURE_SPACE = "\u2007"  # as wide as a digit


def plot_det(report: EvaluationReport, path: str | Path) -> None:
    """Draw the detection error trade-off of every prefix size into one PNG, atomically.

    The axes are normal deviates (Martin et al. 1997), labelled in percent; a dot marks the equal error rate.

    Args:
        report: of `evaluate`.
        path: of the picture; the folder is made if need be.
    """
    from matplotlib import colormaps

    figure, axes = new_axes(6.4, 6.6)
    low, high = _limits(report)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)
    width = len(str(max(report.dims)))
    colours = colormaps["viridis"](np.linspace(0.08, 0.82, len(report.dims)))[::-1]
    for order, (colour, (dim, result)) in enumerate(zip(colours, report.dims.items(), strict=True)):
        _, fnr, fpr = error_rates(report.scores[dim], report.labels)
        padding = FIGURE_SPACE * (width - len(str(dim)))
        label = f"{padding}{dim}-D    EER {100 * result.eer:.2f}%"
        x, y = np.clip(_probit(fpr), low - 1, high + 1), np.clip(_probit(fnr), low - 1, high + 1)
        axes.plot(x, y, color=colour, linewidth=1.8, solid_joinstyle="round", label=label, zorder=3 + order)
        centre = np.clip(_probit(np.array([result.eer])), low, high)
        dot = axes.plot(centre, centre, "o", color=colour, markersize=7, zorder=20 + order)[0]
        dot.set(markeredgecolor="white", markeredgewidth=1.3, clip_on=False)

    ticks = [tick for tick in TICKS if low - 1e-9 <= _probit(np.array([tick]))[0] <= high + 1e-9]
    places, names = _probit(np.array(ticks)), [f"{100 * tick:g}" for tick in ticks]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    counts = f"{report.targets:,} target and {report.nontargets:,} non-target trials"
    if report.trials:
        counts += f" of {Path(report.trials).name}"
    style_axes(axes, x="False acceptance rate (%)", y="False rejection rate (%)", title=report.model, subtitle=counts)
    legend = axes.legend(loc="upper right", fontsize=9.5, labelcolor=INK, borderpad=0.9, borderaxespad=0.1)
    legend.get_frame().set(edgecolor="none", facecolor="white", alpha=1)
    save_png(figure, path)


def _limits(report: EvaluationReport) -> tuple[float, float]:
    """Choose the axes' limits, in deviates: ticks from well below to well above the equal error rates.

    Below one error in all trials of a kind there is nothing to see.
    """
    rates = [result.eer for result in report.dims.values()]
    resolution = 1 / max(report.targets, report.nontargets)
    floor, ceiling = max(min(rates) / 10, resolution), max(*rates, 0.02) * 5
    low = max([tick for tick in TICKS if tick <= floor] or TICKS[:1])
    high = min([tick for tick in TICKS if tick >= ceiling] or TICKS[-1:])
    deviates = _probit(np.array([min(low, 0.1), high]))
    return float(deviates[0]), float(deviates[1])


def _probit(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal deviates of rates; those of 0 and 1 are infinite."""
    return torch.special.ndtri(torch.from_numpy(rates)).numpy()
