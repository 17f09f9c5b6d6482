"""`voxnest embed`: speaker embeddings of many recordings, in one file or in a folder of shards."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from voxnest.cli.options import Adapter, Device, Dim, Model, Precision, Runtime

if TYPE_CHECKING:
    from voxnest.inference.bulk.running import Load


def embed(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Recordings, folders (searched for recordings), patterns such as 'a/*.wav', folders of manifests, "
            "lists (.txt, .lst, .scp: a path on a line, or an id and a path); - is a list on standard input."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A file to write (npz; - is the standard output), or a folder of shards."),
    ],
    model: Model = "default",
    adapter: Adapter = None,
    dim: Dim = None,
    format: Annotated[
        Literal["npz", "parquet", "kaldi", "lance"] | None,
        typer.Option(
            help="npz is one file, whole in memory; the others are folders of shards, of any size.",
            show_default="as the output's name ends, else npz",
        ),
    ] = None,
    device: Device = "auto",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Threads that decode and embed.", show_default="those of PyTorch, or 8"),
    ] = None,
    shard_size: Annotated[int, typer.Option(min=1, metavar="N", help="Recordings in a shard.")] = 4096,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(help="ray: on the cluster of RAY_ADDRESS; --jobs is of each task."),
    ] = "local",
    runtime: Runtime = None,
    precision: Precision = "float32",
) -> None:
    """Write the speaker embeddings of recordings.

    A folder of shards is continued by the same command: nothing in it is embedded again. What cannot be used is
    reported at the end (of a folder of shards OUTPUT, also in OUTPUT.run/failures.tsv); the others are written, and the
    exit status is 2.
    """
    from voxnest.files import is_stream
    from voxnest.inference.bulk.folder import noted_format
    from voxnest.inference.bulk.formats import FORMATS
    from voxnest.runtimes.loading import load_encoder

    load = partial(load_encoder, model, runtime=runtime, precision=precision, device=device, adapter=adapter)
    if format is None and not is_stream(output):
        ending = output.suffix.lower().removeprefix(".")
        format = ending if ending in FORMATS else noted_format(output)  # type: ignore[assignment]
    if format in (None, "npz"):
        _to_file(load, inputs, output, dim, jobs)
    else:
        options = {"format": format, "dim": dim, "jobs": jobs, "shard_size": shard_size, "engine": engine}
        _to_folder(load, inputs, output, **options)


def _to_file(load: Load, inputs: list[str], output: Path, dim: int | None, jobs: int | None) -> None:
    """All in memory, then in a file."""
    from voxnest.files import check_output, is_stream
    from voxnest.inference import embed_to_file
    from voxnest.inference.bulk import find_spans
    from voxnest.inference.pipeline import Span
    from voxnest.progress import progress_bar

    check_output(output)
    failures: list[tuple[str, str]] = []
    spans: dict[str, Span] = {}
    for name, span in find_spans(inputs, lambda *failure: failures.append(failure), in_order=True):
        if spans.setdefault(name, span) != span:
            failures.append((name, "has the id of another recording (expected unique ids)"))
    encoder = load()
    with progress_bar("embedding") as progress:
        embeddings = embed_to_file(encoder, spans, output, dim=dim, progress=progress, jobs=jobs)
    if embeddings:
        _say(f"{output}: {len(embeddings)} embeddings of {dim or encoder.embedding_dim} numbers", is_stream(output))
    for name, reason in embeddings.warnings:
        _warn(f"{name}: {reason}")
    _end([*failures, *embeddings.failures])


def _to_folder(load: Load, inputs: list[str], output: Path, **options: Any) -> None:
    """In shards, as they are done."""
    from voxnest.inference.bulk import Counts, embed_to_folder
    from voxnest.inference.bulk.folder import FAILURES, run_folder
    from voxnest.inference.bulk.sources import count_spans
    from voxnest.progress import throughput_bar

    with throughput_bar("embedding", partial(count_spans, inputs)) as show:

        def progress(counts: Counts) -> None:
            show(counts.embedded + counts.failed, counts.there, counts.rate())

        try:
            counts = embed_to_folder(load, inputs, output, progress=progress, **options)
        except KeyboardInterrupt:
            _warn(f"{output}: whole shards are kept; the same command continues")
            raise
    rate = f", {counts.rate()}" if counts.embedded else ""
    _say(f"{output}: {counts.held:,} embeddings, {counts.embedded:,} of them new{rate}")
    if counts.warned:
        why = "" if options["format"] == "kaldi" else ": see the column warnings"
        _warn(f"{counts.warned:,} of the new ones are not to be relied on{why}")
    shown = [(name, reason) for name, _, reason in counts.failures]
    if counts.failed > len(shown):
        shown.append((f"{counts.failed - len(shown):,} more", f"all are in {run_folder(output) / FAILURES}"))
    _end(shown)


def _say(text: str, aside: bool = False) -> None:
    from rich.console import Console

    Console(stderr=aside, soft_wrap=True, highlight=False, markup=False).print(text)


def _warn(text: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True, soft_wrap=True, highlight=False).print(f"[yellow]warning:[/] {escape(text)}")


def _end(failures: list[tuple[str, str]]) -> None:
    """Show what failed, and let the exit status tell."""
    from rich.console import Console
    from rich.markup import escape

    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, reason in failures:
        errors.print(f"[bold red]error:[/] {escape(f'{name}: {reason}')}")
    if failures:
        raise typer.Exit(2)
