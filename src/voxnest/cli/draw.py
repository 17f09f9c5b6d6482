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
    from voxnest.files import check_output
    from voxnest.nas.drawing import draw_genotype
    from voxnest.nas.reading import read_genotype

    check_output(output, *PICTURES)
    draw_genotype(read_genotype(genotype), output, title or None)
