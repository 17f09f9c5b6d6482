"""SpeechBrain's log-mel filter bank."""

import math
from typing import Any

import torch
from torch import Tensor

from voxnest.frontends.base import Frontend


class SpeechBrainFbank(Frontend):
    """The filter bank of SpeechBrain's recipes: centred frames, mel in decibels, 80 dB of range, mean subtraction.

    Args:
        bins: number of mel filters.
        n_fft: FFT size in samples.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz; None for half the sample rate.
        top_db: powers are at least this far below the loudest of the utterance, in dB.
        floor: smallest power.
        options: see `Frontend`.

    Gives `[batch, bins, 1 + samples // hop_length]`.

    Source: `speechbrain.lobes.features.Fbank` and `InputNormalization` (of the sentence, without deviation).
    """

    def __init__(
        self,
        bins: int = 80,
        *,
        n_fft: int = 400,
        f_min: float = 0.0,
        f_max: float | None = None,
        top_db: float = 80.0,
        pre_emphasis: float | None = None,
        floor: float = 1e-10,
        **options: Any,
    ) -> None:
        super().__init__(bins, n_fft=n_fft, pre_emphasis=pre_emphasis, floor=floor, **options)
        self.top_db = top_db
        filters = _symmetric_triangles(
            bins, n_fft, self.sample_rate, f_min, self.sample_rate / 2 if f_max is None else f_max
        )
        self.register_buffer("window", torch.hamming_window(self.window_length), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.window: Tensor
        self.filters: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs; silence is put at both ends."""
        return max(1, (self.min_frames - 1) * self.hop_length - self.pad_right)

    def spectrum(self, frames: Tensor) -> Tensor:
        """See `Frontend`."""
        return torch.fft.rfft(frames * self.window, self.n_fft)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        return self.filters.T @ self._centred_powers(waveform, self.window, "constant")

    def _compress(self, powers: Tensor) -> Tensor:
        decibels = 10.0 * powers.clamp(min=self.floor).log10()
        return torch.maximum(decibels, decibels.amax(dim=(1, 2), keepdim=True) - self.top_db)


def _symmetric_triangles(bins: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangles over frequency that fall as fast as they rise, unlike others': `[n_fft // 2 + 1, bins]`."""
    low, high = (2595.0 * math.log10(1.0 + hertz / 700.0) for hertz in (f_min, f_max))
    mels = torch.linspace(low, high, bins + 2, dtype=torch.float64)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    frequencies = torch.linspace(0, sample_rate / 2, n_fft // 2 + 1, dtype=torch.float64)[:, None]
    distance = (frequencies - corners[1:-1]).abs() / corners.diff()[:-1]
    return (1.0 - distance).clamp(min=0.0).float()
