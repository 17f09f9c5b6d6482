"""Magnitude spectrograms, without mel filters or logarithm."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest.frontends.base import Frontend, analysis_window, raised


class Spectrogram(Frontend):
    """Magnitudes of the short-time Fourier transform, each bin brought to zero mean and unit deviation over time.

    Args:
        bins: how many of the transform's bins, from 0 Hz up. n_fft // 2 + 1 is the whole spectrum; more go on with its
            mirror image, up to n_fft (VGGVox has all of them).
        window: see `analysis_window`.
        periodic: a periodic window rather than a symmetric one.
        center: put half a window of silence at both ends, so that frame t is centred on sample t * hop_length.
        normalization: see `Frontend`.
        options: see `Frontend`.

    Gives `[batch, bins, 1 + (samples - window_length) // hop_length]`, centred `[batch, bins, 1 + samples //
    hop_length]`.

    Source: the defaults are those of the VoxCeleb paper (Nagrani et al., arXiv 1706.08612) and of its implementation
    (a-nagrani/VGGVox), less the dither and the filter at 25 Hz that the normalisation takes back.
    """

    def __init__(
        self,
        bins: int = 512,
        *,
        window: str | None = "hamming",
        periodic: bool = False,
        center: bool = False,
        normalization: str | None = "mvn",
        **options: Any,
    ) -> None:
        super().__init__(bins, normalization=normalization, **options)
        self.padding = self.window_length // 2 if center else 0
        shape = analysis_window(window, self.window_length, periodic=periodic).float()
        self.register_buffer("window", shape, persistent=False)
        self.window: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs (and pre-emphasis needs two samples)."""
        needed = self.window_length + (self.min_frames - 1) * self.hop_length - 2 * self.padding
        return max(1, max(2, needed) - self.pad_right)

    def spectrum(self, frames: Tensor) -> Tensor:
        """See `Frontend`."""
        return torch.fft.rfft(frames * self.window, self.n_fft)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        power = self._framed_powers(F.pad(waveform, (self.padding, self.padding)))
        mirrored = self.bins - power.shape[1]
        if mirrored > 0:
            image = power[:, -1 - mirrored : -1].flip(1)
            power = torch.cat([power, image], dim=1)
        return power[:, : self.bins]

    def _compress(self, powers: Tensor) -> Tensor:
        return powers.sqrt()


class AutoSpeechSpectrogram(Spectrogram):
    """The magnitudes of AutoSpeech: centred periodic Hann windows, quiet waveforms made louder, normalised by a corpus.

    Args:
        bins: how many of the transform's bins, from 0 Hz up.
        raise_to: bring waveforms that are quieter to this level first, in dB relative to full scale, over all of their
            samples; louder ones stay as they are. None for no change.
        options: see `Spectrogram` and `Frontend`.

    Gives `[batch, bins, 1 + samples // hop_length]`.

    Source: the official AutoSpeech (Ding et al., arXiv 2005.03215), `data_objects/audio.py`, which measures the level
    of a whole recording.
    """

    def __init__(
        self,
        bins: int = 257,
        *,
        window: str | None = "hann",
        periodic: bool = True,
        center: bool = True,
        pre_emphasis: float | None = None,
        normalization: str | None = "corpus",
        raise_to: float | None = -30.0,
        **options: Any,
    ) -> None:
        super().__init__(
            bins,
            window=window,
            periodic=periodic,
            center=center,
            pre_emphasis=pre_emphasis,
            normalization=normalization,
            **options,
        )
        self.raise_to = raise_to

    def _scale(self, waveform: Tensor) -> Tensor:
        return super()._scale(waveform if self.raise_to is None else raised(waveform, self.raise_to))
