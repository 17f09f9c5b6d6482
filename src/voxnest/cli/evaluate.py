"""`voxnest evaluate`: error rates of a model on a trial list, at every dimension."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    trials: Annotated[
        Path, typer.Option(help="Trial list: '1|0 enrollment test' or 'enrollment test target|nontarget'.")
    ],
    model: Annotated[
        str, typer.Argument(help="A checkpoint or run folder, or a name of voxnest models --weights.")
    ] = "default",
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that the list's paths are relative to.",
            show_default="the list's folder, or wav or test in it",
        ),
    ] = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(help="Embedding size to evaluate; may be repeated.", show_default="all the model has"),
    ] = None,
    interval: Annotated[bool, typer.Option("--interval", help="Add a 95% confidence interval over speakers.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the results here too, as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the DET plot here (PNG).")] = None,
) -> None:
    """Measure EER and minDCF of a model on a trial list, at every dimension."""
    from rich.console import Console
    from rich.table import Table

    from voxnest.evaluation import evaluate as run
    from voxnest.evaluation import plot_det
    from voxnest.files import check_output
    from voxnest.hub.checkpoint import load_encoder

    if json:
        check_output(json)
    if plot:
        check_output(plot, ".png")
    report = run(load_encoder(model), trials, root, dim, progress=True, interval=interval)

    console = Console(markup=False, highlight=False)
    table = Table(title=f"{report.model} on {trials.name}", title_justify="left", title_style="bold")
    for heading in ("dim", "EER %", *(["95%"] if interval else []), "threshold", "minDCF(0.01)", "minDCF(0.05)"):
        table.add_column(heading, justify="right")
    for size, result in report.dims.items():
        costs = [f"{cost:.4f}" for cost in result.min_dcf.values()]
        limits = [f"{100 * low:.2f}-{100 * high:.2f}" for low, high in filter(None, [result.eer_interval])]
        table.add_row(str(size), f"{100 * result.eer:.2f}", *limits, f"{result.threshold:.4f}", *costs)
    console.print(table)
    console.print(
        f"{report.targets:,} target and {report.nontargets:,} non-target trials of {report.recordings:,} recordings"
    )
    console.print(
        f"{report.audio_seconds / 60:.1f} min of audio embedded in {report.embedding_seconds:.1f} s, "
        f"{1 / report.real_time_factor:.0f}x real time"
    )
    if json:
        report.save_json(json)
        console.print(f"results: {json}")
    if plot:
        plot_det(report, plot)
        console.print(f"DET plot: {plot}")
