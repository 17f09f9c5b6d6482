"""The commands of `voxnest`.

A command's module imports torch and its kin inside the function, so that `voxnest --help` answers at once.
"""

from importlib import import_module

import typer

from voxnest import __version__
from voxnest.cli.command import Command, Group
from voxnest.cli.matryoshka import matryoshka
from voxnest.cli.models import models

app = typer.Typer(
    name="voxnest",
    cls=Group,
    help="Speaker recognition with nested (Matryoshka) embeddings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help: [n, dim] is no markup, and it can be piped
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = {
    "demo": "Make voices, train, evaluate and verify: no data needed.",
    "prepare": "Describe a corpus: manifests, statistics, unreadable files.",
    "train": "Train a speaker encoder; run again, continue.",
    "evaluate": "Measure error rates of a model on a trial list.",
    "embed": "Write speaker embeddings of recordings to a file.",
    "score": "Score a trial list from embeddings in a file.",
    "verify": "Tell whether two recordings are of one speaker.",
    "download": "Fetch published weights ahead of use.",
    "config": "Print a training configuration to start from.",
}
for _name, _summary in COMMANDS.items():
    app.command(_name, cls=Command, short_help=_summary)(getattr(import_module(f"voxnest.cli.{_name}"), _name))
app.add_typer(models, name="models")
app.add_typer(matryoshka, name="matryoshka")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"voxnest {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", "-V", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass
