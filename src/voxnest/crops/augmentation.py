"""Make crops harder: background noise, babble, reverberation, a telephone line, and another volume.

Everything is a few numpy lines driven by the generator that is passed in, so a crop is the same in every
process and after every resume. (audiomentations draws from the global `random` and `np.random`, and decodes
its noise file at every call.)
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from voxnest.audio import audio_info, list_recordings, read_audio
from voxnest.crops.signals import coloured_noise, mix, reverberate, speech_level, synthetic_rir, telephone, trim_rir
from voxnest.crops.store import AudioStore, fit_length
from voxnest.errors import AudioError, ConfigError, CorpusError

SpeechSource = Callable[[np.random.Generator, int], np.ndarray | None]
"""Gives `count` samples of somebody else's speech, for babble; None when there is nobody else."""

Range = tuple[float, float]

_NOISE_KINDS = ("files", "coloured", "babble")
_MAX_RIRS = 1000
_SYNTHETIC_RIRS = 200
_COLOURS, _COLOUR_SECONDS = 16, 8


class Augmentation:
    """Reverberation, noise, a telephone line, volume: each at random, in the order of the real world.

    Args:
        noise: noise recordings, or folders of them (searched in depth).
        noise_snr: signal-to-noise ratio of recorded and coloured noise, in dB, drawn uniformly.
        noise_probability: share of crops that get noise, of one kind each.
        noise_kinds: relative weights of the kinds `files`, `coloured` (synthetic, between white and brown)
            and `babble` (several other speakers of the corpus at once). By default noise files if there are
            any, else coloured noise, and half as much babble.
        babble_snr: signal-to-noise ratio of babble, in dB.
        babble_speakers: least and largest number of voices in babble.
        rirs: room impulse responses, or folders of them; up to 1000, drawn by `seed`, are kept. Without any,
            200 synthetic ones are used.
        rt60: reverberation time of the synthetic rooms, in seconds.
        direct_to_reverberant: energy ratio of direct sound to reverberation in the synthetic rooms, in dB.
        reverberation_probability: share of crops that get reverberation.
        telephone_probability: share of crops that go through a telephone line (about 300 to 3400 Hz, mu-law).
        reverse_probability: share of crops that are played backwards: other speech of the same voice.
        volume_db: gain in dB, drawn uniformly for every crop.
        noise_cache_gb: memory for noise recordings; larger collections are read from disk.
        ramp_epochs: the probabilities grow from nothing at the first to their full size at the second of these
            epochs (fractions of an epoch count). A network that starts on distorted speech of hundreds of speakers
            may stay at chance for thousands of crops; started on clean speech, it takes off at once.
        sample_rate: of the crops, in Hz.
        seed: of the synthetic rooms and coloured noise.

    Raises:
        ConfigError: a probability or a range is not one.
        CorpusError: `noise` or `rirs` names something that is missing, or holds no readable recordings.
    """

    def __init__(
        self,
        *,
        noise: Sequence[str | Path] = (),
        noise_snr: Range = (5, 25),
        noise_probability: float = 0.5,
        noise_kinds: Mapping[str, float] | None = None,
        babble_snr: Range = (13, 20),
        babble_speakers: Range = (3, 7),
        rirs: Sequence[str | Path] = (),
        rt60: Range = (0.1, 0.7),
        direct_to_reverberant: Range = (-3, 12),
        reverberation_probability: float = 0.3,
        telephone_probability: float = 0.0,
        reverse_probability: float = 0.0,
        volume_db: Range = (-6, 6),
        noise_cache_gb: float = 1.0,
        ramp_epochs: Range = (0, 0),
        sample_rate: int = 16000,
        seed: int = 0,
    ) -> None:
        self.sample_rate = sample_rate
        self.noise_snr, self.babble_snr = _range("noise_snr", noise_snr), _range("babble_snr", babble_snr)
        self.babble_speakers = _range("babble_speakers", babble_speakers, least=1)
        self.volume_db = _range("volume_db", volume_db)
        self.noise_probability = _probability("noise_probability", noise_probability)
        self.reverberation_probability = _probability("reverberation_probability", reverberation_probability)
        self.telephone_probability = _probability("telephone_probability", telephone_probability)
        self.reverse_probability = _probability("reverse_probability", reverse_probability)
        self.ramp_epochs = _range("ramp_epochs", ramp_epochs, least=0, most=float("inf"))
        self._failures: dict[Path, str] = {}

        self._noise_seconds = np.zeros(0)
        if noise:
            self._noise = self._open_noise(_list_places(noise, "noise"), noise_cache_gb)
        if noise_kinds is None:
            noise_kinds = {"files" if noise else "coloured": 1.0, "babble": 0.5}
        self._kinds = _kind_weights(noise_kinds, has_files=bool(noise))

        rng = np.random.default_rng((seed, 0))
        self._colours = [
            coloured_noise(rng, _COLOUR_SECONDS * sample_rate, slope) for slope in np.linspace(0, 2, _COLOURS)
        ]
        rng = np.random.default_rng((seed, 1))
        if rirs:
            self._rirs = self._read_rirs(_list_places(rirs, "rirs"), rng)
        else:
            times = rng.uniform(*_range("rt60", rt60, least=0.01), _SYNTHETIC_RIRS)
            ratios = rng.uniform(*_range("direct_to_reverberant", direct_to_reverberant), _SYNTHETIC_RIRS)
            self._rirs = [
                synthetic_rir(rng, time, ratio, sample_rate) for time, ratio in zip(times, ratios, strict=True)
            ]

    @property
    def failures(self) -> dict[Path, str]:
        """Noise and impulse-response files that could not be read in this process, and why."""
        return self._failures | (self._noise.failures if len(self._noise_seconds) else {})

    def strength_at(self, epoch: float) -> float:
        """The share of the probabilities that holds so many epochs after the start: see `ramp_epochs`."""
        start, end = self.ramp_epochs
        return 1.0 if epoch >= end else max(0.0, (epoch - start) / (end - start))

    def __call__(
        self,
        samples: np.ndarray,
        rng: np.random.Generator,
        speech: SpeechSource | None = None,
        *,
        strength: float = 1.0,
    ) -> np.ndarray:
        """Augment one crop.

        Args:
            samples: `[samples] float32` in [-1, 1]; not changed.
            rng: makes every choice.
            speech: gives other speakers' speech, for babble; without it no babble is added.
            strength: factor of the probabilities, 0 to 1; the volume changes all the same.

        Returns:
            `[samples] float32` in [-1, 1], aligned with the input; scaled down, never clipped, if it would go
            beyond.
        """
        if rng.random() < strength * self.reverberation_probability:
            samples = reverberate(samples, self._rirs[rng.integers(len(self._rirs))])
        if rng.random() < strength * self.noise_probability:
            samples = self._add_noise(samples, rng, speech)
        if rng.random() < strength * self.telephone_probability:
            samples = telephone(samples, rng, self.sample_rate)
        if self.reverse_probability and rng.random() < self.reverse_probability:  # no draw: old runs stay the same
            samples = samples[::-1]
        gain = 10 ** (rng.uniform(*self.volume_db) / 20)
        peak = float(np.abs(samples).max(initial=0)) * gain
        return samples * np.float32(gain / max(peak, 1.0))

    def _add_noise(self, samples: np.ndarray, rng: np.random.Generator, speech: SpeechSource | None) -> np.ndarray:
        weights = self._kinds if speech is not None else self._kinds * (1, 1, 0)
        if not weights.any():
            return samples
        draw = rng.random() * weights.sum()
        kind = _NOISE_KINDS[int(np.searchsorted(np.cumsum(weights), draw, side="right"))]
        snr = rng.uniform(*(self.babble_snr if kind == "babble" else self.noise_snr))
        if kind == "files":
            noise = self._noise_segment(rng, len(samples))
        elif kind == "coloured":
            noise = self._coloured_segment(rng, len(samples))
        else:
            assert speech is not None
            noise = self._babble(rng, len(samples), speech)
        return mix(samples, noise, snr)

    def _noise_segment(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """A random piece of a random noise recording; of the next one that can be read, if it cannot be."""
        first, place = int(rng.integers(len(self._noise_seconds))), rng.random()
        for step in range(len(self._noise_seconds)):
            number = (first + step) % len(self._noise_seconds)
            spare = int(self._noise_seconds[number] * self.sample_rate) - count
            try:
                return fit_length(self._noise.read(number, int(place * max(spare, 0)), count), count)
            except AudioError:
                continue
        raise CorpusError("noise", "none of the noise recordings can be read any more")

    def _coloured_segment(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """A random piece of periodic noise, which therefore has no seam where it is repeated."""
        colour = self._colours[rng.integers(len(self._colours))]
        start = int(rng.integers(len(colour)))
        piece = colour[start : start + count]
        return piece if len(piece) == count else fit_length(np.concatenate([piece, colour]), count)

    def _babble(self, rng: np.random.Generator, count: int, speech: SpeechSource) -> np.ndarray:
        babble = np.zeros(count, np.float32)
        fewest, most = self.babble_speakers
        for _ in range(rng.integers(int(fewest), int(most) + 1)):
            voice = speech(rng, count)
            if voice is not None and (level := speech_level(voice)) > 0:
                babble += voice / np.float32(level)
        return babble

    def _open_noise(self, paths: list[Path], cache_gb: float) -> AudioStore:
        readable, seconds = [], []
        for path in paths:
            try:
                seconds.append(audio_info(path).duration)
                readable.append(path)
            except AudioError as error:
                self._failures[path] = error.found
        if not readable:
            raise CorpusError(paths[0], f"none of {len(paths)} noise recordings can be read")
        self._noise_seconds = np.array(seconds)
        return AudioStore(readable, seconds, cache_gb=cache_gb, sample_rate=self.sample_rate)

    def _read_rirs(self, paths: list[Path], rng: np.random.Generator) -> list[np.ndarray]:
        rirs = []
        for number in rng.permutation(len(paths)):
            try:
                samples = read_audio(paths[number], sample_rate=self.sample_rate, duration=2.0).samples
                if not samples.any():
                    raise AudioError(paths[number], "silence", "an impulse response")
                rirs.append(trim_rir(samples))
            except AudioError as error:
                self._failures[paths[number]] = error.found
            if len(rirs) == _MAX_RIRS:
                break
        if not rirs:
            raise CorpusError(paths[0], f"none of {len(paths)} impulse responses can be read")
        return rirs


def _list_places(places: Sequence[str | Path], name: str) -> list[Path]:
    """The files among `places`, and the recordings in the folders among them, in order.

    Raises:
        CorpusError: a place is missing, or a folder holds no recordings.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if place.is_file():
            found.append(place)
        elif place.is_dir():
            inside = list_recordings(place)
            if not inside:
                raise CorpusError(place, f"no recordings in this folder, given as {name}")
            found += inside
        else:
            raise CorpusError(place, "no such file or folder", f"recordings to use as {name}")
    return found


def _kind_weights(kinds: Mapping[str, float], *, has_files: bool) -> np.ndarray:
    if unknown := [kind for kind in kinds if kind not in _NOISE_KINDS]:
        raise ConfigError("noise_kinds", f"unknown kind {unknown[0]!r}", f"of {', '.join(_NOISE_KINDS)}")
    weights = np.array([float(kinds.get(kind, 0)) for kind in _NOISE_KINDS])
    if not (weights >= 0).all() or not weights.any():
        raise ConfigError("noise_kinds", f"weights {dict(kinds)}", "none below 0 and at least one above")
    if weights[0] and not has_files:
        raise ConfigError("noise_kinds", "kind 'files' without recordings", "a folder given as noise")
    return weights


def _probability(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ConfigError(name, f"{value}", "a number from 0 to 1")
    return value


def _range(name: str, value: Range, least: float = -200, most: float = 200) -> Range:
    low, high = value
    if not least <= low <= high <= most:
        raise ConfigError(name, f"{low} to {high}", f"two numbers in ascending order, from {least} to {most}")
    return low, high
