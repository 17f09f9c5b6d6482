"""`voxnest verify`: are two recordings of one speaker?"""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    a: Annotated[Path, typer.Argument(help="A recording.", show_default=False)],
    b: Annotated[Path, typer.Argument(help="Another recording.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint or run folder, or a name of voxnest models --weights.")
    ] = "default",
    dim: Annotated[
        int | None, typer.Option(help="Size of the embeddings.", show_default="the largest the model has")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Least score of one speaker.", show_default="the model's own, or 0.5")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Tell whether two recordings are of one speaker.

    The exit status is 0 if they are, 1 if they are not, 2 on an error.
    """
    from dataclasses import asdict
    from json import dumps

    from rich.console import Console
    from rich.markup import escape

    from voxnest.hub.checkpoint import load_encoder
    from voxnest.inference import verify as run

    answer = run(load_encoder(model), a, b, dim, threshold)
    warnings = Console(stderr=True, soft_wrap=True, highlight=False)
    for name in answer.silent:
        warnings.print(f"[yellow]warning:[/] {escape(name)}: is silent; the answer means nothing")
    if not answer.calibrated:
        advice = "measure the model's own with voxnest evaluate"
        warnings.print(f"[yellow]note:[/] the threshold {answer.threshold:g} is generic; {advice}")
    if json:
        typer.echo(dumps(asdict(answer)))
    else:
        decision = "[bold green]same speaker[/]" if answer.same else "[bold red]different speakers[/]"
        sign = "≥" if answer.same else "<"
        details = f"score {answer.score:.4f} {sign} threshold {answer.threshold:.4f}, {answer.dim} numbers"
        Console(soft_wrap=True, highlight=False).print(f"{decision}  {details}")
    if not answer.same:
        raise typer.Exit(1)
