"""Read a model directory of SpeechBrain: `embedding_model.ckpt`, the weights, and `hyperparams.yaml`.

Source: the layout that `EncoderClassifier.from_hparams` of SpeechBrain fetches, such as spkrec-ecapa-voxceleb.
"""

from pathlib import Path

from torch import Tensor

from voxnest.errors import CheckpointError
from voxnest.foreign.ecapa import from_speechbrain, read_hyperparameters
from voxnest.foreign.pickles import read_pickle
from voxnest.models.encoder import SpeakerEncoder

SETTINGS, WEIGHTS = "hyperparams.yaml", "embedding_model.ckpt"


def is_speechbrain(directory: str | Path) -> bool:
    """Whether a directory holds the two files of a SpeechBrain speaker encoder."""
    return all((Path(directory) / name).is_file() for name in (SETTINGS, WEIGHTS))


def read_speechbrain(directory: str | Path) -> SpeakerEncoder:
    """The ECAPA-TDNN of a SpeechBrain directory, in eval mode, with its own filter bank.

    Raises:
        CheckpointError: if a file is damaged, unsafe to read, or of another model.
        ConfigError: for a setting that is not supported.
    """
    directory = Path(directory)
    try:
        text = (directory / SETTINGS).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(directory / SETTINGS, "not a text file", "SpeechBrain's hyperparameters") from error
    expected = "the weights of SpeechBrain's ECAPA_TDNN"
    weights = read_pickle(directory / WEIGHTS, expected)
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(directory / WEIGHTS, "no state dict", expected)
    return from_speechbrain(read_hyperparameters(text), weights)
