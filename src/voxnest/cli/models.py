"""`voxnest models`: what can be built by name, and which weights are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from voxnest.cli.command import STYLE, Command, Group
from voxnest.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

models = typer.Typer(cls=Group, invoke_without_command=True, **STYLE)


@models.callback()
def _list(context: typer.Context, json: Json = None) -> None:
    """List the models. Size and cost (for 2 s of speech) are as built here, error rates as published."""
    from voxnest.errors import ConfigError

    if context.invoked_subcommand is None:
        _give(_models, json)
    elif json is not None:
        command = f"voxnest models {context.invoked_subcommand}"
        raise ConfigError(command, "--json before the command", f"{command} --json")


@models.command(cls=Command)
def weights(json: Json = None) -> None:
    """List the published weights: names that stand for a model."""
    _give(_weights, json)


@models.command(cls=Command)
def check(json: Json = None) -> None:
    """Compare sizes and costs with the published ones.

    The exit status is 1 if a count differs from the published one by more than 3% and nobody has said why.
    """
    if not all(row["explained"] for row in _give(_comparisons, json)):
        raise typer.Exit(1)


@models.command(cls=Command)
def plot(output: Annotated[Path, typer.Argument(metavar="FILE", help="A PNG, SVG or PDF.")]) -> None:
    """Draw published error rates against costs."""
    from voxnest.drawing import PICTURES
    from voxnest.files import STANDARD_OUTPUT, check_output
    from voxnest.zoo.picture import plot_models

    check_output(output, *PICTURES)
    drawn = plot_models(output)
    if str(output) != STANDARD_OUTPUT:
        print(f"{len(drawn)} models in {output}")


Listing = tuple[list[dict[str, Any]], "Table", list[str]]
"""What --json gives, the same for people, and lines below it."""


def _give(listing: Callable[[], Listing], json: Path | None) -> list[dict[str, Any]]:
    """Print a listing, or write it where `--json` says; its rows."""
    from rich.console import Console

    from voxnest.cli.results import give_json
    from voxnest.files import check_output

    if json is not None:
        check_output(json, ".json")
    rows, table, notes = listing()
    if not give_json(rows, json):
        Console(highlight=False).print(table)
        for note in notes:
            print(note)
    return rows


def _models() -> Listing:
    from voxnest.zoo.card import VOX1
    from voxnest.zoo.counting import kept_counts
    from voxnest.zoo.registry import CARDS

    table = _table("model", "M params", "GMACs", "O", "E", "H", "what it is")
    rows = []
    for name, card in CARDS.items():
        parameters, gmacs = kept_counts(name)
        published = card.published
        rates = [f"{published.eer[item]:.2f}" if item in published.eer else "-" for item in VOX1]
        table.add_row(name, f"{parameters:.2f}", f"{gmacs:.2f}", *rates, card.summary)
        rows.append(
            {
                "name": name,
                "family": card.family,
                "summary": card.summary,
                "parameters": round(parameters * 1e6),
                "macs_2s": round(gmacs * 1e9),
                "eer": published.eer,
                "eer_as_norm": published.eer_as_norm,
                "source": published.source,
            }
        )
    notes = [
        "O, E, H: EER in % on VoxCeleb1-O, E and H as published, without score",
        "normalisation; with it: docs/zoo.md, voxnest models --json.",
        "Published weights: voxnest models weights.",
    ]
    return rows, table, notes


def _comparisons() -> Listing:
    import textwrap

    from voxnest.zoo.counting import TOLERANCE, compare_with_published
    from voxnest.zoo.registry import list_models

    table = _table("model", "M params", "published", "", "GMACs", "published", "")
    rows, notes = [], [f"Why, where it is more than {TOLERANCE:.0%}:"]
    for found in filter(None, map(compare_with_published, list_models())):
        parameters, gmacs = found.differences
        table.add_row(
            found.name,
            *(f"{found.parameters:.2f}", f"{found.published_parameters:g}", f"{parameters:+.1%}"),
            f"{found.gmacs:.2f}",
            *(("-", "") if gmacs is None else (f"{found.published_gmacs:g}", f"{gmacs:+.1%}")),
        )
        rows.append(
            {
                "name": found.name,
                "parameters": round(found.parameters * 1e6),
                "published_parameters": round(found.published_parameters * 1e6),
                "macs_2s": round(found.gmacs * 1e9),
                "published_macs_2s": None if found.published_gmacs is None else round(found.published_gmacs * 1e9),
                "differs": found.differs,
                "explained": found.explained,
                "note": found.note,
            }
        )
        if found.differs:
            text = f"{found.name}: {found.note or 'not explained'}"
            notes.append(textwrap.fill(text, 79, initial_indent="  ", subsequent_indent="    "))
    return rows, table, notes


def _weights() -> Listing:
    from voxnest.hub.download import cached_path
    from voxnest.hub.releases import RELEASES

    lists = {"O": "Vox1-O", "E": "Vox1-E", "H": "Vox1-H", "SITW": "SITW", "VOi": "VOiCES", "CNC": "CN-Celeb"}
    table = _table("model", "trained", "dataset", *lists, "here", text=("trained", "dataset"), gap=1)
    rows = []
    for release in RELEASES:
        path = cached_path(release)
        rates = (f"{release.eer[item]:.2f}" if item in release.eer else "-" for item in lists.values())
        table.add_row(release.model, release.train_type, release.dataset, *rates, "yes" if path.exists() else "")
        rows.append(
            {
                "model": release.model,
                "train_type": release.train_type,
                "dataset": release.dataset,
                "address": release.address,
                "license": release.family.license,
                "eer": release.eer,
                "cached": str(path) if path.exists() else None,
            }
        )
    licenses = sorted({f"{release.family.architecture}: {release.family.license}" for release in RELEASES})
    notes = [
        "EER in % as published, on VoxCeleb1-O, E, H, SITW, VOiCES (VOi), CN-Celeb (CNC).",
        "The first weights of a model are its default. here: in the cache already.",
        f"Licences: {', '.join(licenses)}.",
    ]
    return rows, table, notes


def _table(*columns: str, text: tuple[str, ...] = (), gap: int = 2) -> Table:
    """A table that fits 80 columns: names and `text` left, numbers right, only the last column may wrap."""
    from rich.table import Table

    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False)
    for index, column in enumerate(columns):
        words = index == 0 or column in (*text, "what it is")
        table.add_column(column, justify="left" if words else "right", no_wrap=column != "what it is")
    return table
