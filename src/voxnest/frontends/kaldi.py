"""Kaldi's log-mel filter bank, for whole batches on any device."""

from typing import Any

import torch
from torch import Tensor

from voxnest.frontends.base import Frontend, analysis_window, triangles_in_mel


class KaldiFbank(Frontend):
    """Kaldi's filter bank ("fbank"): offset, pre-emphasis and window per frame, mel, log, mean subtraction.

    Only whole frames are used (`snip_edges`), and there is no dither.

    Args:
        bins: number of mel filters.
        window: "hamming" (wespeaker) or "povey" (3D-Speaker, and Kaldi where nothing else is said); see
            `analysis_window`.
        f_min: lower edge of the first filter, in Hz.
        f_max: upper edge of the last filter, in Hz; None for half the sample rate.
        pre_emphasis: coefficient of the first-order high-pass in each frame, or None for none.
        scale: the waveform is multiplied by it. 2 ** 15 (wespeaker) makes 16-bit numbers; with 1 (3D-Speaker) the floor
            of the logarithm hides quiet bins.
        floor: smallest power.
        options: see `Frontend`. `normalization=None` keeps the mean.

    Gives `[batch, bins, 1 + (samples - window_length) // hop_length]`.

    Source: Kaldi's compute-fbank-feats in the form of `torchaudio.compliance.kaldi.fbank`.
    """

    def __init__(
        self,
        bins: int = 80,
        *,
        window: str | None = "hamming",
        f_min: float = 20.0,
        f_max: float | None = None,
        pre_emphasis: float | None = 0.97,
        scale: float = 2.0**15,
        floor: float = torch.finfo(torch.float32).eps,
        **options: Any,
    ) -> None:
        super().__init__(bins, pre_emphasis=pre_emphasis, floor=floor, **options)
        self.scale = scale
        frequencies = torch.arange(self.n_fft // 2, dtype=torch.float64) * (self.sample_rate / self.n_fft)
        filters = triangles_in_mel(bins, frequencies, f_min, self.sample_rate / 2 if f_max is None else f_max)
        self.register_buffer("window", analysis_window(window, self.window_length).float(), persistent=False)
        self.register_buffer("filters", filters, persistent=False)
        self.window: Tensor
        self.filters: Tensor

    @property
    def min_samples(self) -> int:
        """Shortest waveform: it must fill the frames that the model needs."""
        return max(1, self.window_length + (self.min_frames - 1) * self.hop_length - self.pad_right)

    def spectrum(self, frames: Tensor) -> Tensor:
        """See `Frontend`. No filter reaches the Nyquist bin, which is left out."""
        frames = frames - frames.mean(dim=-1, keepdim=True)
        if self.pre_emphasis is not None:
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = frames - self.pre_emphasis * previous
        return torch.fft.rfft(frames * self.window, self.n_fft)[..., :-1]

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """`waveform [batch, samples]` to powers `[batch, bins, frames]`."""
        return (self._framed_powers(waveform).transpose(1, 2) @ self.filters).transpose(1, 2)

    def _prepare(self, waveform: Tensor) -> Tensor:
        # Pre-emphasis is a matter of each frame here.
        return self._scale(waveform) * self.scale

    def _compress(self, powers: Tensor) -> Tensor:
        return powers.clamp(min=self.floor).log()
