"""`voxnest quickstart`: from nothing to a running training on a public corpus."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import DeviceIfAny

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from voxnest.corpora.voxceleb1 import Count
    from voxnest.training.quickstart.planning import Plan


def quickstart(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="voxceleb.")],
    root: Annotated[Path, typer.Option(metavar="DIR", help="Where everything goes.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of the configuration, as in voxnest train.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan, and do nothing.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="CONFIG.yaml", help="What to train.", show_default="that of DIR, else configs/quickstart"),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Download without being asked.")] = False,
    prefix: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="LINK", help="What VoxCeleb's file names are put behind: a link with a key, say."
        ),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on with a corpus of which something is missing.")
    ] = False,
    device: DeviceIfAny = None,
) -> None:
    """Download VoxCeleb2 dev, VoxCeleb1 test, MUSAN and RIRS_NOISES, check them, and train.

    First a plan tells what is there, what is left to do, and whether disk and memory suffice. Run again, the
    command continues wherever it was: in a download, in an archive, in the training. Files that you have may be
    put into DIR by hand.
    """
    from rich.console import Console

    from voxnest.cli.app import app
    from voxnest.cli.config import find_config
    from voxnest.errors import ConfigError, one_of
    from voxnest.progress import progress_bar
    from voxnest.training.quickstart import planning, running
    from voxnest.training.quickstart.pieces import CORPORA, with_prefix

    if corpus not in CORPORA:
        raise ConfigError("quickstart", f"{corpus!r} is unknown", one_of(corpus, CORPORA))
    root = root.expanduser().absolute()
    pieces = CORPORA[corpus]()
    if prefix:
        pieces = with_prefix(pieces, prefix)
    written = root / planning.CONFIG
    source = config or (written if written.exists() else find_config("quickstart"))
    plan = planning.make_plan(pieces, root, source, overrides or (), allow_missing=allow_missing)

    console = Console(highlight=False)
    _show(console, plan, source)
    if dry_run:
        return
    plan.check()
    if plan.download and not yes:
        _ask(plan)
    running.download(plan)
    states = running.unpack_all(plan, progress_bar)
    counts = running.count(plan, states)
    console.print(_counted(counts))
    if (report := running.describe(plan, states, progress_bar)) is not None:
        found = report.statistics
        console.print(
            f"manifest: {found.utterances:,} utterances, {found.hours:,.1f} hours, {found.unreadable:,} unreadable"
        )
    words = ["train", str(running.write_config(plan)), *(["--device", device] if device else [])]
    _tell_what_to_watch(console, plan)
    console.print(f"$ voxnest {shlex.join(words)}", markup=False, soft_wrap=True)
    app(words, standalone_mode=False)


def _show(console: Console, plan: Plan, source: Path) -> None:
    from rich.markup import escape

    from voxnest.training.quickstart.planning import gpus

    console.print(_planned(plan))
    devices = gpus()
    lines = [
        ("folder", str(plan.root)),
        ("disk", f"{_gb(plan.needed)} needed, {_gb(plan.free)} free{_short(plan.free, plan.needed)}"),
        (
            "memory",
            f"{_gb(plan.memory_needed)} needed, {_gb(plan.memory)} there{_short(plan.memory, plan.memory_needed)}",
        ),
        (
            "GPU",
            ", ".join(f"{name}, {_gb(size)}" for name, size in devices)
            or "none; on a CPU this training takes very long",
        ),
        ("configuration", str(source)),
        ("training", _summary(plan)),
    ]
    for name, text in lines:
        console.print(f"{name:<14} {escape(text)}", soft_wrap=True)


def _planned(plan: Plan) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("piece", "size", "there", "to do"):
        table.add_column(heading, justify="right" if heading == "size" else "left", overflow="fold")
    for row in plan.rows():
        table.add_row(escape(row.what), _size(row.size), row.there, row.todo)
    table.add_section()
    table.add_row("to download", _gb(plan.download))
    return table


def _summary(plan: Plan) -> str:
    config = plan.config
    trainer = config.trainer
    limits = {"steps": trainer.max_steps, "epochs": trainer.max_epochs, "minutes": trainer.max_minutes}
    length = " or ".join(f"{limit:g} {unit}" for unit, limit in limits.items() if limit)
    start = f" from {config.init_from}" if config.init_from else ""
    dims = f", dims {', '.join(map(str, config.model.dims))}" if config.model.dims else ""
    stages = f", {config.stages.frozen_steps:,} steps of the head alone first" if config.stages.frozen_steps else ""
    return f"{config.model.name}{start}{dims}, batches of {config.crops.batch_size}, {length or '20 epochs'}{stages}"


def _ask(plan: Plan) -> None:
    from voxnest.errors import ConfigError

    if not (sys.stdin.isatty() and typer.confirm(f"Download {_gb(plan.download)}?")):
        raise ConfigError("quickstart", f"{_gb(plan.download)} are not downloaded without consent", "--yes")


def _counted(counts: list[Count]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("", "found", "official", "missing"):
        table.add_column(column, justify="right" if column else "left")
    for count in counts:
        lacking = count.official - count.found
        table.add_row(count.what, f"{count.found:,}", f"{count.official:,}", f"{lacking:,}" if lacking else "")
    return table


def _tell_what_to_watch(console: Console, plan: Plan) -> None:
    from voxnest.training.quickstart.pieces import ARCHIVES

    run, steps = plan.config.output, plan.config.trainer.val_every_steps
    lines = [
        f"archives  {plan.root / ARCHIVES} can be deleted: what is in them is unpacked and counted",
        f"watch     {run}/metrics.csv: the loss falls; eer/<dim> every {steps:,} steps",
        f"          tensorboard --logdir {run}",
        f"expect    {_published(plan)}",
        "stop      Ctrl-C; the same command continues",
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _published(plan: Plan) -> str:
    """What the model's source reports of it, to compare a training with."""
    from voxnest.zoo.registry import CARDS

    name = plan.config.model.name or str(plan.config.init_from)
    published = CARDS[name].published if name in CARDS else None
    if published is None or not published.eer:
        return f"no error rates are published of {name}"
    rates = ", ".join(f"{trials} {published.rate(trials)}" for trials in published.eer)
    normalised = ", with AS-norm in brackets" if published.eer_as_norm else ""
    return f"EER in % as published of {name}{normalised}: {rates}; source: {published.source}"


def _short(there: int, needed: int) -> str:
    return "" if there >= needed else ": not enough"


def _size(size: int | None) -> str:
    if size is None:
        return ""
    return _gb(size) if size >= 5e7 else f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _gb(size: int) -> str:
    return f"{size / 1e9:,.1f} GB"
