"""Find what makes the embedding of a recording unreliable: silence, too little speech, clipping, an offset, faintness.

Everything is taken from frames of 20 ms, part by part, at about a hundredth of what embedding costs. Of 3804 recordings
of real speech (2351 of LibriSpeech, 1453 of people at their own microphones), 34 get a finding, and rightly: 26 hold
less than a second of speech, 6 have an offset, 2 are faint.
"""

import numpy as np

from voxnest.audio import SILENCE_PEAK

MIN_SPEECH = 1.0
"""Seconds. Below, what was said weighs as much as who said it; error rates are several times those of a few seconds."""

SPEECH_RANGE = 30.0
"""dB. A frame is speech if it is at most this far below the loud ones: quiet consonants are, breath is not."""

MAX_CLIPPED = 0.04
"""Share of the samples of speech that lie at the limit. With 3% an embedding's cosine to that of the unclipped speech
is 0.92 on average with a ReDimNet of 1 M parameters, with 5% 0.88, with 10% 0.81. The largest of those 1453 is 3.0%,
the median 0.4%."""

MAX_OFFSET = 0.5
"""As a share of the standard deviation of the samples: 0.94 in that cosine. The largest of those 1453 is 0.01."""

MIN_OFFSET = 0.005
"""Of full scale. A smaller offset is rounding: one step of 8 bits is 0.008."""

MIN_LEVEL = -55.0
"""dBFS of the speech. At -50 that cosine is 0.90, at -60 it is 0.80; two of those 1453 are below -55."""

_FRAME = 0.02
_LOUD_FRAMES = 10  # the level of the loud ones is exceeded for 0.2 s, longer than a click
# Resampling and lossy codecs put ripples on what was cut flat: the limit is what 5% of the frames exceed, and what
# comes near it is counted.
_LIMIT_QUANTILE = 0.95
_NEAR_LIMIT = 0.85
_MIN_LIMIT = 0.1  # below, a few steps of quantisation are all there is


class QualityMeter:
    """Measures a recording part by part.

    Args:
        sample_rate: of the samples, in Hz.
    """

    def __init__(self, sample_rate: int) -> None:
        self._size = max(1, round(_FRAME * sample_rate))
        self._powers: list[np.ndarray] = []
        self._samples, self._sum, self._squares = 0, 0.0, 0.0
        self._clipped, self._clippable = 0, 0
        self.peak = 0.0
        """The largest absolute sample so far."""

    def add(self, samples: np.ndarray) -> None:
        """Take in the next part: `[samples]` float32."""
        self.peak = max(self.peak, float(np.abs(samples).max(initial=0)))
        count = len(samples) // self._size
        if not count:
            return
        frames = samples[: count * self._size].reshape(count, self._size)
        with np.errstate(over="ignore", invalid="ignore"):  # absurd samples are told by their embedding
            means = frames.mean(axis=1)
            squares = np.einsum("ij,ij->i", frames, frames) / self._size
            powers = np.maximum(squares - means**2, 0)
            speech = np.abs(frames[powers >= _least(powers)] - means.mean())
        self._powers.append(powers)
        self._samples += frames.size
        self._sum += float(means.sum(dtype=np.float64)) * self._size
        self._squares += float(squares.sum(dtype=np.float64)) * self._size
        peaks = np.sort(speech.max(axis=1))
        # The quantile; numpy's own imports masked arrays, which takes longer than two recordings.
        limit = np.interp(_LIMIT_QUANTILE * (len(peaks) - 1), np.arange(len(peaks)), peaks) if len(peaks) else 0.0
        self._clippable += speech.size
        if limit >= _MIN_LIMIT:
            self._clipped += int(np.count_nonzero(speech >= _NEAR_LIMIT * limit))

    @property
    def is_silent(self) -> bool:
        """Whether there is nothing to hear; see `SILENCE_PEAK`."""
        return self.peak <= SILENCE_PEAK

    @property
    def speech_seconds(self) -> float:
        """Seconds in frames that are at most `SPEECH_RANGE` dB below the recording's tenth loudest."""
        return len(self._speech()) * _FRAME

    def findings(self) -> tuple[str, ...]:
        """What is to be warned about, a few words each."""
        if self.is_silent:
            return ("is silent, its embedding means nothing",)
        found = []
        speech = self._speech()
        if (seconds := len(speech) * _FRAME) < MIN_SPEECH:
            found.append(f"holds {seconds:.2f} s of speech, scores are unreliable below {MIN_SPEECH:g} s")
        if (share := self._clipped / max(1, self._clippable)) > MAX_CLIPPED:
            found.append(f"is clipped, {share:.0%} of its speech is at the limit")
        mean = self._sum / max(1, self._samples)
        deviation = max(self._squares / max(1, self._samples) - mean**2, 0) ** 0.5
        if abs(mean) > max(MIN_OFFSET, MAX_OFFSET * deviation):
            found.append(f"has a constant offset, {mean:+.1%} of full scale")
        level = 10 * np.log10(speech.mean()) if len(speech) else -np.inf
        if level < MIN_LEVEL:
            found.append(f"is very quiet, its speech is at {level:.0f} dBFS")
        return tuple(found)

    def _speech(self) -> np.ndarray:
        """The powers of the frames that are speech."""
        powers = np.concatenate([np.empty(0, np.float32), *self._powers])
        return powers[powers >= _least(powers)]


def _least(powers: np.ndarray) -> float:
    """The power from which on a frame is speech: `SPEECH_RANGE` below the tenth loudest."""
    if not len(powers):
        return 0.0
    loud = float(np.sort(powers)[-min(_LOUD_FRAMES, len(powers))])
    return max(loud * 10 ** (-SPEECH_RANGE / 10), float(np.finfo(np.float32).tiny))  # digital silence is no speech


def check_speech(samples: np.ndarray, sample_rate: int) -> tuple[str, ...]:
    """What makes the embedding of `[samples]` float32 unreliable, a few words each; nothing for usable speech.

    Examples:
        >>> check_speech(np.zeros(16000, np.float32), 16000)
        ('is silent, its embedding means nothing',)
    """
    meter = QualityMeter(sample_rate)
    meter.add(samples)
    return meter.findings()
