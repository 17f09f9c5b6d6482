"""`voxnest train`: train an encoder as a configuration says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import DeviceIfAny

if TYPE_CHECKING:
    from voxnest.training.config import TrainingConfig

MOST_LISTED = 10


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="See configs/example.yaml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Such as optimizer.lr=0.002 trainer.max_steps=10."),
    ] = None,
    device: DeviceIfAny = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Make a few steps, print sizes, memory and time; leave nothing behind.")
    ] = False,
) -> None:
    """Train a speaker encoder; run again, the command continues an unfinished run.

    Everything of the run goes to its folder (`output` in the configuration): the encoder as
    best.safetensors and last.safetensors, checkpoints, metrics, the resolved configuration. Ctrl-C writes a
    checkpoint and stops.
    """
    from rich.console import Console
    from rich.table import Table

    from voxnest.errors import ConfigError
    from voxnest.training.settings import load_config, locate

    given = [*(overrides or []), *_device_settings(device)]
    settings = load_config(config, given)

    from voxnest.training import run
    from voxnest.training.interruption import TrainingInterruptedError, leave
    from voxnest.training.logs import MEASURES

    console = Console()
    try:
        if dry_run:
            _print_plan(settings)
            return
        result = run.train(settings, console=console, end_process=True)
    except TrainingInterruptedError as interruption:
        if run.is_first_process():
            saved = f"step {interruption.step} is saved" if interruption.step else "nothing was saved yet"
            console.print(f"interrupted: {saved}; the same command continues.", highlight=False)
        leave(interruption.status)
    except ConfigError as error:
        raise locate(error, config, given) from error
    if not run.is_first_process():
        return

    table = Table(title=MEASURES[settings.measure], title_justify="left")
    columns = {"best": result.best, "last": result.last, **({"average": result.average} if result.average else {})}
    for column in ("dimension", *columns):
        table.add_column(column, justify="right")
    for size in reversed(result.best):  # the largest at the end of the network first
        table.add_row(size, *(f"{rates[size]:.2%}" for rates in columns.values()))
    console.print(table)
    done = "already finished" if result.already_finished else "finished"
    lines = [f"{done}: {result.step:,} steps in {result.minutes:.1f} minutes, best at step {result.best_step:,}"]
    if result.already_finished:
        lines.append(f"to train on from its weights: init_from={result.folder / 'last.safetensors'} output=NEW")
    if result.unreadable:
        lines.append(f"{len(result.unreadable)} files could not be read and were skipped:")
        lines += [f"  {path}: {reason}" for path, reason in list(result.unreadable.items())[:MOST_LISTED]]
        lines.append(f"  all are listed in {result.folder / 'unreadable.tsv'}")
    best = result.folder / "best.safetensors"
    following = f"voxnest verify A.wav B.wav --model {best}"
    if settings.task == "identification":
        following = f"voxnest evaluate {best} --task identification --utterances MANIFEST"
    lines += ["", f"encoder:  {best}", f"next:     {following}"]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _print_plan(settings: "TrainingConfig") -> None:
    from voxnest.progress import progress_bar
    from voxnest.training.plan import make_plan
    from voxnest.training.run import make_trainer, quiet

    with quiet(), progress_bar("preparing") as progress:
        plan = make_plan(settings, make_trainer, progress)
    for name, text in plan.rows.items():
        print(f"{name:<11} {text}")


def _device_settings(device: str | None) -> list[str]:
    """The settings that `--device` stands for."""
    if device is None:
        return []
    from voxnest.models.device import find_device

    find_device(device)
    kind, _, number = device.partition(":")
    return [f"trainer.accelerator={kind}", *([f"trainer.devices=[{number}]"] if number else [])]
