"""`voxnest models`: what can be built by name, and which weights are published."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE


def models(
    weights: Annotated[bool, typer.Option("--weights", help="List the published weights instead.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Compare sizes and costs with the published ones.")] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="PNG", help="Draw error rates against costs instead.")
    ] = None,
) -> None:
    """List the models: size and cost as built here (for 2 s of speech), error rates as published.

    With --check the exit status is 1 if a count differs from the published one by more than 3% and nobody has said why.
    """
    if weights:
        _list_weights()
    elif check:
        _check()
    elif plot is not None:
        _plot(plot)
    else:
        _list_models()


def _list_models() -> None:
    from rich.console import Console
    from rich.table import Table

    from voxnest.models.card import VOX1
    from voxnest.models.counting import count_model
    from voxnest.models.registry import CARDS

    table = Table(
        caption="Counts are of the built model, GMACs for 2 s. EERs (%) on VoxCeleb1-O, E and H are as published, with "
        "AS-norm in brackets. Other lists: voxnest models --weights.",
        box=SIMPLE,
        pad_edge=False,
    )
    table.add_column("model", no_wrap=True)
    for column in ("M params", "GMACs", "O", "E", "H"):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for name, card in CARDS.items():
        eers = (card.published.rate(item) for item in VOX1)
        counts = (f"{count:.2f}" for count in count_model(name))
        table.add_row(name, *counts, *eers, card.summary)
    Console().print(table)


def _check() -> None:
    from rich.console import Console
    from rich.table import Table

    from voxnest.models.counting import TOLERANCE, compare_with_published
    from voxnest.models.registry import list_models

    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for column in ("M params", "published", "", "GMACs", "published", ""):
        table.add_column(column, justify="right", no_wrap=True)
    comparisons = [found for name in list_models() if (found := compare_with_published(name))]
    for found in comparisons:
        parameters, gmacs = (f"{difference:+.1%}" for difference in found.differences)
        published = f"{found.published_parameters:g}", f"{found.published_gmacs:g}"
        built = f"{found.parameters:.2f}", f"{found.gmacs:.2f}"
        table.add_row(found.name, built[0], published[0], parameters, built[1], published[1], gmacs)
    console = Console(markup=False, highlight=False)
    console.print(table)
    console.print(f"Why, where it is more than {TOLERANCE:.0%}:")
    for found in comparisons:
        if found.differs:
            console.print(f"  {found.name}: {found.note or 'not explained'}")
    if not all(found.explained for found in comparisons):
        raise typer.Exit(1)


def _plot(path: Path) -> None:
    from rich.console import Console

    from voxnest.files import check_output
    from voxnest.models.plots import plot_models

    check_output(path, ".png")
    drawn = plot_models(path)
    Console().print(f"{len(drawn)} models in {path}", highlight=False, soft_wrap=True)


def _list_weights() -> None:
    from rich.console import Console
    from rich.table import Table

    from voxnest.hub.download import cached_path
    from voxnest.hub.releases import RELEASES

    lists = {item: f"Vox1-{item}" for item in "OEH"} | {"SITW": "SITW", "VOiCES": "VOiCES", "CN-C": "CN-Celeb"}
    licenses = {f"{release.family.architecture}: {release.family.license}" for release in RELEASES}
    table = Table(
        caption="EERs (%) on VoxCeleb1-O, E and H, SITW, VOiCES and CN-Celeb are as published; of each model the first "
        "weights are the default. Licences: " + ", ".join(sorted(licenses)),
        box=None,
        padding=(0, 1, 0, 0),
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
