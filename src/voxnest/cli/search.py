"""`voxnest search`: search an architecture as a configuration says."""

import json
from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.train import train


def search(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="See configs/autospeech/search.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Such as model.space=s3 trainer.max_epochs=10."),
    ] = None,
) -> None:
    """Search an architecture for speaker recognition; run again, the command continues an unfinished search.

    Everything goes to the run folder (`output` in the configuration): the genotypes of every epoch, the last one as
    genotype.txt and drawn as cell.svg, metrics, a checkpoint. Ctrl-C writes a checkpoint and stops. Where the
    configuration names one of a training (`training`), the network that was found is trained by it.
    """
    from rich.console import Console
    from rich.table import Table

    from voxnest.errors import ConfigError
    from voxnest.nas.config import SearchConfig
    from voxnest.training.settings import load, load_config, locate

    given = overrides or []
    settings = load(SearchConfig, config, given)
    if settings.training is not None:
        load_config(settings.training)  # what is wrong with it is not to be found out after the search

    from voxnest.nas import search as searching
    from voxnest.training.interruption import TrainingInterruptedError, leave

    console = Console()
    try:
        result = searching.search(settings, console=console, end_process=True)
    except TrainingInterruptedError as interruption:
        saved = f"step {interruption.step} is saved" if interruption.step else "nothing was saved yet"
        console.print(f"interrupted: {saved}; the same command continues.", highlight=False)
        leave(interruption.status)
    except ConfigError as error:
        raise locate(error, config, given, SearchConfig) from error

    table = Table(title="Found", title_justify="left")
    for column in ("cost weight", "accuracy", "GMACs", "entropy"):
        table.add_column(column, justify="right")
    for found in result.found:
        entropy = " ".join(f"{value:.3f}" for value in found.entropy)
        table.add_row(f"{found.cost_weight:g}", f"{found.accuracy:.1%}", f"{found.gmacs:.3f}", entropy)
    console.print(table)
    done = "already finished" if result.already_finished else "finished"
    lines = [f"{done}: {result.step:,} steps, {result.epochs:g} epochs in {result.minutes:.1f} minutes", ""]
    for number, found in enumerate(result.found):
        lines += [
            found.genotype,
            f"genotype: {result.file(number, 'genotype')}",
            f"picture:  {result.file(number, 'cell')}",
        ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if settings.training is not None:
        console.print()
        genotype = json.dumps(result.found[0].genotype)
        train(settings.training, [f"model.overrides.genotype={genotype}", f"output={result.folder / 'training'}"])
