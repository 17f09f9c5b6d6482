"""`voxnest download`: fetch published weights ahead of use."""

from typing import Annotated

import typer


def download(
    name: Annotated[str, typer.Argument(help="Of a model, such as redimnet-b2 (voxnest models weights).")],
    train_type: Annotated[
        str | None, typer.Option(help="ptn, ft_lm, ft_mix, ... [default: the model's recommended one]")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="vox2, vb2, ... [default: the model's recommended one]")] = None,
    sha256: Annotated[str | None, typer.Option(help="Refuse a file with another digest.")] = None,
) -> None:
    """Download published weights into the cache, and print where they are. With them there, nothing is requested."""
    from voxnest.hub.download import fetch
    from voxnest.hub.releases import find_release

    print(fetch(find_release(name, train_type=train_type, dataset=dataset), sha256=sha256))
