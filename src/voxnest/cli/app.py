"""The commands of `voxnest`.

The module of a command is imported when it is called, and imports torch and its kin inside the function, so that
`voxnest --help` answers at once.
"""

from importlib import import_module
from typing import Any

import typer
from typer.main import get_command

from voxnest import __version__
from voxnest.cli.command import STYLE, Command, Group

COMMANDS = {
    "demo": "Make voices, train, evaluate and verify: no data needed.",
    "quickstart": "Download VoxCeleb and train on it; run again, continue.",
    "prepare": "Describe a corpus: manifests, statistics, unreadable files.",
    "train": "Train a speaker encoder; run again, continue.",
    "adapter": "Merge an adapter into its encoder.",
    "search": "Search an architecture (AutoSpeech); run again, continue.",
    "draw": "Draw the cells of a searched architecture.",
    "evaluate": "Measure error rates of a model on a trial list.",
    "bench": "Tell what each size of embedding costs and gives.",
    "calibrate": "Make the scores of a model evidence.",
    "plda": "Train PLDA on the embeddings of a corpus.",
    "embed": "Write speaker embeddings of any number of recordings.",
    "export": "Write a model as one graph, for other runtimes.",
    "score": "Score a trial list from embeddings in a file.",
    "verify": "Tell whether two recordings are of one speaker.",
    "download": "Fetch published weights ahead of use.",
    "config": "Print a training configuration to start from.",
    "models": "List the models, published weights, counts; draw them.",
    "matryoshka": "Make embeddings whose prefixes are embeddings too.",
}


class _Commands(Group):
    """The commands of `COMMANDS`, each made from its module when it is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click."""
        if args and args[0] in COMMANDS:
            self.commands[args[0]] = _command(args[0])
        return super().resolve_command(ctx, args)


def _command(name: str) -> Any:
    made = getattr(import_module(f"voxnest.cli.{name}"), name)
    if isinstance(made, typer.Typer):
        return get_command(made)
    alone = typer.Typer(**STYLE)
    alone.command(name, cls=Command)(made)
    return get_command(alone)


def _placeholder() -> None:
    pass


app = typer.Typer(
    name="voxnest",
    cls=_Commands,
    help="Speaker recognition with nested (Matryoshka) embeddings.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    **STYLE,
)
for _name, _summary in COMMANDS.items():
    app.command(_name, short_help=_summary)(_placeholder)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"voxnest {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", "-V", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass
