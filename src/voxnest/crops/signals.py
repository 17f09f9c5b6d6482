"""What augmentation does to samples: noise at a level, rooms, a telephone line. Pure functions of arrays."""

import numpy as np

_ACTIVE_RANGE = 1e-3  # a frame within 30 dB of the loudest one counts as speech
_MU_LAW = (np.expm1(np.arange(128) / 127 * np.log(256)) / 255).astype(np.float32)
"""What the 128 codes of either sign stand for, as a share of full scale."""


def speech_level(samples: np.ndarray, frame: int = 320) -> float:
    """Root mean square of the frames within 30 dB of the loudest one (pauses do not count); 0 for silence."""
    power = np.square(samples)
    whole = len(power) // frame * frame
    frames = power[:whole].reshape(-1, frame).mean(axis=1) if whole else power.mean(keepdims=True)
    active = frames[frames >= frames.max() * _ACTIVE_RANGE]
    return float(np.sqrt(active.mean()))


def mix(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Add `noise` at `snr` dB below the level of the speech in `samples`; silence on a side adds nothing."""
    speech, background = speech_level(samples), float(np.sqrt(np.square(noise).mean()))
    if speech == 0 or background == 0:
        return samples
    return samples + noise * np.float32(speech / background * 10 ** (-snr / 20))


def reverberate(samples: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """Convolve with `rir`, aligned by its strongest path, and keep the energy.

    Args:
        samples: `[samples] float32`.
        rir: `[taps] float32` room impulse response.
    """
    size = _fft_size(len(samples) + len(rir) - 1)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(rir, size), size)
    delay = int(np.abs(rir).argmax())
    wet = wet[delay : delay + len(samples)].astype(np.float32, copy=False)
    before, after = float(np.square(samples).sum()), float(np.square(wet).sum())
    return wet * np.float32(np.sqrt(before / after)) if after > 0 else samples


def synthetic_rir(rng: np.random.Generator, rt60: float, ratio_db: float, sample_rate: int) -> np.ndarray:
    """A room after Polack: a direct path, and noise that decays by 60 dB in `rt60` seconds.

    Args:
        rng: draws the noise and when the first reflection comes (1 to 10 ms).
        rt60: reverberation time in seconds.
        ratio_db: energy of the direct path over that of the rest, in dB.
        sample_rate: in Hz.

    Returns:
        `[taps] float32`, up to a decay of 40 dB; what is below is not heard under speech.
    """
    first = max(1, int(rng.uniform(0.001, 0.01) * sample_rate))
    times = np.arange(max(1, int(rt60 * 40 / 60 * sample_rate))) / sample_rate
    tail = rng.standard_normal(len(times)) * 10 ** (-3 * times / rt60)
    tail *= 10 ** (-ratio_db / 20) / np.sqrt(np.square(tail).sum())
    # The direct path must stay the strongest tap, by which `reverberate` aligns, even in a very wet room.
    direct = max(1.0, 1.01 * np.abs(tail).max())
    return np.concatenate([[direct], np.zeros(first - 1), tail]).astype(np.float32)


def trim_rir(rir: np.ndarray) -> np.ndarray:
    """Cut off the end of a measured response, 1/10,000 of its energy: the convolution is faster."""
    energy = np.cumsum(np.square(rir, dtype=np.float64))
    return np.ascontiguousarray(rir[: int(np.searchsorted(energy, energy[-1] * (1 - 1e-4))) + 1])


def coloured_noise(rng: np.random.Generator, count: int, slope: float) -> np.ndarray:
    """Noise of unit level, power ~ 1 / frequency ** slope (0 white, 1 pink, 2 brown); repeats seamlessly."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    bins = np.arange(len(spectrum))
    spectrum *= np.maximum(bins, count // 800) ** (-slope / 2)  # flat below 20 Hz at 16 kHz: no rumble
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, count)
    return (noise / np.sqrt(np.square(noise).mean())).astype(np.float32)


def telephone(samples: np.ndarray, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """A telephone line: a band of about 300 to 3400 Hz, then 8-bit mu-law (ITU-T G.711) at full scale."""
    size = _fft_size(len(samples))
    low, high = rng.uniform(200, 400), rng.uniform(3000, 3600)
    squares = np.square(np.fft.rfftfreq(size, 1 / sample_rate).astype(np.float32))
    below, above = np.float32(low**2) / np.maximum(squares, 1), squares / np.float32(high**2)
    gain = 1 / np.sqrt((1 + np.square(np.square(below))) * (1 + np.square(np.square(np.square(above)))))
    # In float32, which numpy 1 does not transform in, and with levels from a table: most of what such a crop costs.
    band = np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)].astype(np.float32, copy=False)
    peak = float(np.abs(band).max(initial=0))
    if peak == 0:
        return samples
    code = np.rint(np.log1p(np.abs(band) * np.float32(255 / peak)) * np.float32(127 / np.log(256)))
    return np.copysign(_MU_LAW[code.astype(np.uint8)] * np.float32(peak), band)


def _fft_size(count: int) -> int:
    """The next size, at least `count`, that an FFT is fast for."""
    shift = max(0, (count - 1).bit_length() - 4)
    return min(size << shift for size in (8, 9, 10, 12, 15, 16) if size << shift >= count)
