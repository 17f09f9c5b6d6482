"""`voxnest config`: configurations to start from."""

from typing import Annotated

import typer


def config(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Such as example, which shows every option.")] = "",
) -> None:
    """Print a training configuration to start from.

    Without NAME, the names there are. Try `voxnest config example > mine.yaml`, then `voxnest train mine.yaml`.
    """
    from pathlib import Path

    import voxnest
    from voxnest.errors import ConfigError, one_of

    package = Path(voxnest.__file__).parent
    folder = package / "configs"  # in a wheel
    if not folder.is_dir():
        folder = package.parents[1] / "configs"  # in a checkout
    known = {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.yaml"))}
    if not name:
        typer.echo("\n".join(known))
        return
    found = known.get(name.removesuffix(".yaml").removeprefix("configs/"))
    if found is None:
        raise ConfigError("configuration", f"{name!r} is unknown", one_of(name, known))
    typer.echo(found.read_text(encoding="utf-8"), nl=False)
