"""What kind of file or directory a path is, without importing what reads it."""

from pathlib import Path

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt")
"""Of PyTorch's files."""
WESPEAKER = ("config.yaml", "avg_model.pt")
"""A model directory of wespeaker: the training's configuration, the weights."""
SPEECHBRAIN = ("hyperparams.yaml", "embedding_model.ckpt")
"""A model directory of SpeechBrain: what the model consists of, the weights."""


def is_pytorch_file(path: Path) -> bool:
    """By its name or its first bytes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04" or path.suffix in SUFFIXES


def is_wespeaker(directory: str | Path) -> bool:
    """Whether a directory holds the two files of a wespeaker model."""
    return _holds(directory, WESPEAKER)


def is_speechbrain(directory: str | Path) -> bool:
    """Whether a directory holds the two files of a SpeechBrain speaker encoder."""
    return _holds(directory, SPEECHBRAIN)


def is_model_directory(path: str | Path) -> bool:
    """Whether it is a model directory of wespeaker or SpeechBrain."""
    return is_wespeaker(path) or is_speechbrain(path)


def _holds(directory: str | Path, names: tuple[str, ...]) -> bool:
    return all((Path(directory) / name).is_file() for name in names)
