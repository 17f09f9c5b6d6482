"""What front ends share: the chain around a spectrogram, mel filters and masking."""

import hashlib
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError


def mel_filters(bins: int, n_fft: int, sample_rate: int, f_min: float, f_max: float) -> Tensor:
    """Triangular filters on the HTK mel scale, not normalised: `[n_fft // 2 + 1, bins]`.

    The same numbers as `torchaudio.functional.melscale_fbanks(norm=None, mel_scale="htk")`.
    """
    low, high = _to_mel(torch.tensor([f_min, f_max], dtype=torch.float64)).tolist()
    mels = torch.linspace(low, high, bins + 2)
    corners = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    frequencies = torch.linspace(0, sample_rate // 2, n_fft // 2 + 1)
    slopes = corners[None, :] - frequencies[:, None]
    widths = corners.diff()
    rising = -slopes[:, :-2] / widths[:-1]
    falling = slopes[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


def triangles_in_mel(bins: int, frequencies: Tensor, f_min: float, f_max: float) -> Tensor:
    """Filters that are triangles over mel rather than over frequency, as TensorFlow's and Kaldi's.

    Args:
        bins: number of filters.
        frequencies: of the spectrum's bins in Hz, `[spectrum_bins]` float64.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz.

    Gives `[spectrum_bins, bins]` float32.
    """
    low, high = _to_mel(torch.tensor([f_min, f_max], dtype=torch.float64)).tolist()
    corners = torch.linspace(low, high, bins + 2, dtype=torch.float64)
    mels = _to_mel(frequencies)[:, None]
    widths = corners.diff()
    rising = (mels - corners[:-2]) / widths[:-1]
    falling = (corners[2:] - mels) / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def _to_mel(hertz: Tensor) -> Tensor:
    return 2595.0 * torch.log10(1.0 + hertz / 700.0)


def in_float32(x: Tensor) -> AbstractContextManager[object]:
    """Without autocast on the device of `x`; nothing where there is none, so that no exported graph holds a trace."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def analysis_window(kind: str | None, length: int, *, periodic: bool = False) -> Tensor:
    """The window "hamming", "hann", "sqrt_hann", "povey" or (None) rectangle, symmetric if not periodic: `[length]`.

    In float64, for the caller to round.

    Raises:
        ConfigError: for another kind.
    """
    if kind is None:
        return torch.ones(length, dtype=torch.float64)
    if kind == "hamming":
        return torch.hamming_window(length, periodic=periodic, dtype=torch.float64)
    if kind not in _HANN_POWERS:
        raise ConfigError("window", repr(kind), "'hamming', 'hann', 'sqrt_hann', 'povey' or null")
    return torch.hann_window(length, periodic=periodic, dtype=torch.float64) ** _HANN_POWERS[kind]


def at_level(waveform: Tensor, level: float) -> Tensor:
    """Bring each of `waveform [batch, samples]` to the root mean square `level`, in dB relative to full scale (1.0).

    Samples that are exactly 0 do not count, so that neither padding nor pauses of digital silence make the rest louder.
    There is no limit to the gain, and silence stays silence.
    """
    # From a peak of 1 on, no square can underflow, however quiet the waveform is.
    tiny = torch.finfo(waveform.dtype).tiny
    waveform = waveform / waveform.abs().amax(dim=-1, keepdim=True).clamp(min=tiny)
    heard = (waveform != 0).sum(dim=-1, keepdim=True).clamp(min=1)
    power = waveform.square().sum(dim=-1, keepdim=True) / heard
    return waveform * (10.0 ** (level / 20.0) * power.clamp(min=tiny).rsqrt())


def raised(waveform: Tensor, level: float) -> Tensor:
    """Bring each of `waveform [batch, samples]` whose root mean square is below `level` (dB of full scale) to it.

    All samples count. Silence stays silence.
    """
    # From a peak of 1 on, no square can underflow, however quiet the waveform is.
    tiny = torch.finfo(waveform.dtype).tiny
    peak = waveform.abs().amax(dim=-1, keepdim=True).clamp(min=tiny)
    power = (waveform / peak).square().mean(dim=-1, keepdim=True).clamp(min=tiny)
    wanted = 10.0 ** (level / 20.0) * power.rsqrt()  # the peak at that level
    return torch.where(wanted > peak, waveform / peak * wanted, waveform)


_LARGEST_FFT = 8192

_HANN_POWERS = {"hann": 1.0, "hanning": 1.0, "sqrt_hann": 0.5, "povey": 0.85}


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

    @staticmethod
    def up_to(bins: int, frames: int) -> dict[str, tuple[int, int]] | None:
        """Arguments for bands of at most so many bins and frames; None where both are 0 and nothing is hidden."""
        return {"frequency_width": (0, bins + 1), "time_width": (0, frames + 1)} if bins or frames else None

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to the same shape."""
        if not self.training:
            return features
        for _ in range(self.times):
            features = features.masked_fill(self._band(features, 2, self.time_width), 0.0)
            features = features.masked_fill(self._band(features, 1, self.frequency_width, self.first_bin), 0.0)
        return features

    def _band(self, features: Tensor, axis: int, width: tuple[int, int], first: int = 0) -> Tensor:
        batch, size, device = features.shape[0], features.shape[axis], features.device
        length = torch.randint(width[0], width[1], (batch, 1, 1), device=device)
        last = max(first + 1, size - int(width[1]) + 1)
        start = torch.randint(first, last, (batch, 1, 1), device=device)
        position = torch.arange(size, device=device).view((1, 1, -1) if axis == 2 else (1, -1, 1))
        return (start <= position) & (position < start + length)


class Frontend(nn.Module):
    """What every front end does around its spectrogram: prepare the waveform, compress, normalise, mask.

    Args:
        bins: number of features per frame.
        sample_rate: of the waveform, in Hz.
        n_fft: FFT size in samples.
        window_length: of the analysis window, in samples.
        hop_length: step between frames, in samples.
        level: bring each waveform to this level first, in dB relative to full scale (see `at_level`); None leaves it as
            it is, and then quiet recordings come out otherwise than loud ones wherever `floor` counts: published
            weights were trained like that. docs/default-model.md says how much it matters.
        normalize_signal: bring each waveform to zero mean and unit deviation first.
        pre_emphasis: coefficient of the first-order high-pass, or None for none.
        normalization: per bin: over time, "mn" subtracts the mean, "mvn" also divides by the deviation; "bn" is a batch
            normalisation; "corpus" is by mean and deviation of a whole corpus (see `set_statistics`), the identity
            until they are known; None leaves the features as they are.
        spec_augment: masking applied in training mode, or None.
        pad_right: silent samples put after each waveform.
        min_frames: how many frames the model needs; `min_samples` follows from it.
        floor: added to powers before the logarithm.
        deviation_floor: added to the deviation that `normalize_signal` divides by.

    Raises:
        ConfigError: for a size that cannot be.
    """

    def __init__(
        self,
        bins: int,
        *,
        sample_rate: int = 16000,
        n_fft: int = 512,
        window_length: int = 400,
        hop_length: int = 160,
        level: float | None = None,
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
        if normalization not in ("mn", "mvn", "bn", "corpus", None):
            raise ConfigError("normalization", repr(normalization), "'mn', 'mvn', 'bn', 'corpus' or null")
        for setting, value, least, most, limit in (
            ("n_fft", n_fft, 2, _LARGEST_FFT, ""),
            ("window_length", window_length, 2, n_fft, "the FFT size "),
            ("bins", bins, 1, n_fft, "the FFT size "),
            ("hop_length", hop_length, 1, sample_rate, "the sample rate "),
            ("min_frames", min_frames, 1, sample_rate, ""),
            ("pad_right", pad_right, 0, 60 * sample_rate, "a minute, "),
        ):
            if not least <= value <= most:
                raise ConfigError(setting, str(value), f"at least {least}, at most {limit}{most}")
        self.bins, self.sample_rate = bins, sample_rate
        self.n_fft, self.window_length, self.hop_length = n_fft, window_length, hop_length
        self.level, self.normalize_signal = level, normalize_signal
        self.pre_emphasis, self.normalization = pre_emphasis, normalization
        self.pad_right, self.min_frames = pad_right, min_frames
        self.floor, self.deviation_floor = floor, deviation_floor
        self.batch_norm = nn.BatchNorm1d(bins) if normalization == "bn" else None
        self.spec_augment = spec_augment
        self.register_buffer("waves", None, persistent=False)
        self.waves: Tensor | None
        if normalization == "corpus":  # weights like others: a checkpoint holds them
            self.register_buffer("mean", torch.zeros(bins))
            self.register_buffer("deviation", torch.ones(bins))
            self.mean: Tensor
            self.deviation: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs."""
        raise NotImplementedError

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        raise NotImplementedError

    def spectrum(self, frames: Tensor) -> Tensor:
        """Frames `[..., window_length]`, each by itself, to complex spectra `[..., spectrum_bins]`; it is linear."""
        raise NotImplementedError

    def use_products(self) -> None:
        """Compute spectra as products with cosines and sines from now on, as graphs for other engines need it.

        Those have no Fourier transform, or a slow one. One convolution of the waveform does all that a frame goes
        through: mean, pre-emphasis, window and transform. What float32 rounds differs then, in quiet bins most.
        """
        if self.waves is None:
            spectra = self.spectrum(torch.eye(self.window_length, dtype=torch.float64))
            self.waves = torch.cat([spectra.real, spectra.imag], dim=1).T[:, None].float()

    @property
    def wants_statistics(self) -> bool:
        """Whether it normalises by a corpus whose mean and deviation it was not told yet."""
        return self.normalization == "corpus" and not self.mean.any() and bool((self.deviation == 1).all())

    def set_statistics(self, mean: Tensor, deviation: Tensor) -> None:
        """Normalise by these from now on: of `raw_features` over all frames of a corpus, `[bins]` each.

        A bin that never changes is only shifted.
        """
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def fingerprint(self) -> str:
        """A digest of all that `raw_features` depends on: settings, windows and filters."""
        later = {"normalization", "min_frames", "training"}
        settings = {
            name: value
            for name, value in vars(self).items()
            if name not in later and isinstance(value, (bool, int, float, str, tuple, type(None)))
        }
        digest = hashlib.sha256(repr((type(self).__name__, sorted(settings.items()))).encode())
        for name, value in sorted(self.named_buffers(recurse=False)):
            if name not in ("mean", "deviation"):
                digest.update(name.encode() + value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def forward(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to `features [batch, bins, frames]`."""
        return self.finish(self.raw_features(waveform))

    def raw_features(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to features before normalisation and masking, `[batch, bins', frames]`."""
        # Half precision would lose quiet bins in the logarithm: the front end stays in float32 under autocast.
        with in_float32(waveform), torch.no_grad():
            return self._compress(self.spectrogram(self._prepare(waveform.float())))

    def finish(self, raw: Tensor) -> Tensor:
        """What `raw_features` gave to `features [batch, bins, frames]`: normalised, and in training masked."""
        with in_float32(raw), torch.set_grad_enabled(self.normalization == "bn"):
            features = self._normalize(raw)
            return features if self.spec_augment is None else self.spec_augment(features)

    def _prepare(self, waveform: Tensor) -> Tensor:
        waveform = self._scale(waveform)
        if self.pre_emphasis is not None:
            previous = F.pad(waveform[:, None], (1, 0), mode="reflect")[:, 0, :-1]
            waveform = waveform - self.pre_emphasis * previous
        return waveform

    def _scale(self, waveform: Tensor) -> Tensor:
        if self.level is not None:
            waveform = at_level(waveform, self.level)
        if self.pad_right:
            waveform = F.pad(waveform, (0, self.pad_right))
        if self.normalize_signal:
            deviation, mean = torch.std_mean(waveform, dim=-1, keepdim=True, correction=0)
            waveform = (waveform - mean) / (deviation + self.deviation_floor)
        return waveform

    def _centred_powers(self, waveform: Tensor, window: Tensor, pad_mode: str) -> Tensor:
        """Powers `[batch, n_fft / 2 + 1, frames]` of frames centred on every `hop_length`-th sample."""
        if self.waves is not None:
            left = (self.n_fft - self.window_length) // 2
            right = self.n_fft - self.window_length - left
            padding = self.n_fft // 2 - left, self.n_fft // 2 - right
            return self._power_products(F.pad(waveform[:, None], padding, mode=pad_mode)[:, 0])
        spectrum = torch.stft(
            waveform,
            self.n_fft,
            self.hop_length,
            self.window_length,
            window,
            center=True,
            pad_mode=pad_mode,
            return_complex=True,
        )
        return spectrum.real.square() + spectrum.imag.square()

    def _framed_powers(self, waveform: Tensor) -> Tensor:
        """Powers `[batch, spectrum_bins, frames]` of frames that begin at every `hop_length`-th sample."""
        if self.waves is not None:
            return self._power_products(waveform)
        spectra = self.spectrum(waveform.unfold(-1, self.window_length, self.hop_length))
        return torch.view_as_real(spectra).square().sum(dim=-1).transpose(1, 2)

    def _power_products(self, waveform: Tensor, padding: int = 0) -> Tensor:
        """As `_framed_powers`, by the `waves`."""
        assert self.waves is not None
        parts = F.conv1d(waveform[:, None], self.waves, stride=self.hop_length, padding=padding)
        real, imaginary = parts.chunk(2, dim=1)
        return real.square() + imaginary.square()

    def _compress(self, powers: Tensor) -> Tensor:
        """Powers to what is normalised: their logarithm, unless a front end says otherwise."""
        return (powers + self.floor).log()

    def _normalize(self, features: Tensor) -> Tensor:
        if self.normalization == "mn":
            return features - features.mean(dim=-1, keepdim=True)
        if self.normalization == "mvn":
            deviation, mean = torch.std_mean(features, dim=-1, keepdim=True)
            return (features - mean) / (deviation + 1e-8)
        if self.normalization == "corpus":
            return (features - self.mean[:, None]) / self.deviation[:, None]
        return features if self.batch_norm is None else self.batch_norm(features)
