"""`voxnest draw`: a picture of a genotype's cells."""

from pathlib import Path
from typing import Annotated

import typer


def draw(
    genotype: Annotated[
        str, typer.Argument(metavar="GENOTYPE", help="A genotype, a file that holds one, or the folder of a search.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="A .svg, .png or .pdf.")],
    title: Annotated[str, typer.Option(metavar="TEXT", help="Stands above the picture.")] = "",
) -> None:
    """Draw the normal and the reduction cell of a genotype side by side."""
    from voxnest.drawing import PICTURES
    from voxnest.errors import ConfigError
    from voxnest.files import check_output
    from voxnest.models.genotype import Genotype
    from voxnest.nas.drawing import draw_genotype

    check_output(output, *PICTURES)
    if genotype.lstrip().startswith("Genotype"):
        drawn = Genotype.parse(genotype)
    else:
        path = Path(genotype)
        path = path / "genotype.txt" if path.is_dir() else path
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            found = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise ConfigError(path, found, "a genotype, or a file that holds one") from error
        except UnicodeDecodeError as error:
            raise ConfigError(path, "is no text", "a genotype") from error
        try:
            drawn = Genotype.parse(text)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error.subject}", error.found, error.expected) from error
    draw_genotype(drawn, output, title or None)
