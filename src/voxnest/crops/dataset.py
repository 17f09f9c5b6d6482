"""Training crops: which piece of which utterance is crop `i` of an epoch. (Batches: `loading`.)"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soxr
import torch
from torch.utils.data import Dataset

from voxnest.corpora.manifest import Utterance
from voxnest.crops.augmentation import Augmentation
from voxnest.crops.store import AudioStore, fit_length
from voxnest.errors import AudioError, ConfigError, CorpusError

_BABBLE_POOL = 256
_PLAN, _CROP, _POOL, _LENGTHS = 0, 1, 2, 3  # what a random generator is for: part of its seed


class Crop(NamedTuple):
    """One training example: `waveform [samples] float32`, its class, and the number of its utterance."""

    waveform: np.ndarray
    label: int
    utterance: int


@dataclass(frozen=True)
class CropRequest:
    """Crops that a loader wants; with all that may change between epochs, so that workers can persist."""

    epoch: int
    duration: float
    positions: np.ndarray
    classes: np.ndarray


class CropDataset(Dataset[Crop]):
    """Random crops of utterances. Crop `i` depends on nothing but (seed, epoch, i) and the arguments.

    An epoch takes every class (speaker at a speed) equally often, up to one crop, in proportion to its
    weight, and spreads the crops of a class evenly over the epoch. A file that cannot be read is noted in
    `failures`, and another utterance of the speaker, or of another speaker when there is none, takes its
    place.

    Args:
        utterances: what to crop from.
        duration: of a crop, in seconds; settable between epochs. Shorter utterances are repeated.
        speeds: factors of playing speed. Each makes new speakers of all speakers: the label of a crop is
            `speaker index + number of speakers * speed index` (as in the speed perturbation of VoxCeleb
            recipes).
        augmentation: applied to every crop.
        crops_per_epoch: by default as many as cover all speech once.
        balance: how often a speaker is drawn: 1 makes speakers equally likely, 0 seconds of speech, with the
            probability of a speaker ~ (seconds of speech) ** (1 - balance) in between.
        emphasis: speaker -> factor of that probability; 1 for who is not named.
        cache_gb: decoded recordings are kept in memory when all fit into this many 1e9 bytes (one hour takes
            0.115).
        sample_rate: of the crops, in Hz.
        seed: of all that is random.

    Attributes:
        durations: seconds -> share of the batches whose crops are so long, in place of `duration`; settable between
            epochs. Only batches (`voxnest.crops.loading`) know it.

    Raises:
        CorpusError: no utterances, or one without a duration.
        ConfigError: an argument is out of its range.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        *,
        duration: float = 2.0,
        speeds: Sequence[float] = (1.0,),
        augmentation: Augmentation | None = None,
        crops_per_epoch: int | None = None,
        balance: float = 1.0,
        emphasis: Mapping[str, float] | None = None,
        cache_gb: float = 2.0,
        sample_rate: int = 16000,
        seed: int = 0,
    ) -> None:
        if not utterances:
            raise CorpusError("training crops", "no utterances", "at least one")
        _check("speeds", speeds, bool(speeds) and all(0.25 <= speed <= 4 for speed in speeds), "from 0.25 to 4")
        _check("speeds", speeds, len(set(speeds)) == len(speeds), "different speeds: each makes its own speakers")
        _check("balance", balance, 0 <= balance <= 1, "from 0 to 1")
        _check("cache_gb", cache_gb, cache_gb >= 0, "0 or more")
        _check("seed", seed, seed >= 0, "0 or more")
        self.duration, self.speeds, self.augmentation = duration, tuple(speeds), augmentation
        self.durations: Mapping[float, float] = {}
        self.sample_rate, self.seed, self.epoch = sample_rate, seed, 0

        seconds = np.array([utterance.duration for utterance in utterances], np.float64)
        if not (seconds > 0).all():
            bad = utterances[int(np.argmin(seconds > 0))]
            raise CorpusError(bad.path, f"utterance {bad.id} lasts {bad.duration} s", "a duration above 0")
        self._describe(utterances, seconds)

        pool_rng = np.random.default_rng((seed, _POOL))
        self._pool = pool_rng.permutation(len(utterances))[:_BABBLE_POOL]
        numbers: dict[Path, int] = {}
        self._recording = np.array([numbers.setdefault(u.path, len(numbers)) for u in utterances], np.int64)
        needed = np.zeros(len(numbers))
        np.maximum.at(needed, self._recording, (self._start + self._length) / sample_rate)
        favoured = np.unique(self._recording[self._pool])
        self._store = AudioStore(numbers, needed, cache_gb=cache_gb, favoured=favoured, sample_rate=sample_rate)

        weights = self._speaker_seconds ** (1 - balance)
        weights *= [(emphasis or {}).get(speaker, 1.0) for speaker in self.speakers]
        self._weights = np.tile(weights, len(speeds))
        if crops_per_epoch is None:
            crops_per_epoch = max(1, round(seconds.sum() / duration))
        _check("crops_per_epoch", crops_per_epoch, crops_per_epoch > 0, "1 or more")
        self.crops_per_epoch = crops_per_epoch
        self._planned: tuple[int, np.ndarray] | None = None

    def _describe(self, utterances: Sequence[Utterance], seconds: np.ndarray) -> None:
        """Keep what is needed of the utterances in arrays: millions of them, shared by worker processes."""
        self.speakers = sorted({utterance.speaker for utterance in utterances})
        index = {speaker: number for number, speaker in enumerate(self.speakers)}
        self._speaker = np.array([index[utterance.speaker] for utterance in utterances], np.int64)
        self._length = np.maximum(1, np.rint(seconds * self.sample_rate)).astype(np.int64)
        offsets = np.array([utterance.offset for utterance in utterances], np.float64)
        self._start = np.rint(offsets * self.sample_rate).astype(np.int64)
        self._by_speaker = np.argsort(self._speaker, kind="stable")
        self._first = np.searchsorted(self._speaker[self._by_speaker], np.arange(len(self.speakers) + 1))
        self._seconds_before = np.concatenate([[0], np.cumsum(seconds[self._by_speaker])])
        self._speaker_seconds = np.diff(self._seconds_before[self._first])

    @property
    def duration(self) -> float:
        """Of a crop, in seconds."""
        return self._duration

    @duration.setter
    def duration(self, value: float) -> None:
        _check("duration", value, 0.01 <= value < float("inf"), "seconds, 0.01 or more")
        self._duration = value

    @property
    def num_classes(self) -> int:
        """Number of labels: speakers times speeds."""
        return len(self.speakers) * len(self.speeds)

    @property
    def plain_speed(self) -> int:
        """Which of the speeds is that of the recordings; the first where none is."""
        return self.speeds.index(1.0) if 1.0 in self.speeds else 0

    @property
    def failures(self) -> dict[Path, str]:
        """Files skipped so far and why; those of workers once their batch has arrived."""
        extra = self.augmentation.failures if self.augmentation else {}
        return self._store.failures | extra

    def note_failures(self, failures: Mapping[Path, str]) -> None:
        """Take over what a worker process could not read."""
        self._store.failures.update(failures)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that is drawn next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.crops_per_epoch

    def __getitem__(self, i: int) -> Crop:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self._crop(self.epoch, i, int(self.plan()[i]), self.duration)

    def plan(self) -> np.ndarray:
        """The class of every crop of the current epoch, `[crops_per_epoch] int32`."""
        if self._planned is None or self._planned[0] != self.epoch:
            rng = np.random.default_rng((self.seed, _PLAN, self.epoch))
            self._planned = self.epoch, stratified_order(self._weights, len(self), rng)
        return self._planned[1]

    def durations_of(self, batches: int) -> list[float]:
        """The seconds of the crops of each batch of the current epoch, of so many: its share to each, evenly spread."""
        if not self.durations:
            return [self.duration] * batches
        rng = np.random.default_rng((self.seed, _LENGTHS, self.epoch))
        lengths = list(self.durations)
        shares = np.array([self.durations[seconds] for seconds in lengths])
        return [lengths[number] for number in stratified_order(shares, batches, rng)]

    def read(self, request: CropRequest) -> dict[str, torch.Tensor]:
        """The crops of a request as one batch: `waveform`, `label` and `utterance`."""
        waveform = np.empty((len(request.positions), *self._shape(request.duration)), np.float32)
        numbers = np.empty((2, len(waveform)), np.int64)
        for row, (position, label) in enumerate(zip(request.positions, request.classes, strict=True)):
            crop = self._crop(request.epoch, int(position), int(label), request.duration)
            waveform[row], numbers[0, row], numbers[1, row] = crop
        names = ("waveform", "label", "utterance")
        return dict(zip(names, map(torch.from_numpy, (waveform, *numbers)), strict=True))

    def of_each_class(
        self, count: int, batch_size: int, part: int = 0, parts: int = 1
    ) -> Iterator[dict[str, torch.Tensor]]:
        """Batches of `count` crops of class 0, as many of class 1, and so on; about `batch_size` in each batch.

        Of `parts` that have every `parts`-th batch each, the one of that number.
        """
        step = max(1, batch_size // count)
        for first in range(part * step, self.num_classes, parts * step):
            classes = np.arange(first, min(first + step, self.num_classes)).repeat(count)
            positions = np.arange(first * count, first * count + len(classes))
            yield self.read(CropRequest(0, self.duration, positions, classes))

    def _shape(self, duration: float) -> tuple[int, ...]:
        """Of a crop."""
        return (round(duration * self.sample_rate),)

    def _generator(self, epoch: int, position: int) -> np.random.Generator:
        """Of all that is random in a crop."""
        return np.random.default_rng((self.seed, _CROP, epoch, position))

    def _crop(self, epoch: int, position: int, label: int, duration: float) -> Crop:
        rng = self._generator(epoch, position)
        speed_index, speaker = divmod(label, len(self.speakers))
        speed = self.speeds[speed_index]
        count = round(duration * self.sample_rate)
        needed = count if speed == 1 else int(np.ceil((count + 1) * speed))
        place = rng.random()
        for utterance in self._candidates(speaker, rng):
            try:
                samples = self._read(utterance, place, needed)
                break
            except AudioError:
                continue
        else:
            count = len(self._recording)
            raise CorpusError("training crops", f"none of the {count} utterances can be read", "recordings")
        speaker = int(self._speaker[utterance])
        if speed != 1:
            samples = fit_length(soxr.resample(samples, speed, 1.0), count)
        if self.augmentation is not None:
            strength = self.augmentation.strength_at(epoch + position / len(self))
            samples = self.augmentation(samples, rng, self._other_speech(speaker), strength=strength)
        return Crop(samples, speaker + len(self.speakers) * speed_index, utterance)

    def _candidates(self, speaker: int, rng: np.random.Generator) -> Iterator[int]:
        """One of `speaker`, drawn by length; if that fails, the speaker's others, then all others."""
        start, end = self._first[speaker], self._first[speaker + 1]
        low, high = self._seconds_before[start], self._seconds_before[end]
        drawn = np.searchsorted(self._seconds_before, rng.uniform(low, high), side="right") - 1
        first = int(self._by_speaker[min(max(drawn, start), end - 1)])
        yield first
        own = rng.permutation(self._by_speaker[start:end])
        yield from (int(number) for number in own if number != first)
        others = rng.permutation(np.concatenate([self._by_speaker[:start], self._by_speaker[end:]]))
        yield from map(int, others)

    def _read(self, utterance: int, place: float, count: int) -> np.ndarray:
        """`count` samples of an utterance, at `place` (0: its start, 1: its end) if it is longer."""
        length = int(self._length[utterance])
        start = int(place * max(length - count + 1, 0))
        samples = self._store.read(
            int(self._recording[utterance]), int(self._start[utterance]) + start, min(count, length)
        )
        return fit_length(samples, count)

    def _other_speech(self, speaker: int) -> Callable[[np.random.Generator, int], np.ndarray | None]:
        """A source of other speakers' speech: 256 utterances that the cache holds before any others."""

        def speech(rng: np.random.Generator, count: int) -> np.ndarray | None:
            others = self._pool[self._speaker[self._pool] != speaker]
            if not len(others):
                return None
            start, place = int(rng.integers(len(others))), rng.random()
            for utterance in np.roll(others, -start):
                try:
                    return self._read(int(utterance), place, count)
                except AudioError:
                    continue
            return None

        return speech


def stratified_order(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` classes in random order, each class in its share (rounded up or down) and evenly spread.

    Args:
        weights: `[classes]`, not negative; shares are proportional to them.
        count: how many to draw.
        rng: chooses.

    Returns:
        `[count] int32` class numbers. With equal weights, any stretch as long as there are classes holds
        nearly all.
    """
    shuffled = rng.permutation(len(weights))
    shares = np.cumsum(weights[shuffled] / weights.sum()) * count
    shares[-1] = count
    # Systematic sampling; the tiny addition keeps exact shares exact in floating point.
    edges = np.floor(np.concatenate([[0], shares]) + rng.random() * (1 - 1e-6) + 5e-7).astype(np.int64)
    counts = np.diff(edges)
    times = np.arange(count) - np.repeat(np.cumsum(counts) - counts, counts)
    when = (times + rng.random(count)) / np.repeat(counts, counts)
    return np.repeat(shuffled, counts)[np.argsort(when)].astype(np.int32)


def _check(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(name, f"{value}", expected)
