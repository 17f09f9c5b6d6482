"""Error rates of encoders on one trial list, and ratios of them with intervals: shared by the benchmarks here."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from voxnest.audio import SAMPLE_RATE, audio_info, read_audio
from voxnest.corpora.manifest import Utterance
from voxnest.corpora.trials import find_root, find_speakers, index_trials, read_trials
from voxnest.crops.signals import telephone
from voxnest.evaluation import compute_eer, metric_replicates
from voxnest.inference.embedding import embed_spans
from voxnest.inference.pipeline import Span
from voxnest.models.encoder import SpeakerEncoder
from voxnest.scoring import score_indexed

DIMS = (8, 16, 32, 64, 128)
Rates = dict[int, tuple[float, np.ndarray]]
"""Size of prefix -> EER and its replicates."""


class Trials:
    """A trial list, and the error rates of encoders on it.

    Args:
        path: of the list.
        seconds: of each recording, from its middle; whole recordings if None.
    """

    def __init__(self, path: Path, seconds: float | None = None) -> None:
        listed = read_trials(path)
        self.indexed, root = index_trials(listed), find_root(path, listed)
        self.spans = {name: _middle(root / name, seconds) for name in self.indexed.names}
        speakers = find_speakers(self.indexed)
        self.sides = speakers[self.indexed.enrollment], speakers[self.indexed.test]

    def without_these_speakers(self, speech: Sequence[Utterance]) -> list[Utterance]:
        """Utterances of others. Folders of a run's held-out speakers are called NUMBER-SPEAKER."""
        own = {name.split("/")[0].partition("-")[2] for name in self.indexed.names}
        return [utterance for utterance in speech if utterance.speaker not in own]

    def rates(self, encoder: SpeakerEncoder) -> Rates:
        """EER of every prefix in `DIMS` that the encoder was made for or can be cut to, and of the whole embedding."""
        embeddings = embed_spans(encoder, self.spans)
        dims = [*(dim for dim in DIMS if dim < encoder.embedding_dim), encoder.embedding_dim]
        return self.rates_of(np.stack([embeddings[name] for name in self.indexed.names]), dims)

    def rates_of(self, matrix: np.ndarray, dims: Sequence[int]) -> Rates:
        """The same of embeddings `[recordings, dim]` of `indexed.names`, at these sizes."""
        labels = self.indexed.labels
        return {
            dim: (compute_eer(values, labels)[0], metric_replicates(values, labels, *self.sides))
            for dim, values in score_indexed(matrix, self.indexed, dims).items()
        }


def interval(found: tuple[float, np.ndarray]) -> tuple[float, float]:
    """Of an EER and its replicates, with a probability of 95%."""
    low, high = np.nanquantile(found[1], [0.025, 0.975])
    return float(low), float(high)


def _middle(path: Path, seconds: float | None) -> Span:
    if seconds is None:
        return Span(path)
    whole = audio_info(path).duration
    return Span(path, max(0.0, whole - seconds) / 2, min(seconds, whole))


def copy_by_telephone(source: Path, target: Path, parts: Sequence[str] = ("test",)) -> list[Path]:
    """A copy of a corpus as a telephone has it: 8 kHz, its band, mu-law in WAV files; see `copy_changed`."""
    rng = np.random.default_rng(0)
    return copy_changed(source, target, parts, 8000, lambda samples: telephone(samples, rng, 8000), "ULAW")


def copy_middles(source: Path, target: Path, parts: Sequence[str], seconds: float) -> list[Path]:
    """A copy of a corpus of which so many seconds are left, from the middle of each recording; see `copy_changed`."""
    size = round(seconds * SAMPLE_RATE)

    def middle(samples: np.ndarray) -> np.ndarray:
        return samples[max(0, len(samples) - size) // 2 :][:size]

    return copy_changed(source, target, parts, SAMPLE_RATE, middle)


def copy_changed(
    source: Path,
    target: Path,
    parts: Sequence[str],
    rate: int,
    change: Callable[[np.ndarray], np.ndarray],
    subtype: str = "PCM_16",
) -> list[Path]:
    """A copy of a corpus in WAV files, each of which was changed.

    Args:
        source: a folder with these parts, and trial lists (.txt) of recordings in them.
        target: for the copy. One that has lists is taken to be whole, and not made again.
        parts: folders of recordings.
        rate: of the copy, in Hz.
        change: `[samples]` at that rate to those of the copy.
        subtype: how samples are written.

    Returns:
        The copied lists.
    """
    lists = sorted(source.glob("*.txt"))
    if not all((target / path.name).exists() for path in lists):
        for path in sorted(path for part in parts for path in (source / part).rglob("*.*")):
            made = (target / path.relative_to(source)).with_suffix(".wav")
            made.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(made, change(read_audio(path, sample_rate=rate).samples), rate, subtype=subtype)
        for path in lists:
            (target / path.name).write_text(path.read_text().replace(".flac", ".wav").replace(".opus", ".wav"))
    return [target / path.name for path in lists]


def mean_rate(found: Sequence[Rates], dim: int) -> float:
    """Of several seeds."""
    return float(np.mean([rates[dim][0] for rates in found]))


def ratio(above: Sequence[Rates], dim: int, below: Sequence[Rates], other: int) -> str:
    """Ratio of mean error rates, at sizes `dim` and `other`, and its 95% interval over draws of the speakers."""
    drawn = (
        np.mean([rates[dim][1] for rates in above], axis=0),
        np.mean([rates[other][1] for rates in below], axis=0),
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        value, ratios = np.divide(mean_rate(above, dim), mean_rate(below, other)), np.divide(*drawn)
    low, high = np.nanquantile(ratios, [0.025, 0.975], method="inverted_cdf")  # some are infinite: of no errors
    return f"{value:.2f} ({low:.2f} to {high:.2f})"
