"""Front ends: waveform to features.

Every front end maps `waveform [batch, samples]` to `features [batch, bins, frames]` in float32, without gradient,
and carries `bins`, `hop_length`, `sample_rate` and `min_samples` (the shortest waveform it can take).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

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


class Frontend(nn.Module):
    """What every front end does around its spectrogram: prepare the waveform, take the logarithm, normalise, mask.

    Args:
        bins: number of features per frame.
        sample_rate: of the waveform, in Hz.
        n_fft: FFT size in samples.
        window_length: of the Hamming window, in samples.
        hop_length: step between frames, in samples.
        normalize_signal: bring each waveform to zero mean and unit deviation first.
        pre_emphasis: coefficient of the first-order high-pass, or None for none.
        normalization: over time, per bin: "mn" subtracts the mean, "mvn" also divides by the deviation, "bn" is a
            batch normalisation, None leaves the logarithm as it is.
        spec_augment: masking applied in training mode, or None.
        pad_right: silent samples put after each waveform.
        min_frames: how many frames the model needs; `min_samples` follows from it.
        floor: added to powers before the logarithm.
        deviation_floor: added to the deviation that `normalize_signal` divides by.
    """

    def __init__(
        self,
        bins: int,
        *,
        sample_rate: int = 16000,
        n_fft: int = 512,
        window_length: int = 400,
        hop_length: int = 160,
        normalize_signal: bool = False,
        pre_emphasis: float | None = 0.97,
        normalization: str | None = "mn",
        spec_augment: SpecAugment | None = None,
        pad_right: int = 0,
        min_frames: int = 2,
        floor: float = 1e-6,
        deviation_floor: float = 1e-6,
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
        self.pad_right, self.min_frames = pad_right, min_frames
        self.floor, self.deviation_floor = floor, deviation_floor
        self.batch_norm = nn.BatchNorm1d(bins) if normalization == "bn" else None
        self.spec_augment = spec_augment

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs."""
        raise NotImplementedError

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        raise NotImplementedError

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to `features [batch, bins, frames]`."""
        # Half precision would lose quiet bins in the logarithm: the front end stays in float32 under autocast.
        with (
            torch.autocast(waveform.device.type, enabled=False),
            torch.set_grad_enabled(self.normalization == "bn"),
        ):
            features = self.spectrogram(self._prepare(waveform.float()))
            features = self._normalize((features + self.floor).log())
            return features if self.spec_augment is None else self.spec_augment(features)

    def _prepare(self, waveform: Tensor) -> Tensor:
        if self.pad_right:
            waveform = F.pad(waveform, (0, self.pad_right))
        if self.normalize_signal:
            deviation, mean = torch.std_mean(waveform, dim=-1, keepdim=True, correction=0)
            waveform = (waveform - mean) / (deviation + self.deviation_floor)
        if self.pre_emphasis is not None:
            previous = F.pad(waveform[:, None], (1, 0), mode="reflect")[:, 0, :-1]
            waveform = waveform - self.pre_emphasis * previous
        return waveform

    def _normalize(self, features: Tensor) -> Tensor:
        if self.normalization == "mn":
            return features - features.mean(dim=-1, keepdim=True)
        if self.normalization == "mvn":
            deviation, mean = torch.std_mean(features, dim=-1, keepdim=True)
            return (features - mean) / (deviation + 1e-8)
        return features if self.batch_norm is None else self.batch_norm(features)


class ReDimNetMel(Frontend):
    """The log-mel front end of ReDimNet: normalise, pre-emphasis, mel, log, mean subtraction.

    Args:
        bins: number of mel filters.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz.
        options: see `Frontend`.

    Gives `[batch, bins, 1 + samples // hop_length]`.

    Source: `MelBanks` of the official ReDimNet implementation (IDRnD), arXiv 2407.18223.
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

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
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
        # Products with cosines and sines in single precision, as the original has them: in quiet bins an FFT differs
        # from those by more than 1e-4 after the logarithm.
        time = torch.arange(self.window_length, dtype=torch.float64)
        angles = 2 * math.pi / self.n_fft * torch.outer(time, torch.arange(self.n_fft // 2, dtype=torch.float64))
        shape = _symmetric_window(window, self.window_length).float()[:, None]
        waves = torch.cat([angles.cos().float() * shape, angles.sin().float() * shape], dim=1)
        self.register_buffer("waves", waves, persistent=False)
        self.waves: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs, counting half a hop of zeros at each end."""
        padding = 2 * (self.hop_length // 2)
        frames = self.min_frames * (1 if self.pool is None else self.pool[1])
        return max(1, max(2, self.window_length + (frames - 1) * self.hop_length - padding) - self.pad_right)

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to `features [batch, bins, frames]`."""
        features = super().forward(waveform)
        return features if self.pool is None else F.avg_pool2d(features, self.pool)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, n_fft // 2, frames]`."""
        parts = F.conv1d(waveform[:, None], self.waves.T[:, None], stride=self.hop_length, padding=self.hop_length // 2)
        real, imaginary = parts.chunk(2, dim=1)
        power = real.square() + imaginary.square()
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
        filters = _triangles_in_mel(bins, self.n_fft // 2, self.sample_rate, f_min, f_max)
        self.register_buffer("filters", filters, persistent=False)
        self.filters: Tensor

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        return (self.filters.T @ super().spectrogram(waveform)).clamp(self.eps, 1 / self.eps)


def _symmetric_window(kind: str | None, length: int) -> Tensor:
    if kind is None:
        return torch.ones(length, dtype=torch.float64)
    if kind == "hamming":
        return torch.hamming_window(length, periodic=False, dtype=torch.float64)
    if kind in ("hann", "hanning", "sqrt_hann"):
        window = torch.hann_window(length, periodic=False, dtype=torch.float64)
        return window.sqrt() if kind == "sqrt_hann" else window
    raise ConfigError("window", repr(kind), "'hamming', 'hann', 'sqrt_hann' or null")


def _triangles_in_mel(bins: int, spectrum_bins: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Filters that are triangles over mel rather than over frequency, as TensorFlow's: `[spectrum_bins, bins]`."""

    def to_mel(hertz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + hertz / 700.0)

    low, high = to_mel(torch.tensor([f_min, f_max], dtype=torch.float64)).tolist()
    corners = torch.linspace(low, high, bins + 2, dtype=torch.float64)
    mels = to_mel(torch.linspace(0, sample_rate // 2, spectrum_bins, dtype=torch.float64))[:, None]
    widths = corners.diff()
    rising = (mels - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - mels) / widths[1:]
    filters = torch.minimum(rising, falling).clamp(min=0.0).float()
    filters[0] = 0.0
    return filters


FRONTENDS: dict[str, type[Frontend]] = {"mel": ReDimNetMel, "tf_mel": TFMel, "tf_spectrogram": TFSpectrogram}
"""Front ends by name."""


def create_frontend(name: str, bins: int, *, spec_augment: Mapping[str, Any] | None = None, **options: Any) -> Frontend:
    """The front end `name`; `spec_augment` are arguments of `SpecAugment`, `options` those of the front end.

    Raises:
        ConfigError: for an unknown name or option.
    """
    if name not in FRONTENDS:
        raise ConfigError("frontend", repr(name), "one of " + ", ".join(FRONTENDS))
    try:
        masking = None if spec_augment is None else SpecAugment(**spec_augment)
        return FRONTENDS[name](bins, spec_augment=masking, **options)
    except TypeError as error:
        raise ConfigError(f"frontend {name}", str(error), "options that it has") from None
