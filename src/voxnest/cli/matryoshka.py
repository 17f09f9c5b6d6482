"""`voxnest matryoshka fit`: make a Matryoshka encoder of any encoder, without training."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.command import STYLE, Command, Group
from voxnest.cli.options import Device, ModelArgument

matryoshka = typer.Typer(
    cls=Group, help="Make embeddings whose prefixes are embeddings too.", no_args_is_help=True, **STYLE
)


class Method(StrEnum):
    """How directions are chosen."""

    auto = "auto"
    pca = "pca"
    discriminative = "discriminative"
    learned = "learned"


@matryoshka.callback()
def _group() -> None:
    pass  # or typer would make `fit` the command itself


@matryoshka.command(cls=Command)
def fit(
    model: ModelArgument,
    corpus: Annotated[
        Path, typer.Option(help="A manifest of voxnest prepare, or a folder of recordings; a few hundred are enough.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the encoder (.safetensors).")],
    dim: Annotated[
        list[int] | None,
        typer.Option(help="A size of embedding to have; may be repeated.", show_default="8, 16, 32, ... and the whole"),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="pca needs no speakers; learned, best below 64 numbers, wants many of them (and --utterances) and a "
            "minute; auto is discriminative where the corpus names several."
        ),
    ] = Method.auto,
    center: Annotated[
        bool,
        typer.Option(
            "--center",
            help="Take the corpus's mean embedding away from all; scores of full-size embeddings change then.",
        ),
    ] = False,
    utterances: Annotated[int, typer.Option(min=2, help="The most utterances to embed.")] = 1000,
    device: Device = "auto",
) -> None:
    """Turn an encoder's embedding space so that its first numbers are the most useful ones.

    Scores of full-size embeddings stay as they are, unless --center is given; shorter ones become good. It takes no
    training: some recordings are embedded, and a rotation that is found from them becomes part of the encoder's last
    layer.
    """
    from rich.console import Console
    from rich.markup import escape

    from voxnest.corpora.utterances import read_corpus
    from voxnest.files import check_output, is_stream
    from voxnest.hub.checkpoint import load_encoder, save_encoder
    from voxnest.matryoshka.fit import fit as run
    from voxnest.progress import progress_bar

    check_output(output, ".safetensors")
    encoder = load_encoder(model, device=device)
    found = read_corpus(corpus)
    warnings: list[tuple[str, str]] = []
    with progress_bar("embedding") as progress:
        turned = run(
            encoder,
            found,
            dims=dim,
            method=None if method is Method.auto else method.value,  # type: ignore[arg-type]
            center=center,
            count=utterances,
            progress=progress,
            warn=lambda subject, reason: warnings.append((subject, reason)),
        )
    speakers = len({utterance.speaker for utterance in found})
    rotation = {
        "of": model,
        "corpus": str(corpus),
        "speakers": speakers,
        "method": method.value,
        "centered": center,
    }
    save_encoder(turned, output, {"rotation": rotation})
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    for subject, reason in warnings:
        errors.print(f"[yellow]warning:[/] {escape(f'{subject}: {reason}')}")
    console = Console(stderr=is_stream(output), markup=False, highlight=False, soft_wrap=True)
    console.print(f"{output}: {model} with embeddings of {', '.join(map(str, turned.dims))} numbers")
    if not is_stream(output):
        console.print(f"next:  voxnest evaluate {output} --trials trials.txt")
