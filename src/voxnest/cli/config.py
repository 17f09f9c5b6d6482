"""`voxnest config`: configurations to start from."""

from pathlib import Path
from typing import Annotated

import typer


def config(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Such as example, which shows every option.")] = "",
) -> None:
    """Print a training configuration to start from.

    Without NAME, the names there are. Try `voxnest config example > mine.yaml`, then `voxnest train mine.yaml`.
    """
    if not name:
        typer.echo("\n".join(known_configs()))
        return
    typer.echo(find_config(name).read_text(encoding="utf-8"), nl=False)


def known_configs() -> dict[str, Path]:
    """The configurations that come with voxnest, by name."""
    import voxnest

    package = Path(voxnest.__file__).parent
    folder = package / "configs"  # in a wheel
    if not folder.is_dir():
        folder = package.parents[1] / "configs"  # in a checkout
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}


def find_config(name: str) -> Path:
    """The configuration of a name.

    Raises:
        ConfigError: there is none.
    """
    from voxnest.errors import ConfigError, one_of

    known = known_configs()
    found = known.get(name.removesuffix(".yaml").removeprefix("configs/"))
    if found is None:
        raise ConfigError("configuration", f"{name!r} is unknown", one_of(name, known))
    return found
