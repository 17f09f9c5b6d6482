"""`voxnest prepare`: find the recordings of a corpus, write manifests and statistics."""

from pathlib import Path
from typing import Annotated

import typer


def prepare(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Corpus folder, or a CSV file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Manifest folder.")],
    layout: Annotated[
        str,
        typer.Option(
            help="auto, voxceleb (speaker/session/file), voxceleb1 (with the official lists: the sets of "
            "identification and verification too), speaker, librispeech, kaldi or csv."
        ),
    ] = "auto",
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", help="Threads; more help on network disks.")] = None,
) -> None:
    """Describe a corpus: lhotse manifests, statistics, and a list of what cannot be read.

    Interrupted, it continues when run again; run on a finished corpus, it looks at new and changed files
    only.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table

    from voxnest.corpora import prepare as preparation

    console = Console()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("finding recordings", total=None)

        def progress(done: int, total: int) -> None:
            bar.update(task, description="reading headers", completed=done, total=total)

        report = preparation.prepare(source, output, layout=layout, jobs=jobs, progress=progress)

    found = report.statistics
    table = Table(title=f"{escape(str(source))} (layout {found.layout})", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(justify="right")
    seconds, per_speaker = found.duration, found.recordings_per_speaker
    for name, value in (
        ("speakers", f"{found.speakers:,}"),
        ("sessions", f"{found.sessions:,}"),
        ("recordings", f"{found.recordings:,}"),
        ("utterances", f"{found.utterances:,}"),
        ("hours", f"{found.hours:,.2f}"),
        (
            "recordings per speaker (min / median / max)",
            f"{per_speaker['min']:g} / {per_speaker['median']:g} / {per_speaker['max']:g}",
        ),
        (
            "duration (quartiles)",
            f"{seconds['quartile1']:.2f} / {seconds['median']:.2f} / {seconds['quartile3']:.2f} s",
        ),
        ("shortest", f"{seconds['min']:.2f} s  {escape(found.shortest)}"),
        ("longest", f"{seconds['max']:.2f} s  {escape(found.longest)}"),
        ("headers opened now", f"{report.opened:,}"),
    ):
        table.add_row(name, value)
    console.print(table)
    if found.unreadable:
        listed = report.output / preparation.UNREADABLE
        console.print(f"[yellow]{found.unreadable:,} left out:[/] see {escape(str(listed))}", highlight=False)
    if report.counts:
        official = Table(title="beside the official numbers", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("", "found", "official", "missing"):
            official.add_column(column, justify="right" if column else "left")
        for count in report.counts:
            lacking = count.official - count.found
            official.add_row(count.what, f"{count.found:,}", f"{count.official:,}", f"{lacking:,}" if lacking else "")
        console.print(official)
        if report.missing:
            listed = report.output / preparation.MISSING
            note = f"[yellow]{report.missing:,} missing or unlisted:[/] see {escape(str(listed))}"
            console.print(note, highlight=False)
    console.print(f"manifest: {escape(str(report.output))}", highlight=False)
