"""What `voxnest evaluate` prints: tables of 80 columns at most, and what is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from voxnest.evaluation import EvaluationReport

SHOWN = 10
"""Of missing recordings."""


def print_report(report: EvaluationReport, console: Console) -> None:
    """Print what was found about one model."""
    console.print(f"{report.model} on {Path(report.trials or report.model).name}", style="bold", soft_wrap=True)
    console.print(_table(report))
    for line in _legend(report):
        console.print(line, style="dim")
    for table in filter(None, (_normalised(report), _calibration(report))):
        console.print()
        console.print(table)
    console.print(
        f"{report.targets:,} target and {report.nontargets:,} non-target trials of {report.recordings:,} recordings"
    )
    if report.real_time_factor:
        console.print(
            f"{report.audio_seconds / 60:.1f} min of audio embedded in {report.embedding_seconds:.1f} s, "
            f"{1 / report.real_time_factor:.0f}x real time"
        )
    if report.cached:
        console.print(f"{report.cached:,} embeddings came from the cache; --no-cache goes without")


def print_lists(reports: Collection[EvaluationReport], console: Console) -> None:
    """Print a row for each list (and model, if there are several): error rates at every dimension, the worst first."""
    several = len({report.model for report in reports}) > 1
    paths = {report.trials for report in reports}
    stems = {path: Path(path or "-").stem for path in paths}
    names = stems if len(set(stems.values())) == len(paths) else {path: str(path) for path in paths}
    dims = sorted({dim for report in reports for dim in report.dims}, reverse=True)
    rows = sorted(((report, report.dims[max(report.dims)]) for report in reports), key=lambda row: -row[1].eer)
    interval = any(result.eer_interval for _, result in rows)
    sizes = [f"EER %\n{dims[0]}", *["95%\n"][:interval], *(f"\n{dim}" for dim in dims[1:])]
    table = _make_table(["trials", *sizes, "false\nacc. %", "false\nrej. %"])
    table.columns[0].justify, table.columns[0].no_wrap, table.columns[0].overflow = "left", False, "fold"
    table.padding = (0, 1, 0, 0)  # a name of a list needs the room
    for report, result in rows:
        rates = {dim: f"{100 * found.eer:.2f}" for dim, found in report.dims.items()}
        limits = [f"{100 * low:.2f}-{100 * high:.2f}" for low, high in filter(None, [result.eer_interval])]
        point = result.verify
        errors = (point.false_accept_rate, point.false_reject_rate) if point else ()
        name = names[report.trials]
        table.add_row(
            f"{report.model}: {name}" if several else name,
            *(rates.get(dims[0], "-"), *limits, *(rates.get(dim, "-") for dim in dims[1:])),
            *(f"{100 * rate:.2f}" for rate in errors),
        )
    if not several:
        console.print(next(iter(reports)).model, style="bold", soft_wrap=True)
    console.print(table)
    if interval:
        console.print("95%: of the EER, over speakers", style="dim")
    console.print(f"false acc., rej.: of voxnest verify, at {dims[0]} numbers", style="dim")
    trials = sum(report.targets + report.nontargets for report in reports)
    console.print(f"{trials:,} trials of {len(reports)} lists")


def _table(report: EvaluationReport) -> Table:
    """A row for each dimension, at most 80 columns wide."""
    from voxnest.evaluation.report import UNKNOWN_SIZE

    results = report.dims.values()
    costs = [f"minDCF\n{prior:g}" for prior in next(iter(results)).min_dcf]
    interval = ["95%\n%"] if any(result.eer_interval for result in results) else []
    verified = all(result.verify for result in results)
    headings = ["dim", "EER\n%", *interval, "thresh.\nat EER", *costs]
    if verified:
        headings += ["verify\nthresh.", "false\nacc. %", "false\nrej. %"]
    table = _make_table(headings)
    for size, result in report.dims.items():
        limits = [f"{100 * low:.2f}-{100 * high:.2f}" for low, high in filter(None, [result.eer_interval])]
        cells = [str(size) if size != UNKNOWN_SIZE else "-", f"{100 * result.eer:.2f}", *limits]
        cells += [f"{result.threshold:.4f}", *(f"{cost:.4f}" for cost in result.min_dcf.values())]
        if verify := result.verify:
            cells.append(f"{verify.threshold:.4f}{'' if verify.calibrated else '*'}")
            cells += [f"{100 * rate:.2f}" for rate in (verify.false_accept_rate, verify.false_reject_rate)]
        table.add_row(*cells)
    return table


def _legend(report: EvaluationReport) -> Iterator[str]:
    """What the table's headings mean, in lines of 80 characters at most."""
    if any(result.eer_interval for result in report.dims.values()):
        yield "95%: of the EER, over speakers"
    points = [result.verify for result in report.dims.values() if result.verify]
    if points:
        yield "verify thresh.: used by voxnest verify, which would then accept false acc. % of"
        yield "the non-target trials and reject false rej. % of the target trials"
    if not all(point.calibrated for point in points):
        yield "*: a generic threshold; the model has none of its own. --threshold gives another"


def _normalised(report: EvaluationReport) -> Table | None:
    """A row for each dimension and kind of normalisation, beside the raw scores."""
    results = report.dims.values()
    if not any(result.normalised for result in results):
        return None
    costs = [f"minDCF\n{prior:g}" for prior in next(iter(results)).min_dcf]
    interval = ["95%\n%"] if any(result.eer_interval for result in results) else []
    table = _make_table(["dim", "scores", "EER\n%", *interval, "thresh.\nat EER", *costs])
    for size, result in report.dims.items():
        rows = [("raw", result.to_normalised()), *result.normalised.items()]
        for name, found in rows:
            limits = [f"{100 * low:.2f}-{100 * high:.2f}" for low, high in filter(None, [found.eer_interval])]
            cells = [str(size) if name == "raw" else "", name, f"{100 * found.eer:.2f}", *limits]
            table.add_row(*cells, f"{found.threshold:.4f}", *(f"{cost:.4f}" for cost in found.min_dcf.values()))
    return table


def _calibration(report: EvaluationReport) -> Table | None:
    """A row for each dimension that is calibrated."""
    found = {size: result.calibration for size, result in report.dims.items() if result.calibration}
    if not found:
        return None
    priors = next(iter(found.values())).act_dcf
    table = _make_table(["dim", "Cllr", "minCllr", *(f"actDCF\n{prior:g}" for prior in priors)])
    for size, result in found.items():
        costs = (f"{cost:.4f}" for cost in result.act_dcf.values())
        table.add_row(str(size), f"{result.cllr:.4f}", f"{result.min_cllr:.4f}", *costs)
    return table


def _make_table(headings: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def print_missing(missing: Sequence[str], console: Console) -> None:
    """Print the first recordings that are not there, and how many they are."""
    table = _make_table([])
    table.add_column(f"{len(missing):,} recordings are missing", overflow="fold")
    for path in missing[:SHOWN]:
        table.add_row(path)
    if len(missing) > SHOWN:
        table.add_row(f"... and {len(missing) - SHOWN:,} others; --json FILE names them all")
    console.print(table)
