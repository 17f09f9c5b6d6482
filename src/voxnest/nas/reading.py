"""Genotypes as users name them: by their text, by a file, by the folder of a search."""

from pathlib import Path

from voxnest.errors import ConfigError
from voxnest.models.genotype import Genotype


def read_genotype(source: str | Path) -> Genotype:
    """A genotype of its text, of a file that holds one, or of the folder of a search.

    Raises:
        ConfigError: a text that is no genotype, or a file that cannot be read.
    """
    if str(source).lstrip().startswith("Genotype"):
        return Genotype.parse(str(source))
    path = Path(source)
    path = path / "genotype.txt" if path.is_dir() else path
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        found = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise ConfigError(path, found, "a genotype, or a file that holds one") from error
    except UnicodeDecodeError as error:
        raise ConfigError(path, "is no text", "a genotype") from error
    try:
        return Genotype.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.subject}", error.found, error.expected) from error
