"""`voxnest evaluate`: error rates of a model on a trial list, at every dimension."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import MODEL_HELP, Device, Json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from voxnest.evaluation import EvaluationReport


LONGEST_WINDOW = 60.0


class Task(StrEnum):
    """What is measured."""

    VERIFICATION = "verification"
    IDENTIFICATION = "identification"


def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Argument(help=f"{MODEL_HELP} Several are compared.", show_default="default"),
    ] = None,
    trials: Annotated[
        Path | None,
        typer.Option(help="Trial list: '1|0 enrollment test' or 'enrollment test target|nontarget'. May be a pipe."),
    ] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Measure scores of a file instead of a model: 'enrollment test score [label]' or 'label enrollment "
            "test score'. Labels may be in --trials. May be repeated.",
        ),
    ] = None,
    task: Annotated[
        Task, typer.Option(help="verification, of --trials, or identification, of --utterances.", show_choices=False)
    ] = Task.VERIFICATION,
    utterances: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Manifest of recordings of the model's speakers, for identification."),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="Average over windows that slide by half of this; 0: whole recordings.",
            show_default="3 for identification, else 0",
        ),
    ] = None,
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
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write report.html, report.json and report.md into this folder.")
    ] = None,
    audio: Annotated[
        bool, typer.Option("--audio", help="Put players of the worst trials' recordings into the report.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Measure EER and minDCF of a model on a trial list, at every dimension, and the errors that verify would make; or
    how often it names the right one of the speakers it was trained on.

    Several models give a table each, one plot, one report, and a list as JSON. Where JSON or the picture goes to
    standard output, everything else goes to standard error.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.identification import print_identification
    from voxnest.cli.results import give_json
    from voxnest.drawing import PICTURES
    from voxnest.errors import ConfigError
    from voxnest.evaluation import evaluate_scores, plot_det, save_report
    from voxnest.evaluation.page import check_report
    from voxnest.files import check_output, is_stream

    if json:
        check_output(json, ".json")
    if plot:
        check_output(plot, *PICTURES)
    if report:
        check_report(report)
    elif audio:
        raise ConfigError("--audio", "given without a report to put it into", "--report DIR")
    piped = [str(path) for path in (json, plot) if str(path) in ("-", "/dev/stdout")]
    if len(piped) > 1:
        raise ConfigError("--plot", "standard output, where the JSON goes", "a file")
    if scores and (model or dim):
        raise ConfigError("--scores", "given with a model or --dim", "one of them: scores are measured as they are")
    names = list(dict.fromkeys(scores or model or ["default"]))
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    if window is not None and not 0 <= window <= LONGEST_WINDOW:
        raise ConfigError("--window", f"{window:g} s", f"0 to {LONGEST_WINDOW:g}")
    if task == Task.IDENTIFICATION:
        if scores or trials or plot or report or interval or root:
            given = "--trials, --scores, --plot, --report, --interval or --root"
            raise ConfigError("--task identification", given, "--utterances, --dim, --window, --json")
        if utterances is None:
            raise ConfigError("--task identification", "nothing to evaluate on", "--utterances")
        if len(names) > 1:
            raise ConfigError("--task identification", f"{len(names)} models", "one")
        print_identification(str(names[0]), utterances, dim, window, json, device)
        return
    if utterances is not None:
        raise ConfigError("--task verification", f"--utterances {utterances}", "--trials")
    if scores and window is not None:
        raise ConfigError("--scores", "given with --window", "one of them: scores are measured as they are")
    if not (trials or scores):
        raise ConfigError(
            "--task verification", "nothing to evaluate on", "--trials LIST, or --scores FILE with labels"
        )
    if trials and is_stream(trials):
        if len(names) > 1:
            raise ConfigError("--trials", f"{trials}, which can be read once, with {len(names)} models", "a file")
        notes.print(f"[yellow]note:[/] reading trials from {escape(str(trials))} until its writer ends")
    cards: dict[str, dict[str, str]] = {}
    if scores:
        reports = {str(path): evaluate_scores(path, trials, root, interval) for path in dict.fromkeys(scores)}
    else:
        assert trials
        describe = report is not None
        reports, cards = _run(list(map(str, names)), trials, root, dim, interval, window, device, describe=describe)

    console = Console(stderr=bool(piped), markup=False, highlight=False)
    for name, found in reports.items():
        for warning in found.warnings:
            notes.print(f"[yellow]warning:[/] {escape(f'{found.trials or name}: {warning}')}")
        _print(found, console)
    results = [found.to_dict() for found in reports.values()]
    if json and not give_json(results if len(results) > 1 else results[0], json):
        console.print(f"results: {json}", soft_wrap=True)
    if plot:
        plot_det(reports, plot)
        if str(plot) not in piped:
            console.print(f"DET plot: {plot}", soft_wrap=True)
    if report:
        save_report(reports, report, cards=cards, audio=audio)
        console.print(f"report: {report / 'report.html'}", soft_wrap=True)


def _run(
    models: list[str],
    trials: Path,
    root: Path | None,
    dims: list[int] | None,
    interval: bool,
    window: float | None,
    device: str,
    *,
    describe: bool,
) -> tuple[dict[str, EvaluationReport], dict[str, dict[str, str]]]:
    """Evaluate models, and describe them if it is wanted. All are loaded before the first recording is read."""
    from dataclasses import replace

    from voxnest.cli.progress import progress_bar
    from voxnest.evaluation import describe_encoder
    from voxnest.evaluation import evaluate as run
    from voxnest.evaluation.evaluating import check_dims
    from voxnest.hub.checkpoint import find_metadata, load_encoder

    encoders = {name: load_encoder(name, device=device) for name in models}
    for encoder in encoders.values():
        check_dims(encoder, dims)
    reports, cards = {}, {}
    for name, encoder in encoders.items():
        with progress_bar("embedding") as progress:
            found = run(encoder, trials, root, dims, progress=progress, interval=interval, window=window or None)
        reports[name] = replace(found, model=name)
        if describe:
            cards[name] = describe_encoder(encoder, find_metadata(name))
    return reports, cards


def _print(report: EvaluationReport, console: Console) -> None:
    """Print what was found about one model."""
    console.print(f"{report.model} on {Path(report.trials or report.model).name}", style="bold", soft_wrap=True)
    console.print(_table(report))
    for line in _legend(report):
        console.print(line, style="dim")
    console.print(
        f"{report.targets:,} target and {report.nontargets:,} non-target trials of {report.recordings:,} recordings"
    )
    if report.real_time_factor:
        console.print(
            f"{report.audio_seconds / 60:.1f} min of audio embedded in {report.embedding_seconds:.1f} s, "
            f"{1 / report.real_time_factor:.0f}x real time"
        )


def _table(report: EvaluationReport) -> Table:
    """A row for each dimension, at most 80 columns wide."""
    from rich.table import Table

    from voxnest.evaluation.report import UNKNOWN_SIZE

    results = report.dims.values()
    costs = [f"minDCF\n{prior:g}" for prior in next(iter(results)).min_dcf]
    interval = ["95%\n%"] if any(result.eer_interval for result in results) else []
    verified = all(result.verify for result in results)
    headings = ["dim", "EER\n%", *interval, "thresh.\nat EER", *costs]
    if verified:
        headings += ["verify\nthresh.", "false\nacc. %", "false\nrej. %"]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
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
