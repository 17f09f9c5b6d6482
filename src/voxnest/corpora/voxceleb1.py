"""VoxCeleb1 as its authors give it away, and the parts of their two protocols.

A folder with `dev/wav` and `test/wav` (`<speaker>/<video>/<utterance>.wav`), `vox1_meta.csv` (tab-separated; id, name,
gender, nationality, set), `iden_split.txt` (`1|2|3 <speaker>/<video>/<utterance>.wav`: training, validation, test of
identification) and `veri_test.txt` (`1|0 <recording> <recording>`, below test/wav).

Source: https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html; Nagrani et al. (arXiv 1706.08612).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from voxnest.corpora.layouts import Corpus
from voxnest.corpora.lists import Entry
from voxnest.corpora.trials import read_trials
from voxnest.errors import CorpusError

SPLIT, TRIALS, META = "iden_split.txt", "veri_test.txt", "vox1_meta.csv"
_SPEAKERS, _TRIALS = 1251, 37720
_OFFICIAL = {
    "identification/train": (_SPEAKERS, 138361),
    "identification/validation": (_SPEAKERS, 6904),
    "identification/test": (_SPEAKERS, 8251),
    "verification/dev": (1211, 148642),
    "verification/test": (40, 4874),
}
"""Speakers and utterances of each part."""
PARTS = tuple(_OFFICIAL)
"""Folders of the manifests; the first three in the order of the numbers of `SPLIT`."""
_WHERE = "VoxCeleb1's list, from https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"


@dataclass(frozen=True)
class Count:
    """How many of something there are, and how many there officially are."""

    what: str
    found: int
    official: int


@dataclass(frozen=True)
class VoxCeleb1:
    """The lists of a VoxCeleb1 folder.

    Attributes:
        split: `<speaker>/<video>/<utterance>.wav` -> 1, 2 or 3.
        trials: the recordings that each trial compares.
        speakers: by `vox1_meta.csv`.
    """

    split: dict[str, int]
    trials: list[tuple[str, str]]
    speakers: set[str]

    def parts(self, corpus: Corpus) -> dict[str, Corpus]:
        """The entries of each of `PARTS`. One without any is left out."""
        places: dict[str, list[Entry]] = {name: [] for name in PARTS}
        for entry in corpus:
            side, name = place_of(entry)
            places[f"verification/{side}"].append(entry)
            if name in self.split:
                places[PARTS[self.split[name] - 1]].append(entry)
        return {name: _corpus(corpus, entries) for name, entries in places.items() if entries}

    def counts(self, parts: dict[str, list[str]], trials: int) -> list[Count]:
        """What there is beside what there officially is.

        Args:
            parts: the speaker of each utterance of a part that can be read.
            trials: that can be scored.
        """
        found = []
        for name, (speakers, utterances) in _OFFICIAL.items():
            there = parts.get(name, [])
            found += [Count(f"{name}: speakers", len(set(there)), speakers)]
            found += [Count(f"{name}: utterances", len(there), utterances)]
        return [*found, Count("verification/test: trials", trials, _TRIALS)]

    def missing(self, there: set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """(list, name) of what a list names and is not `there`, of (dev or test, name) of what can be read.

        And what is there, though no list names it.
        """
        names, spoken = {name for _, name in there}, {name.split("/")[0] for _, name in there}
        yield from ((META, speaker) for speaker in sorted(self.speakers - spoken))
        yield from ((SPLIT, name) for name in self.split if name not in names)
        tested = {name for trial in self.trials for name in trial}
        yield from ((TRIALS, name) for name in sorted(tested) if ("test", name) not in there)
        yield from (("in no list", f"{side}/wav/{name}") for side, name in sorted(there) if name not in self.split)

    def scorable(self, there: set[tuple[str, str]]) -> int:
        """How many trials have both recordings."""
        return sum(all(("test", name) in there for name in trial) for trial in self.trials)


def place_of(entry: Entry) -> tuple[str, str]:
    """(dev or test, `<speaker>/<video>/<utterance>.wav`), by which the lists know a recording of any suffix."""
    side, _, name = entry.id.split("/", 2)
    return side, f"{name}.wav"


def _corpus(corpus: Corpus, entries: list[Entry]) -> Corpus:
    return replace(corpus, size=len(entries), entries=lambda: iter(entries), unlisted=())


def read_lists(root: Path) -> VoxCeleb1:
    """Read the official lists.

    Raises:
        CorpusError: one is missing, or a line of it is malformed (with its number).
        TrialError: the same of the trials.
    """
    for name in (SPLIT, TRIALS, META):
        if not (root / name).is_file():
            raise CorpusError(root / name, "missing", _WHERE)
    split: dict[str, int] = {}
    for number, line in _lines(root / SPLIT):
        fields = line.split()
        if len(fields) != 2 or fields[0] not in ("1", "2", "3") or fields[1].count("/") != 2:
            expected = "1, 2 or 3, then speaker/video/utterance.wav"
            raise CorpusError(f"{root / SPLIT}:{number}", repr(line[:80]), expected)
        if split.setdefault(fields[1], int(fields[0])) != int(fields[0]):
            raise CorpusError(f"{root / SPLIT}:{number}", f"{fields[1]} again, in another part", "each once")
    speakers = set()
    for number, line in _lines(root / META):
        if number > 1:
            fields = line.split("\t")
            if len(fields) != 5:
                raise CorpusError(f"{root / META}:{number}", f"{len(fields)} columns", "5, with tabs between them")
            speakers.add(fields[0].strip())
    trials = [(trial.enrollment, trial.test) for trial in read_trials(root / TRIALS)]
    return VoxCeleb1(split, trials, speakers)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(path, f"cannot be read: {error}", _WHERE) from error
    yield from ((number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip())
