"""`voxnest verify`: are two recordings of one speaker?"""

from typing import Annotated

import typer

from voxnest.cli.options import Device, Dim, Json, Model


def verify(
    a: Annotated[str, typer.Argument(help="A recording; - is the standard input.", show_default=False)],
    b: Annotated[str, typer.Argument(help="Another recording.", show_default=False)],
    model: Model = "default",
    dim: Dim = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least score of one speaker.", show_default="the model's own, or 0.5")
    ] = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Tell whether two recordings are of one speaker.

    The exit status is 0 if they are, 1 if they are not, 2 on an error.
    """
    from dataclasses import asdict, replace

    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.inputs import label, readable
    from voxnest.cli.progress import progress_bar
    from voxnest.cli.results import give_json
    from voxnest.errors import VoxnestError
    from voxnest.files import check_output
    from voxnest.hub.checkpoint import load_encoder
    from voxnest.inference import verify as run

    if json:
        check_output(json, ".json")
    encoder = load_encoder(model, device=device)
    with readable(a, b) as files, progress_bar("embedding") as progress:
        answer = run(encoder, files[a], files[b], dim, threshold, progress=progress)
    given = {file: name for name, file in files.items()}
    answer = replace(
        answer,
        silent=tuple(given[file] for file in answer.silent),
        warnings=tuple((given[file], reason) for file, reason in answer.warnings),
    )
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, reason in answer.warnings:
        errors.print(f"[yellow]warning:[/] {escape(f'{label(name)}: {reason}')}")
    if not answer.calibrated:
        advice = "measure the model's own with voxnest evaluate"
        errors.print(f"[yellow]note:[/] the threshold {answer.threshold:g} is generic; {advice}")
    try:
        if not give_json(asdict(answer), json):
            decision = "[bold green]same speaker[/]" if answer.same else "[bold red]different speakers[/]"
            console = Console(soft_wrap=True, highlight=False)
            least = ">=" if console.options.ascii_only else "≥"
            sign = least if answer.same else "<"
            details = f"score {answer.score:.4f} {sign} threshold {answer.threshold:.4f}, {answer.dim} numbers"
            console.print(f"{decision}  {details}")
    except (BrokenPipeError, SystemExit) as error:  # of rich; status 1 would say that the speakers differ
        raise VoxnestError("the answer", "nobody reads it: its output was closed") from error
    if not answer.same:
        raise typer.Exit(1)
