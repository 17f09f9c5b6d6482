"""Train on several corpora at once: whose speakers are whose, and how often each corpus is drawn.

A crop of an epoch stays a function of seed, epoch and number: the shares of the corpora are weights of their speakers,
which is all that `voxnest.crops.dataset.CropDataset` draws by. So a run continues exactly, and with any number of
processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.corpora.manifest import Utterance, is_manifest, read_manifest

if TYPE_CHECKING:
    from voxnest.training.config import Corpus


@dataclass(frozen=True)
class Part:
    """One of the corpora that are trained on.

    Attributes:
        name: that its speakers get in front of their own; empty where it is the only one.
        source: a manifest folder or a folder of recordings.
        manifest: where the manifest is or will be.
        weight: its share of the crops is its part of all weights.
    """

    name: str
    source: Path
    manifest: Path
    weight: float

    def read(self) -> list[Utterance]:
        """Its utterances, with speakers and ids that no other corpus has.

        Raises:
            CorpusError: see `read_manifest`.
        """
        found = read_manifest(self.manifest)
        if not self.name:
            return found
        return [replace(item, id=f"{self.name}/{item.id}", speaker=f"{self.name}/{item.speaker}") for item in found]

    def has(self, speaker: str) -> bool:
        """Whether a speaker, as `read` names them, is of this corpus."""
        return not self.name or speaker.startswith(f"{self.name}/")


def find_parts(train: Path | Sequence[Corpus], folder: Path) -> list[Part]:
    """The corpora of a configuration.

    Args:
        train: of the configuration: a folder, or several with weights.
        folder: of the run, where manifests of folders of recordings go.
    """
    if isinstance(train, Path):
        return [Part("", train, train if is_manifest(train) else folder / "manifest", 1.0)]
    parts: list[Part] = []
    for corpus in train:
        name = corpus.path.resolve().name.replace("/", "-") or "corpus"
        taken = {part.name for part in parts}
        same = sum(other == name or other.startswith(f"{name}~") for other in taken)
        name = f"{name}~{same + 1}" if same else name
        manifest = corpus.path if is_manifest(corpus.path) else folder / "manifests" / name
        parts.append(Part(name, corpus.path, manifest, corpus.weight))
    return parts


def place_of(train: Path | Sequence[Corpus]) -> str:
    """What errors call the training data."""
    return str(train) if isinstance(train, Path) else " + ".join(str(corpus.path) for corpus in train)


def emphasis(parts: Sequence[Part], utterances: Sequence[Utterance], balance: float) -> dict[str, float]:
    """How much more often than `balance` says each speaker is drawn, so that corpora get their shares.

    Args:
        parts: the corpora.
        utterances: that are trained on.
        balance: see `CropDataset`.

    Returns:
        Speaker -> factor; empty for one corpus.
    """
    if len(parts) == 1:
        return {}
    seconds: dict[str, float] = {}
    for utterance in utterances:
        seconds[utterance.speaker] = seconds.get(utterance.speaker, 0.0) + utterance.duration
    factors: dict[str, float] = {}
    for part in parts:
        own = [speaker for speaker in seconds if part.has(speaker)]
        total = sum(seconds[speaker] ** (1 - balance) for speaker in own)
        factors |= dict.fromkeys(own, part.weight / total if own else 0.0)
    return factors


def describe(parts: Sequence[Part], utterances: Sequence[Utterance]) -> dict[str, str]:
    """The corpora in numbers, for the start of a run: name -> speakers, utterances, hours, share of the crops."""
    weights = sum(part.weight for part in parts)
    rows: dict[str, str] = {}
    for part in parts:
        own = [item for item in utterances if part.has(item.speaker)]
        speakers, hours = len({item.speaker for item in own}), sum(item.duration for item in own) / 3600
        share = f"{part.weight / weights:.0%} of the crops"
        rows[part.name] = f"{speakers:,} speakers · {len(own):,} utterances · {hours:.1f} h · {share}"
    return rows
