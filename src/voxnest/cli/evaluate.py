"""`voxnest evaluate`: error rates of a model on a trial list, at every dimension."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import Device, Json, ModelArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from voxnest.evaluation import EvaluationReport


def evaluate(
    trials: Annotated[
        Path,
        typer.Option(help="Trial list: '1|0 enrollment test' or 'enrollment test target|nontarget'. May be a pipe."),
    ],
    model: ModelArgument = "default",
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the list's relative paths start from.",
            show_default="the list's folder, or wav or test in it",
        ),
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(help="Embedding size to evaluate; may be repeated.", show_default="all the model has"),
    ] = None,
    interval: Annotated[bool, typer.Option("--interval", help="Add a 95% confidence interval over speakers.")] = False,
    json: Json = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the DET plot here (.png, .svg, .pdf; - is a PNG).")
    ] = None,
    device: Device = "auto",
) -> None:
    """Measure EER and minDCF of a model on a trial list, at every dimension, and the errors that verify would make.

    Where JSON or the picture goes to standard output, everything else goes to standard error.
    """
    from dataclasses import replace

    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.progress import progress_bar
    from voxnest.drawing import PICTURES
    from voxnest.errors import ConfigError
    from voxnest.evaluation import evaluate as run
    from voxnest.evaluation import plot_det
    from voxnest.files import check_output, is_stream
    from voxnest.hub.checkpoint import load_encoder

    if json:
        check_output(json, ".json")
    if plot:
        check_output(plot, *PICTURES)
    piped = [str(path) for path in (json, plot) if str(path) in ("-", "/dev/stdout")]
    if len(piped) > 1:
        raise ConfigError("--plot", "standard output, where the JSON goes", "a file")
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    if is_stream(trials):
        notes.print(f"[yellow]note:[/] reading trials from {escape(str(trials))} until its writer ends")
    encoder = load_encoder(model, device=device)
    with progress_bar("embedding") as progress:
        report = replace(run(encoder, trials, root, dim, progress=progress, interval=interval), model=model)
    for warning in report.warnings:
        notes.print(f"[yellow]warning:[/] {escape(f'{trials}: {warning}')}")

    console = Console(stderr=bool(piped), markup=False, highlight=False)
    console.print(f"{report.model} on {trials.name}", style="bold", soft_wrap=True)
    console.print(_table(report))
    for line in _legend(report):
        console.print(line, style="dim")
    console.print(
        f"{report.targets:,} target and {report.nontargets:,} non-target trials of {report.recordings:,} recordings"
    )
    console.print(
        f"{report.audio_seconds / 60:.1f} min of audio embedded in {report.embedding_seconds:.1f} s, "
        f"{1 / report.real_time_factor:.0f}x real time"
    )
    if json:
        report.save_json(json)
        if str(json) not in piped:
            console.print(f"results: {json}", soft_wrap=True)
    if plot:
        plot_det(report, plot)
        if str(plot) not in piped:
            console.print(f"DET plot: {plot}", soft_wrap=True)


def _table(report: EvaluationReport) -> Table:
    """A row for each dimension, at most 80 columns wide."""
    from rich.table import Table

    results = report.dims.values()
    costs = [f"minDCF\n{prior:g}" for prior in next(iter(results)).min_dcf]
    interval = ["95%\n%"] if any(result.eer_interval for result in results) else []
    headings = [
        "dim",
        "EER\n%",
        *interval,
        "thresh.\nat EER",
        *costs,
        "verify\nthresh.",
        "false\nacc. %",
        "false\nrej. %",
    ]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for size, result in report.dims.items():
        verify = result.verify
        limits = [f"{100 * low:.2f}-{100 * high:.2f}" for low, high in filter(None, [result.eer_interval])]
        table.add_row(
            *(str(size), f"{100 * result.eer:.2f}", *limits, f"{result.threshold:.4f}"),
            *(f"{cost:.4f}" for cost in result.min_dcf.values()),
            f"{verify.threshold:.4f}{'' if verify.calibrated else '*'}",
            *(f"{100 * rate:.2f}" for rate in (verify.false_accept_rate, verify.false_reject_rate)),
        )
    return table


def _legend(report: EvaluationReport) -> Iterator[str]:
    """What the table's headings mean, in lines of 80 characters at most."""
    if any(result.eer_interval for result in report.dims.values()):
        yield "95%: of the EER, over speakers"
    yield "verify thresh.: used by voxnest verify, which would then accept false acc. % of"
    yield "the non-target trials and reject false rej. % of the target trials"
    if not all(result.verify.calibrated for result in report.dims.values()):
        yield "*: a generic threshold; the model has none of its own. --threshold gives another"
