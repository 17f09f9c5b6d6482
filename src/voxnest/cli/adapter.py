"""`voxnest adapter merge`: make a plain encoder of an encoder and its adapter."""

from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.command import STYLE, Command, Group
from voxnest.cli.options import ModelArgument

adapter = typer.Typer(cls=Group, help="Small files that change an encoder.", no_args_is_help=True, **STYLE)


@adapter.callback()
def _group() -> None:
    pass  # or typer would make `merge` the command itself


@adapter.command(cls=Command)
def merge(
    model: ModelArgument,
    file: Annotated[Path, typer.Argument(metavar="ADAPTER", help="Such as runs/NAME/best.adapter.safetensors.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the encoder (.safetensors).")],
) -> None:
    """Write the changes of an adapter into the weights of the encoder that it was trained for."""
    from voxnest.files import check_output, is_stream
    from voxnest.hub.checkpoint import load_encoder, save_encoder

    check_output(output, ".safetensors")
    encoder = load_encoder(model)
    name = encoder.load_adapter(file)
    encoder.use_adapter(name)
    metadata = {**encoder.adapters[name].metadata, "adapter": {"of": model, "file": str(file)}}
    save_encoder(encoder.merge_adapter(), output, metadata)
    if not is_stream(output):
        print(f"{output}: {model} with {file}")
        print(f"next:  voxnest evaluate {output} --trials trials.txt")
