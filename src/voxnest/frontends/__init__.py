"""Front ends: waveform to features.

Every front end maps `waveform [batch, samples]` to `features [batch, bins, frames]` in float32, without gradient,
and carries `bins`, `hop_length`, `sample_rate` and `min_samples` (the shortest waveform it can take).
"""

from collections.abc import Mapping
from typing import Any

import torch

from voxnest.errors import ConfigError, one_of
from voxnest.frontends.base import Frontend, SpecAugment, mel_filters
from voxnest.frontends.kaldi import KaldiFbank
from voxnest.frontends.mel import ReDimNetMel
from voxnest.frontends.options import check_options
from voxnest.frontends.spectrogram import AutoSpeechSpectrogram, Spectrogram
from voxnest.frontends.speechbrain import SpeechBrainFbank
from voxnest.frontends.tensorflow import TFMel, TFSpectrogram

__all__ = [
    "FRONTENDS",
    "AutoSpeechSpectrogram",
    "Frontend",
    "KaldiFbank",
    "ReDimNetMel",
    "SpecAugment",
    "Spectrogram",
    "SpeechBrainFbank",
    "TFMel",
    "TFSpectrogram",
    "create_frontend",
    "mel_filters",
]

FRONTENDS: dict[str, type[Frontend]] = {
    "mel": ReDimNetMel,
    "tf_mel": TFMel,
    "tf_spectrogram": TFSpectrogram,
    "fbank": KaldiFbank,
    "speechbrain_fbank": SpeechBrainFbank,
    "spectrogram": Spectrogram,
    "autospeech_spectrogram": AutoSpeechSpectrogram,
}
"""Front ends by name."""


def create_frontend(name: str, bins: int, *, spec_augment: Mapping[str, Any] | None = None, **options: Any) -> Frontend:
    """The front end `name`; `spec_augment` are arguments of `SpecAugment`, `options` those of the front end.

    Raises:
        ConfigError: for an unknown name or option, or a value that cannot be.
    """
    if name not in FRONTENDS:
        raise ConfigError("frontend", repr(name), one_of(name, FRONTENDS))
    kind = FRONTENDS[name]
    checked = check_options(f"frontend {name}", kind, {"bins": bins, **options})
    with torch.device("cpu"):  # its constants are there even in a network on the meta device, which is only counted
        if spec_augment is not None:
            checked["spec_augment"] = SpecAugment(**check_options("spec_augment", SpecAugment, spec_augment))
        return kind(**checked)
