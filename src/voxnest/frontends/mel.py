"""Log-mel features."""

from typing import Any

import torch
from torch import Tensor

from voxnest.frontends.base import Frontend, mel_filters


class ReDimNetMel(Frontend):
    """The log-mel front end of ReDimNet: normalise, pre-emphasis, mel, log, mean subtraction.

    Args:
        bins: number of mel filters.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz.
        options: see `Frontend`.

    Gives `[batch, bins, 1 + samples // hop_length]`.

    Source: `MelBanks` of the official ReDimNet implementation (IDRnD), arXiv 2407.18223. With 80 bins it is also
    `Mel_Spectrogram` of the official NeXt-TDNN.
    """

    def __init__(self, bins: int = 72, *, f_min: float = 20.0, f_max: float = 7600.0, **options: Any) -> None:
        super().__init__(bins, **options)
        # Both are functions of the arguments, so a weights file need not hold them.
        self.register_buffer("window", torch.hamming_window(self.window_length), persistent=False)
        filters = mel_filters(bins, self.n_fft, self.sample_rate, f_min, f_max)
        self.register_buffer("filters", filters, persistent=False)
        self.window: Tensor
        self.filters: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: the reflection at the edges needs half a window, the model its frames."""
        return max(1, max(self.n_fft // 2 + 1, (self.min_frames - 1) * self.hop_length) - self.pad_right)

    def spectrum(self, frames: Tensor) -> Tensor:
        """See `Frontend`."""
        return torch.fft.rfft(frames * self.window, self.n_fft)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        return self.filters.T @ self._centred_powers(waveform, self.window, "reflect")
