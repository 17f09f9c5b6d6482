"""`voxnest score`: scores of a trial list from embeddings that were written before."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def score(
    embeddings: Annotated[
        list[Path], typer.Argument(help="What voxnest embed wrote: files or folders of shards.", show_default=False)
    ],
    trials: Annotated[
        Path,
        typer.Option(
            help="Trial list: '1|0 enrollment test', 'enrollment test target|nontarget' or 'enrollment test'. May be a "
            "pipe."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write; - is the standard output.")
    ],
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder that names in the embeddings begin with, and those of the list not."),
    ] = None,
    dim: Annotated[
        int | None, typer.Option(metavar="N", help="Compare the first N numbers.", show_default="all there are")
    ] = None,
    order: Annotated[
        Literal["plain", "kaldi", "voxceleb"],
        typer.Option(
            help="plain: 'enrollment test score [label]'; kaldi: no label; voxceleb: 'label enrollment test score'."
        ),
    ] = "plain",
    plda: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Score by what voxnest plda wrote, rather than by the cosine.")
    ] = None,
) -> None:
    """Write the cosine score of every line of a trial list, a line each; lists of any length are streamed."""
    from rich.console import Console

    from voxnest.evaluation import score_list
    from voxnest.files import is_stream

    count = score_list(embeddings, trials, output, root=root, dim=dim, order=order, plda=plda)
    Console(stderr=is_stream(output), soft_wrap=True, highlight=False, markup=False).print(
        f"{output}: {count:,} scores"
    )
