"""`voxnest embed`: speaker embeddings of many recordings, in one file."""

from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.options import Device, Dim, Model, Precision, Runtime


def embed(
    files: Annotated[
        list[str],
        typer.Argument(help="Recordings, folders (searched for recordings), or patterns such as 'a/*.wav'."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where to write the embeddings (.npz); - is the standard output.")
    ],
    model: Model = "default",
    dim: Dim = None,
    device: Device = "auto",
    runtime: Runtime = None,
    precision: Precision = "float32",
) -> None:
    """Write the speaker embeddings of recordings: names, embeddings [n, dim], model, dim.

    A recording that cannot be used, or a folder that cannot be searched, is reported at the end; the others are
    written, and the exit status is 2.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.cli.progress import progress_bar
    from voxnest.errors import AudioError
    from voxnest.files import check_output, is_stream
    from voxnest.inference import embed_to_file, find_recordings
    from voxnest.runtimes.loading import load_encoder

    check_output(output)
    recordings: list[str] = []
    failures: list[str] = []
    for place in files:
        try:
            recordings += find_recordings(place, lambda folder, reason: failures.append(f"{folder}: {reason}"))
        except AudioError as error:
            failures.append(str(error))
    encoder = load_encoder(model, runtime=runtime, precision=precision, device=device)
    with progress_bar("embedding") as progress:
        embeddings = embed_to_file(encoder, recordings, output, dim=dim, progress=progress)
    if embeddings:
        written = f"{output}: {len(embeddings)} embeddings of {dim or encoder.embedding_dim} numbers"
        console = Console(stderr=is_stream(output), soft_wrap=True, highlight=False, markup=False)
        console.print(written)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for name, reason in embeddings.warnings:
        errors.print(f"[yellow]warning:[/] {escape(f'{name}: {reason}')}")
    failures += [f"{name}: {reason}" for name, reason in embeddings.failures]
    for failure in failures:
        errors.print(f"[bold red]error:[/] {escape(failure)}")
    if failures:
        raise typer.Exit(2)
