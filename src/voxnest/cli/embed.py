"""`voxnest embed`: speaker embeddings of many recordings, in one file."""

from pathlib import Path
from typing import Annotated

import typer


def embed(
    files: Annotated[
        list[str],
        typer.Argument(help="Recordings, folders (searched for recordings), or patterns such as 'a/*.wav'."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the embeddings (.npz).")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A checkpoint or run folder, or a name of voxnest models --weights.")
    ] = "default",
    dim: Annotated[
        int | None, typer.Option(help="Size of the embeddings.", show_default="the largest the model has")
    ] = None,
) -> None:
    """Write the speaker embeddings of recordings: names, embeddings [n, dim], model, dim.

    A recording that cannot be used is reported at the end; the others are written, and the exit status is 2.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.hub.checkpoint import load_encoder
    from voxnest.inference import embed_to_file, find_recordings

    recordings = find_recordings(files)
    encoder = load_encoder(model)
    embeddings = embed_to_file(encoder, recordings, output, dim=dim, progress=True)
    if embeddings:
        written = f"{output}: {len(embeddings)} embeddings of {dim or encoder.embedding_dim} numbers"
        Console(soft_wrap=True, highlight=False, markup=False).print(written)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for name in embeddings.silent:
        errors.print(f"[yellow]warning:[/] {escape(name)}: is silent; its embedding means nothing")
    for name, reason in embeddings.failures:
        errors.print(f"[bold red]error:[/] {escape(name)}: {escape(reason)}")
    if embeddings.failures:
        raise typer.Exit(2)
