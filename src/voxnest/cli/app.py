"""The `voxnest` command: registers the commands and turns errors into one line and exit status 2.

A command's module imports torch and its kin inside the function, so that `voxnest --help` answers at once.
"""

import sys
from importlib import import_module

import typer
from rich.console import Console
from rich.markup import escape

from voxnest import __version__
from voxnest.cli.matryoshka import matryoshka
from voxnest.errors import VoxnestError

app = typer.Typer(
    name="voxnest",
    help="Speaker recognition with nested (Matryoshka) embeddings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS = ("demo", "prepare", "train", "evaluate", "embed", "verify", "models", "download")
for _name in COMMANDS:
    app.command(_name)(getattr(import_module(f"voxnest.cli.{_name}"), _name))
app.add_typer(matryoshka, name="matryoshka")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"voxnest {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line.

    A user's mistake, and what the system refuses (a full disk, a folder that may not be written), print one line and
    exit 2; Ctrl-C exits 130.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    try:
        app()
    except VoxnestError as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(2)
    except OSError as error:
        if error.strerror is None:
            raise  # not the system's answer but a mistake of ours
        console.print(f"[bold red]error:[/] {escape(f'{error.filename or app.info.name}: {error.strerror}')}")
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("interrupted")
        sys.exit(130)
