"""`voxnest bench`: what each size of embedding of a model costs and gives."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.options import Device, Json, ModelArgument, Root


def bench(
    model: ModelArgument = "default",
    trials: Annotated[Path | None, typer.Option(help="Trial list, for error rates.", show_default="no rates")] = None,
    root: Root = None,
    duration: Annotated[
        float, typer.Option(min=0.1, max=60.0, metavar="SECONDS", help="Of the utterance that is timed.")
    ] = 3.0,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Print, for every size of embedding after every exit: EER, time per utterance, bytes, comparisons per second.

    Times are of one utterance, read already, with all threads; on a busy machine their ratios are better than they are.
    """
    from rich.console import Console
    from rich.table import Table

    from voxnest.cli.results import give_json
    from voxnest.evaluation import find_trials
    from voxnest.evaluation.costs import measure_costs
    from voxnest.files import check_output
    from voxnest.hub.checkpoint import load_encoder
    from voxnest.progress import progress_bar

    if json:
        check_output(json, ".json")
    listed = find_trials(trials, root) if trials else None
    encoder = load_encoder(model, device=device)
    with progress_bar("embedding") as progress:
        costs = measure_costs(encoder, listed, duration=duration, progress=progress)
    if give_json([asdict(cost) for cost in costs], json):
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    rate = ["EER\n%"] if listed else []
    for heading in ("exit", "dim", *rate, "time\nms", "of the\nwhole", "GMACs", "bytes", "comparisons\nmillion/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cost in costs:
        table.add_row(
            "end" if cost.exit is None else str(cost.exit),
            str(cost.dim),
            *([f"{100 * cost.eer:.2f}"] if cost.eer is not None else []),
            *(f"{1e3 * cost.seconds:.1f}", f"{cost.ratio:.2f}", f"{cost.gmacs:.3f}", str(cost.size)),
            f"{cost.comparisons / 1e6:.0f}",
        )
    console = Console(highlight=False)
    console.print(f"{encoder.name}: one utterance of {duration:g} s", markup=False)
    console.print(table)
