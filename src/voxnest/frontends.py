"""Front ends: waveform to features.

Every front end maps `waveform [batch, samples]` to `features [batch, bins, frames]` in float32, without gradient,
and carries `bins`, `hop_length`, `sample_rate` and `min_samples` (the shortest waveform it can take).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError


def mel_filters(bins: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters on the HTK mel scale, not normalised: `[n_fft // 2 + 1, bins]`.

    The same numbers as `torchaudio.functional.melscale_fbanks(norm=None, mel_scale="htk")`.
    """

    def to_mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    mels = torch.linspace(to_mel(f_min), to_mel(f_max), bins + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    frequencies = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)
    slopes = corners[None, :] - frequencies[:, None]
    widths = corners.diff()
    rising = -slopes[:, :-2] / widths[:-1]
    falling = slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


class SpecAugment(nn.Module):
    """Hide one random band of frequencies and one of time in each item of a batch (in training only).

    Hidden cells become 0, which is the mean where features are mean-normalised.

    Args:
        frequency_width: smallest and (exclusive) largest number of bins hidden.
        time_width: smallest and (exclusive) largest number of frames hidden.
        first_bin: bins below this one are never hidden.
        times: how many bands of each kind.

    Source: Park et al., SpecAugment (arXiv 1904.08779), with the choices of the ReDimNet implementation.
    """

    def __init__(
        self,
        frequency_width: tuple[int, int] = (0, 8),
        time_width: tuple[int, int] = (0, 10),
        first_bin: int = 0,
        times: int = 1,
    ) -> None:
        super().__init__()
        self.frequency_width, self.time_width = frequency_width, time_width
        self.first_bin, self.times = first_bin, times

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to the same shape."""
        if not self.training:
            return features
        for _ in range(self.times):
            features = features.masked_fill(self._band(features, 2, self.time_width), 0.0)
            features = features.masked_fill(self._band(features, 1, self.frequency_width), 0.0)
        return features

    def _band(self, features: Tensor, axis: int, width: tuple[int, int]) -> Tensor:
        batch, size, device = features.shape[0], features.shape[axis], features.device
        length = torch.randint(width[0], width[1], (batch, 1, 1), device=device)
        last = max(self.first_bin + 1, size - int(width[1]) + 1)
        start = torch.randint(self.first_bin, last, (batch, 1, 1), device=device)
        position = torch.arange(size, device=device).view((1, 1, -1) if axis == 2 else (1, -1, 1))
        return (start <= position) & (position < start + length)


class ReDimNetMel(nn.Module):
    """The log-mel front end of ReDimNet: normalise, pre-emphasis, mel, log, mean subtraction.

    Args:
        bins: number of mel filters.
        sample_rate: of the waveform, in Hz.
        n_fft: FFT size in samples.
        window_length: of the Hamming window, in samples.
        hop_length: step between frames, in samples.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz.
        normalize_signal: bring each waveform to zero mean and unit deviation first.
        pre_emphasis: coefficient of the first-order high-pass, or None for none.
        normalization: over time, per bin: "mn" subtracts the mean, "mvn" also divides by the deviation, "bn" is a
            batch normalisation, None leaves the log-mel as it is.
        spec_augment: masking applied in training mode, or None.

    Gives `[batch, bins, 1 + samples // hop_length]`.

    Source: `MelBanks` of the official ReDimNet implementation (IDRnD), arXiv 2407.18223.
    """

    def __init__(
        self,
        bins: int = 72,
        *,
        sample_rate: int = 16000,
        n_fft: int = 512,
        window_length: int = 400,
        hop_length: int = 160,
        f_min: float = 20.0,
        f_max: float = 7600.0,
        normalize_signal: bool = False,
        pre_emphasis: float | None = 0.97,
        normalization: str | None = "mn",
        spec_augment: SpecAugment | None = None,
    ) -> None:
        super().__init__()
        if normalization not in ("mn", "mvn", "bn", None):
            raise ConfigError("normalization", repr(normalization), "'mn', 'mvn', 'bn' or null")
        self.bins, self.sample_rate = bins, sample_rate
        self.n_fft, self.window_length, self.hop_length = n_fft, window_length, hop_length
        self.normalize_signal, self.pre_emphasis, self.normalization = (
            normalize_signal,
            pre_emphasis,
            normalization,
        )
        self.batch_norm = nn.BatchNorm1d(bins) if normalization == "bn" else None
        self.spec_augment = spec_augment
        # Both are functions of the arguments, so a weights file need not hold them.
        self.register_buffer("window", torch.hamming_window(window_length), persistent=False)
        self.register_buffer("filters", mel_filters(bins, n_fft, sample_rate, f_min, f_max), persistent=False)
        self.window: Tensor
        self.filters: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: the reflection at the edges needs half a window, the statistics two frames."""
        return max(self.n_fft // 2 + 1, self.hop_length)

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to `features [batch, bins, frames]`."""
        # Half precision would lose quiet bins in the logarithm: the front end stays in float32 under autocast.
        with (
            torch.autocast(waveform.device.type, enabled=False),
            torch.set_grad_enabled(self.normalization == "bn"),
        ):
            features = self._normalize((self._power(waveform.float()) + 1e-6).log())
            return features if self.spec_augment is None else self.spec_augment(features)

    def _power(self, waveform: Tensor) -> Tensor:
        if self.normalize_signal:
            deviation, mean = torch.std_mean(waveform, dim=-1, keepdim=True, correction=0)
            waveform = (waveform - mean) / (deviation + 1e-6)
        if self.pre_emphasis is not None:
            previous = F.pad(waveform[:, None], (1, 0), mode="reflect")[:, 0, :-1]
            waveform = waveform - self.pre_emphasis * previous
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.window_length,
            self.window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        return self.filters.T @ power

    def _normalize(self, features: Tensor) -> Tensor:
        if self.normalization == "mn":
            return features - features.mean(dim=-1, keepdim=True)
        if self.normalization == "mvn":
            deviation, mean = torch.std_mean(features, dim=-1, keepdim=True)
            return (features - mean) / (deviation + 1e-8)
        return features if self.batch_norm is None else self.batch_norm(features)
