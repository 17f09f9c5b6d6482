"""`voxnest plda`: train the two-covariance model on a model's embeddings of a corpus."""

from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.options import Cache, Device, ModelArgument


def plda(
    model: ModelArgument,
    corpus: Annotated[
        Path, typer.Option(metavar="DIR", help="A manifest or a corpus: many speakers, several recordings of each.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it (.npz).")],
    dim: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Directions that are kept.", show_default="all that the corpus tells"),
    ] = None,
    whiten: Annotated[
        bool, typer.Option("--whiten", help="Whiten, rather than project by linear discriminant analysis.")
    ] = False,
    cache: Cache = True,
    device: Device = "auto",
) -> None:
    """Train PLDA, whose scores are log-likelihood ratios: for voxnest evaluate --plda and voxnest score --plda."""
    from rich.console import Console

    from voxnest.evaluation import save_plda, train_plda
    from voxnest.files import check_output, is_stream
    from voxnest.hub.checkpoint import load_encoder
    from voxnest.inference.cache import EmbeddingCache
    from voxnest.progress import progress_bar

    check_output(output, ".npz")
    encoder = load_encoder(model, device=device)
    kept = EmbeddingCache(encoder) if cache else None
    with progress_bar("embedding") as progress:
        found = train_plda(encoder, corpus, dim=dim, lda=not whiten, cache=kept, progress=progress)
    save_plda(found, encoder, output)
    Console(stderr=is_stream(output), soft_wrap=True, highlight=False, markup=False).print(
        f"{output}: PLDA of {len(found.between)} directions for {encoder.name}"
    )
