"""`voxnest verify`: are two recordings of one speaker?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import Adapter, Device, Dim, Json, Model, Precision, Runtime

if TYPE_CHECKING:
    from voxnest.inference import Verification


def verify(
    a: Annotated[str, typer.Argument(help="A recording; - is the standard input.", show_default=False)],
    b: Annotated[str, typer.Argument(help="Another recording.", show_default=False)],
    model: Model = "default",
    adapter: Adapter = None,
    dim: Dim = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Least score of one speaker.", show_default="the calibration's, the model's own, or 0.5"),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(help="Probability of one speaker before anything was heard.", show_default="0.5"),
    ] = None,
    cost_miss: Annotated[
        float | None, typer.Option(help="Cost of answering 'different' wrongly.", show_default="1")
    ] = None,
    cost_fa: Annotated[float | None, typer.Option(help="Cost of answering 'same' wrongly.", show_default="1")] = None,
    far: Annotated[
        float | None, typer.Option(metavar="RATE", help="Accept at most this share of different speakers, say 0.001.")
    ] = None,
    device: Device = "auto",
    runtime: Runtime = None,
    precision: Precision = "float32",
    json: Json = None,
) -> None:
    """Tell whether two recordings are of one speaker.

    A model of voxnest calibrate answers with a log-likelihood ratio, and decides as costs least (--prior, --cost-miss,
    --cost-fa) or at a wanted rate of false accepts (--far). The exit status is 0 if they are, 1 if they are not, 2 on
    an error.
    """
    from voxnest.files import check_output
    from voxnest.runtimes.loading import load_encoder

    if json:
        check_output(json, ".json")
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device, adapter=adapter)

    # Only now: an exported model loads while these are imported.
    from dataclasses import asdict, replace

    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.inputs import label, readable
    from voxnest.cli.results import give_json
    from voxnest.errors import VoxnestError
    from voxnest.inference import verify as run
    from voxnest.progress import progress_bar
    from voxnest.scoring.calibration import FEW_ERRORS

    costs = None
    if cost_miss is not None or cost_fa is not None:
        costs = (1.0 if cost_miss is None else cost_miss, 1.0 if cost_fa is None else cost_fa)
    with readable(a, b) as files, progress_bar("embedding") as progress:
        answer = run(
            *(encoder, files[a], files[b], dim, threshold), prior=prior, costs=costs, far=far, progress=progress
        )
    given = {file: name for name, file in files.items()}
    answer = replace(
        answer,
        silent=tuple(given[file] for file in answer.silent),
        warnings=tuple((given[file], reason) for file, reason in answer.warnings),
    )
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, reason in answer.warnings:
        errors.print(f"[yellow]warning:[/] {escape(f'{label(name)}: {reason}')}")
    if answer.llr is None and threshold is None:
        generic = "" if answer.calibrated else f", and the threshold {answer.threshold:g} is generic"
        advice = "voxnest calibrate makes it evidence"
        errors.print(f"[yellow]note:[/] the score is not calibrated{generic}; {advice}")
    if answer.false_accepts is not None and answer.false_accepts.accepted < FEW_ERRORS:
        errors.print(f"[yellow]note:[/] the threshold {answer.false_accepts}")
    try:
        if not give_json(asdict(answer), json):
            decision = "[bold green]same speaker[/]" if answer.same else "[bold red]different speakers[/]"
            console = Console(soft_wrap=True, highlight=False)
            least = ">=" if console.options.ascii_only else "≥"
            sign = least if answer.same else "<"
            details = f"score {answer.score:.4f} {sign} threshold {answer.threshold:.4f}, {answer.dim} numbers"
            console.print(f"{decision}  {details}")
            if answer.llr is not None:
                console.print(_evidence(answer))
    except (BrokenPipeError, SystemExit) as error:  # of rich; status 1 would say that the speakers differ
        raise VoxnestError("the answer", "nobody reads it: its output was closed") from error
    if not answer.same:
        raise typer.Exit(1)


def _evidence(answer: Verification) -> str:
    """What the score means, in a line."""
    text = f"log-likelihood ratio {answer.llr:+.2f}"
    if answer.false_accepts is not None:
        learnt = answer.false_accepts
        text += f" (threshold {answer.llr_threshold:+.2f}, learnt from {learnt.nontargets:,} trials)"
    elif answer.llr_threshold is not None:
        text += f" (threshold {answer.llr_threshold:+.2f})"
    return f"{text}; one speaker with a probability of {answer.probability:.4g}, if it was {answer.prior:g} before"
