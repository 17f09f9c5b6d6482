"""`voxnest models`: what can be built by name, and which weights are published."""

from typing import Annotated

import typer


def models(
    weights: Annotated[bool, typer.Option("--weights", help="List the published weights instead.")] = False,
) -> None:
    """List the models: size and cost as built here (for 2 s of speech), error rates as published."""
    if weights:
        _list_weights()
    else:
        _list_models()


def _list_models() -> None:
    from rich.console import Console
    from rich.table import Table

    from voxnest.models.counting import count_macs, count_parameters
    from voxnest.models.registry import CARDS, create_encoder

    lists = list(dict.fromkeys(name for card in CARDS.values() for name in card.published.eer))
    table = Table(caption="Counts are of the built model, GMACs for 2 s; EERs (%) are as published.")
    table.add_column("model", no_wrap=True)
    for column in ("M params", "GMACs", *lists):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for name, card in CARDS.items():
        encoder = create_encoder(name)
        eers = (f"{card.published.eer[item]:.2f}" if item in card.published.eer else "-" for item in lists)
        counts = f"{count_parameters(encoder) / 1e6:.2f}", f"{count_macs(encoder) / 1e9:.2f}"
        table.add_row(name, *counts, *eers, card.summary)
    Console().print(table)


def _list_weights() -> None:
    from rich.console import Console
    from rich.table import Table

    from voxnest.hub.download import cached_path
    from voxnest.hub.releases import RELEASES

    lists = {"O": "Vox1-O", "E": "Vox1-E", "H": "Vox1-H"}
    licenses = {f"{release.family.architecture}: {release.family.license}" for release in RELEASES}
    table = Table(
        caption="EERs (%) on Vox1-O, E and H are as published; of each model the first weights are the default. "
        "Licences: " + ", ".join(sorted(licenses))
    )
    for column in ("model", "trained", "dataset"):
        table.add_column(column, no_wrap=True)
    for column in lists:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("cached", no_wrap=True)
    for release in RELEASES:
        eers = (f"{release.eer[item]:.2f}" if item in release.eer else "-" for item in lists.values())
        cached = "yes" if cached_path(release).exists() else ""
        table.add_row(release.model, release.train_type, release.dataset, *eers, cached)
    Console().print(table)
