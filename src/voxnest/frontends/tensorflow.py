"""Front ends that compute as TensorFlow's signal operations do."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.frontends.base import Frontend, analysis_window, triangles_in_mel


class TFSpectrogram(Frontend):
    """The spectrogram of ReDimNet models that are made for TensorFlow: frames without centring, no Nyquist bin.

    Args:
        bins: n_fft / 2 divided by the frequency pooling.
        pool: mean over neighbouring (frequencies, frames) at the end, or None.
        window: "hamming", "hann", "sqrt_hann" or None; symmetric.
        eps: bounds powers (to eps and 1 / eps), and is `floor` of `Frontend`.
        options: see `Frontend`.

    Gives `[batch, bins, 1 + (samples + 2 * (hop_length // 2) - window_length) // hop_length]`.

    Source: `TFSpectrogram` of the official ReDimNet implementation.
    """

    def __init__(
        self,
        bins: int = 128,
        *,
        pool: Sequence[int] | None = (2, 1),
        window: str | None = "hamming",
        eps: float = 1e-8,
        deviation_floor: float = 1e-10,
        **options: Any,
    ) -> None:
        super().__init__(bins, floor=eps, deviation_floor=deviation_floor, **options)
        self.eps, self.pool = eps, None if pool is None else tuple(pool)
        if self.pool and self.normalization in ("bn", "corpus"):
            raise ConfigError("normalization", repr(self.normalization), "'mn', 'mvn' or null where bins are pooled")
        # Products with cosines and sines in single precision, as the original has them: in quiet bins an FFT differs
        # from those by more than 1e-4 after the logarithm.
        time = torch.arange(self.window_length, dtype=torch.float64)
        angles = 2 * math.pi / self.n_fft * torch.outer(time, torch.arange(self.n_fft // 2, dtype=torch.float64))
        shape = analysis_window(window, self.window_length).float()[:, None]
        waves = torch.cat([angles.cos().float() * shape, angles.sin().float() * shape], dim=1)
        self.waves = waves.T[:, None].contiguous()

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs, counting half a hop of zeros at each end."""
        padding = 2 * (self.hop_length // 2)
        frames = self.min_frames * (1 if self.pool is None else self.pool[1])
        return max(1, max(2, self.window_length + (frames - 1) * self.hop_length - padding) - self.pad_right)

    def finish(self, raw: Tensor) -> Tensor:
        """What `raw_features` gave to `features [batch, bins, frames]`: as others do, then pooled."""
        features = super().finish(raw)
        return features if self.pool is None else F.avg_pool2d(features, self.pool)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, n_fft // 2, frames]`."""
        power = self._power_products(waveform, padding=self.hop_length // 2)
        return power.clamp(self.eps, 1 / self.eps)


class TFMel(TFSpectrogram):
    """Mel filters over `TFSpectrogram`.

    Args:
        bins: number of mel filters.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz.
        eps: see `TFSpectrogram`.
        options: see `Frontend`.

    Source: `TFMelBanks` of the official ReDimNet implementation.
    """

    def __init__(
        self, bins: int = 72, *, f_min: float = 20.0, f_max: float = 7600.0, eps: float = 1e-8, **options: Any
    ) -> None:
        super().__init__(bins, pool=None, eps=eps, deviation_floor=eps, **options)
        # The bins spread to the Nyquist frequency although the Nyquist bin is left out, and the first is never used.
        frequencies = torch.linspace(0, self.sample_rate // 2, self.n_fft // 2, dtype=torch.float64)
        filters = triangles_in_mel(bins, frequencies, f_min, f_max)
        filters[0] = 0.0
        self.register_buffer("filters", filters, persistent=False)
        self.filters: Tensor

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        return (self.filters.T @ super().spectrogram(waveform)).clamp(self.eps, 1 / self.eps)
