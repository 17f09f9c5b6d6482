"""`voxnest evaluate`: error rates of a model on a trial list, at every dimension."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from voxnest.cli.options import MODEL_HELP, Adapter, Cache, Device, Json, Precision, Root, Runtime

LONGEST_WINDOW = 60.0


class Norm(StrEnum):
    """How a cohort makes scores comparable."""

    AS = "as"
    S = "s"
    Z = "z"
    T = "t"
    MEAN = "mean"


class Task(StrEnum):
    """What is measured."""

    VERIFICATION = "verification"
    IDENTIFICATION = "identification"


def evaluate(
    model: Annotated[
        list[str] | None,
        typer.Argument(help=f"{MODEL_HELP} Several are compared.", show_default="default"),
    ] = None,
    adapter: Adapter = None,
    trials: Annotated[
        list[Path] | None,
        typer.Option(
            help="Trial list: '1|0 enrollment test' or 'enrollment test target|nontarget'. May be a pipe. May be "
            "repeated: one table, the worst list first."
        ),
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
    root: Root = None,
    dim: Annotated[
        list[int] | None,
        typer.Option(help="Embedding size to evaluate; may be repeated.", show_default="all the model has"),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A known list, downloaded if need be: vox1-o, vox1-o-original, vox1-e, vox1-h, sitw-core, voices, "
            "cnceleb; its corpus is in --root.",
        ),
    ] = None,
    enrollment: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Recordings of each enrolled speaker, for a --protocol.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out trials whose recordings are not there.")
    ] = False,
    cohort: Annotated[
        Path | None,
        typer.Option(
            metavar="PLACE", help="Normalise scores by these other speakers: a manifest, a corpus, or what embed wrote."
        ),
    ] = None,
    norm: Annotated[
        list[Norm] | None,
        typer.Option(help="as, s, z or t; mean subtracts the cohort's mean. May be repeated.", show_default="as"),
    ] = None,
    top_n: Annotated[int, typer.Option(min=2, help="Of the cohort, the most similar ones, for as.")] = 300,
    cohort_speakers: Annotated[
        bool, typer.Option("--cohort-speakers", help="Take the mean of each speaker of the cohort.")
    ] = False,
    plda: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Measure the scores of what voxnest plda wrote for the model too."),
    ] = None,
    cache: Cache = True,
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
    runtime: Runtime = None,
    precision: Precision = "float32",
) -> None:
    """Measure EER and minDCF of a model on a trial list, at every dimension, and the errors that verify would make; or
    how often it names the right one of the speakers it was trained on.

    Several models give a table each, several lists one for all; one plot, one report, and a list as JSON. Where JSON or
    the picture goes to standard output, everything else goes to standard error.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.evaluation_runs import Cohorts, evaluate_models, load_models
    from voxnest.cli.evaluation_tables import print_lists, print_missing, print_report
    from voxnest.cli.identification import print_identification
    from voxnest.cli.results import give_json
    from voxnest.drawing import PICTURES
    from voxnest.errors import ConfigError
    from voxnest.evaluation import (
        evaluate_scores,
        find_protocol,
        find_protocol_trials,
        find_trials,
        load_plda,
        plot_det,
        save_report,
    )
    from voxnest.evaluation.page import check_report, further_tables
    from voxnest.evaluation.trial_sets import MissingRecordings
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
    if adapter and (scores or len(model or []) > 1):
        with_what = "--scores" if scores else f"{len(model or [])} models"
        raise ConfigError("--adapter", f"given with {with_what}", "the one model that it was trained for")
    names = list(dict.fromkeys(scores or model or ["default"]))
    lists = list(dict.fromkeys(trials or []))
    if len(lists) > 1 and (scores or protocol):
        source = "--scores" if scores else "--protocol"
        raise ConfigError("--trials", f"{len(lists)} lists and {source}", f"one list with {source}")
    notes = Console(stderr=True, soft_wrap=True, highlight=False)
    if window is not None and not 0 <= window <= LONGEST_WINDOW:
        raise ConfigError("--window", f"{window:g} s", f"0 to {LONGEST_WINDOW:g}")
    if task == Task.IDENTIFICATION:
        others: dict[str, object] = {"trials": trials, "protocol": protocol, "scores": scores, "cohort": cohort}
        others |= {"plot": plot, "report": report, "interval": interval, "root": root, "runtime": runtime, "plda": plda}
        others["adapter"] = adapter
        if given := [f"--{name}" for name, value in others.items() if value]:
            raise ConfigError("--task identification", ", ".join(given), "--utterances, --dim, --window, --json")
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
    if not (trials or scores or protocol):
        expected = "--trials LIST, --protocol NAME, or --scores FILE with labels"
        raise ConfigError("--task verification", "nothing to evaluate on", expected)
    if scores and (protocol or cohort or plda or allow_missing):
        raise ConfigError("--scores", "given with --protocol, --cohort, --plda or --allow-missing", "a model for these")
    if protocol and root is None:
        raise ConfigError(f"--protocol {protocol}", "no --root", "the folder of the corpus")
    if enrollment and not protocol:
        raise ConfigError("--enrollment", "given without a protocol", "--protocol NAME")
    if not cohort and (norm or cohort_speakers):
        raise ConfigError("--norm", "given without a cohort", "--cohort PLACE")
    for path in filter(is_stream, lists):
        notes.print(f"[yellow]note:[/] reading trials from {escape(str(path))} until its writer ends")
    first = next(iter(lists), None)
    cards: dict[str, dict[str, str]] = {}
    if scores:
        reports = {str(path): evaluate_scores(path, first, root, interval) for path in dict.fromkeys(scores)}
    else:
        how = {"runtime": runtime, "precision": precision, "device": device, "adapter": adapter}
        encoders = load_models(list(map(str, names)), dim, how)
        try:
            if protocol is not None:
                assert root is not None
                known = find_protocol(protocol)
                found = [find_protocol_trials(known, root, first, enrollment, allow_missing=allow_missing)]
            else:
                found = [find_trials(path, root, allow_missing=allow_missing) for path in lists]
        except MissingRecordings as error:
            print_missing(error.missing, notes)
            if json:
                give_json({"missing": error.missing}, json)
            raise
        if missing := [path for listed in found for path in listed.missing]:
            print_missing(missing, notes)
        methods: Any = tuple(each.value for each in norm or [Norm.AS])
        reports, cards = evaluate_models(
            encoders,
            found,
            dim,
            interval=interval,
            window=window or None,
            cohorts=Cohorts(cohort, methods, top_n, cohort_speakers) if cohort else None,
            pldas={name: load_plda(plda, encoder) for name, encoder in encoders.items()} if plda else {},
            adapter=adapter,
            describe=report is not None,
            keep=cache,
        )

    console = Console(stderr=bool(piped), markup=False, highlight=False)
    for name, each in reports.items():
        for warning in each.warnings:
            notes.print(f"[yellow]warning:[/] {escape(f'{each.trials or name}: {warning}')}")
        if len(lists) < 2:
            print_report(each, console)
    if len(lists) > 1:
        print_lists(reports.values(), console)
    results = [each.to_dict() for each in reports.values()]
    if json and not give_json(results if len(results) > 1 else results[0], json):
        console.print(f"results: {json}", soft_wrap=True)
    if plot:
        plot_det(reports, plot)
        if str(plot) not in piped:
            console.print(f"DET plot: {plot}", soft_wrap=True)
    if report:
        save_report(reports, report, tables=further_tables(reports), cards=cards, audio=audio)
        console.print(f"report: {report / 'report.html'}", soft_wrap=True)
