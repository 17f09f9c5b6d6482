"""How commands read their words and show their usage."""

from collections.abc import Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from voxnest.errors import ConfigError, one_of
from voxnest.files import STANDARD_OUTPUT, is_stream

STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # plain help: [n, dim] is no markup, and it can be piped
}
"""What all our typers have."""


class Command(TyperCommand):
    """A command whose option `--json` may stand without a file, and whose usage line has no braces."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See click; a bare `--json` means standard output."""
        return super().parse_args(ctx, with_json_file(args) if _takes_json(self) else args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """See click; newer typers put names of arguments in braces."""
        return [piece.replace("{", "").replace("}", "") for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A group of commands, in the order in which they were added."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As of a `Command`.

        Raises:
            ConfigError: a command that is written as an option.
        """
        if args and args[0].startswith("--") and (name := args[0][2:]) in self.commands:
            raise ConfigError(ctx.command_path, f"no such option {args[0]}", f"{ctx.command_path} {name}")
        return super().parse_args(ctx, with_json_file(args) if _takes_json(self) else args)

    def list_commands(self, ctx: Any) -> list[str]:
        """See click."""
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See click.

        Raises:
            ConfigError: an unknown command; it names the nearest.
        """
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise ConfigError(ctx.command_path, f"no such command {args[0]!r}", one_of(args[0], self.commands))
        return super().resolve_command(ctx, args)


def _takes_json(command: Any) -> bool:
    return any(parameter.name == "json" for parameter in command.params)


def with_json_file(words: Sequence[str]) -> list[str]:
    """Words of a command line in which every `--json` is followed by a file.

    The next word is the file if it can be one (`x.json`, "-", a FIFO, /dev/...); else it is standard output that is
    meant, so that in `--json a.wav b.wav` no recording is taken for the file to write.
    """
    result: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return [*result, *words[index:]]
        result.append(word)
        following = words[index + 1] if index + 1 < len(words) else ""
        if word == "--json" and not (following.lower().endswith(".json") or (following and is_stream(following))):
            result.append(STANDARD_OUTPUT)
    return result
