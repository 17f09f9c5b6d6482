"""Trials: pairs of recordings, and whether the same person speaks in both."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from voxnest.errors import CorpusError, TrialError
from voxnest.files import atomic_write

if TYPE_CHECKING:
    from voxnest.corpora.manifest import Utterance

FORMATS = "'1|0 enrollment test' (VoxCeleb) or 'enrollment test target|nontarget' (Kaldi)"
VOXCELEB = {"1": True, "0": False}
KALDI = {"target": True, "nontarget": False}
SUBFOLDERS = ("wav", "test", "test/wav", "dev", "dev/wav")


class Trial(NamedTuple):
    """One comparison: is the speaker of `enrollment` also the speaker of `test`?

    Attributes:
        label: True for a target trial (same speaker), False for a non-target.
        enrollment: path of the enrollment recording, relative to the corpus.
        test: path of the test recording, relative to the corpus.
    """

    label: bool
    enrollment: str
    test: str


@dataclass(frozen=True)
class IndexedTrials:
    """Trials as arrays, ready for scoring.

    Attributes:
        names: every recording once.
        enrollment: [trials] positions in `names`.
        test: [trials] positions in `names`.
        labels: [trials] True for target trials.
    """

    names: list[str]
    enrollment: NDArray[np.int64]
    test: NDArray[np.int64]
    labels: NDArray[np.bool_]


def read_trials(path: str | Path) -> list[Trial]:
    """Read a trial list: `1|0 enrollment test` (VoxCeleb) or `enrollment test target|nontarget` (Kaldi).

    The first line decides which of the two it is. Blank lines, tabs, a byte order mark and Windows line ends are
    accepted; comments are not, for a name may begin with anything. Names are paths taken as they are: absolute or
    relative, `..` means what it means to the system, and `~` is a letter. They cannot hold spaces. The list may be a
    pipe; it is then waited for.

    Raises:
        TrialError: a list that is missing, empty or not text, or a line that does not fit (with its number).
    """
    trials = [Trial(label, *names) for _, label, *names in stream_trials(path) if label is not None]
    if not trials:
        raise TrialError(path, "no trials", f"lines of {FORMATS}")
    return trials


def stream_trials(path: str | Path, *, pairs: bool = False) -> Iterator[tuple[int, bool | None, str, str]]:
    """Read a trial list as `read_trials` does, but one line at a time: line number, label, enrollment, test.

    Args:
        path: of the list.
        pairs: take lists without labels too, `enrollment test`; their labels are None.

    Raises:
        TrialError: as `read_trials`, but for an empty list.
    """
    labels: dict[str, bool] | None = None
    place = 0
    for number, line, fields in filled_lines(path):
        if labels is None:
            labels, place = (KALDI, -1) if fields[-1] in KALDI else (VOXCELEB, 0)
            if pairs and len(fields) == 2:
                labels = {}
        label = labels.get(fields.pop(place)) if labels and len(fields) == 3 else None
        if len(fields) != 2 or (labels and label is None):
            expected = f"{FORMATS}{' or a pair' if pairs else ''}, of names without spaces"
            raise TrialError(f"{path}:{number}", repr(shorten(line.strip())), expected)
        yield number, label, fields[0], fields[1]


def find_speakers(indexed: IndexedTrials) -> NDArray[np.int64]:
    """A number for the speaker of each recording: those that target trials link, however indirectly, are of one.

    A list that links not all recordings of a speaker makes several speakers of one.
    """
    speakers = np.arange(len(indexed.names))
    first, second = indexed.enrollment[indexed.labels], indexed.test[indexed.labels]
    while True:  # the lowest number spreads along the links
        lowest = np.minimum(speakers[first], speakers[second])
        before = speakers.copy()
        np.minimum.at(speakers, first, lowest)
        np.minimum.at(speakers, second, lowest)
        speakers = speakers[speakers]
        if np.array_equal(before, speakers):
            return speakers


def write_trials(trials: Iterable[Trial], path: str | Path) -> None:
    """Write a trial list, one `1|0 enrollment test` per line, as VoxCeleb's are.

    Raises:
        TrialError: a recording whose path has spaces, which this format cannot hold.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for trial in trials:
            for name in (trial.enrollment, trial.test):
                if name.split() != [name]:
                    raise TrialError(path, f"the path {name!r} cannot be written", "a path without spaces")
            file.write(f"{int(trial.label)} {trial.enrollment} {trial.test}\n")


def make_trials(
    utterances: Sequence[Utterance],
    *,
    max_targets_per_speaker: int = 500,
    nontargets_per_target: float = 10.0,
    seed: int = 0,
) -> list[Trial]:
    """Make trials of held-out speakers: pairs of one speaker, and pairs of different ones drawn at random.

    The same utterances, in any order, and the same seed give the same trials.

    Args:
        utterances: whole recordings of at least two speakers; a trial names them by `str(utterance.path)`.
        max_targets_per_speaker: from a speaker with more pairs of utterances, this many are drawn.
        nontargets_per_target: pairs of different speakers for each pair of the same; all, where there are
            fewer.
        seed: of the drawing.

    Returns:
        The target trials, then the non-target trials.

    Raises:
        CorpusError: no utterances, one speaker only, no speaker with two utterances, or one recording cut
            into several utterances.
    """
    ordered = sorted(utterances, key=lambda utterance: (utterance.speaker, str(utterance.path)))
    names = [str(utterance.path) for utterance in ordered]
    speakers, sizes = np.unique([utterance.speaker for utterance in ordered], return_counts=True)
    if len(speakers) < 2:
        found = f"only one speaker, {ordered[0].speaker!r}" if ordered else "no utterances"
        raise CorpusError("utterances for trials", found, "two or more speakers")
    if len(set(names)) < len(names):
        repeated = next(first for first, second in itertools.pairwise(sorted(names)) if first == second)
        raise CorpusError(repeated, "holds several utterances", "one, because a trial names whole recordings")
    if sizes.max() == 1:
        raise CorpusError("utterances for trials", "no speaker has two", "two or more of at least one speaker")

    random = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    targets = np.concatenate(
        [
            end - size + _draw_pairs(np.arange(1, size + 1), max_targets_per_speaker, random)
            for size, end in zip(sizes, ends, strict=True)
        ]
    )
    nontargets = _draw_pairs(np.repeat(ends, sizes), round(len(targets) * nontargets_per_target), random)
    return [
        Trial(label, names[first], names[second])
        for label, pairs in ((True, targets), (False, nontargets))
        for first, second in pairs
    ]


def index_trials(trials: Sequence[Trial]) -> IndexedTrials:
    """Give every recording of the trials a number, and the trials as arrays of these."""
    positions: dict[str, int] = {}
    enrollment = [positions.setdefault(trial.enrollment, len(positions)) for trial in trials]
    test = [positions.setdefault(trial.test, len(positions)) for trial in trials]
    return IndexedTrials(
        names=list(positions),
        enrollment=np.array(enrollment, dtype=np.int64),
        test=np.array(test, dtype=np.int64),
        labels=np.array([trial.label for trial in trials], dtype=bool),
    )


def locate_recordings(trials: IndexedTrials, root: str | Path) -> IndexedTrials:
    """The same trials with paths under `root` as names, each once: `a.wav`, `./a.wav` and `ROOT/a.wav` become one."""
    positions: dict[str, int] = {}
    merged = np.array([positions.setdefault(str(Path(root, name)), len(positions)) for name in trials.names])
    return IndexedTrials(list(positions), merged[trials.enrollment], merged[trials.test], trials.labels)


def find_root(path: str | Path, trials: Sequence[Trial]) -> Path:
    """Find the folder that the paths in a trial list are relative to: its own, or `wav` or `test` in that.

    The first relative path decides; where there is none, it is the list's own.

    Raises:
        TrialError: the recording of that path is in none of these, or in more than one.
    """
    folder = Path(path).parent
    candidates = [folder, *(folder / name for name in SUBFOLDERS)]
    name = next((name for name in _names(trials) if not os.path.isabs(name)), None)
    if name is None:
        return folder
    found = [candidate for candidate in candidates if os.path.isfile(candidate / name)]
    if len(found) == 1:
        return found[0]
    problem = "is in none of" if not found else "is in each of"
    where = ", ".join(str(candidate) for candidate in found or candidates)
    raise TrialError(path, f"{shorten(name)} {problem} {where}", "the folder of the recordings as --root")


def check_recordings(trials: Sequence[Trial], root: str | Path, source: str | Path | None = None) -> None:
    """Make sure that every recording of the trials is there, before hours are spent on the others.

    Args:
        trials: what names the recordings.
        root: the folder that the names are relative to, but for those that are absolute.
        source: the list that the trials were read from, to name the line at fault.

    Raises:
        TrialError: names the first missing recording and its trial, and counts the missing.
    """
    names = dict.fromkeys(_names(trials))
    missing = [name for name in names if not os.path.isfile(os.path.join(root, name))]
    if not missing:
        return
    number = next(n for n, trial in enumerate(trials, start=1) if missing[0] in trial[1:])
    others = f"; {len(missing)} of {len(names)} recordings are missing" if len(missing) > 1 else ""
    found = f"{shorten(str(Path(root, missing[0])), 300)} is not there{others}"
    raise TrialError(_where(number, source), found, "every recording of the trials under the root")


def _names(trials: Iterable[Trial]) -> Iterator[str]:
    """Both recordings of each trial."""
    return itertools.chain.from_iterable(trial[1:] for trial in trials)


def filled_lines(path: str | Path) -> Iterator[tuple[int, str, list[str]]]:
    """Number, text and fields (four at most, the last with all the rest) of each line that is not blank.

    Raises:
        TrialError: it cannot be read, or is not text.
    """
    number = 0
    try:
        with Path(path).open("rb") as file:
            if b"\0" in file.peek():  # of /dev/zero, not even the first line ends
                raise TrialError(path, "not a text file", f"UTF-8 text, lines of {FORMATS}")
            for number, raw in enumerate(file, start=1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if "\0" in line:
                    raise TrialError(f"{path}:{number}", "not a line of text", FORMATS)
                fields = line.rstrip().split(maxsplit=3)
                if fields:
                    yield number, line, fields
    except OSError as error:
        raise TrialError(path, f"cannot be read: {error.strerror}", "a trial list") from error
    except UnicodeDecodeError as error:
        raise TrialError(f"{path}:{number}", "not UTF-8 text", FORMATS) from error


def _where(number: int, source: str | Path | None) -> str:
    """Name the trial with this number, counting from one, by its line if there is a file to count in."""
    if source is None or not Path(source).is_file():  # what came through a pipe is gone
        return f"{source}: trial {number}" if source else f"trial {number}"
    lines = (line for line, _, _ in filled_lines(source))
    return f"{source}:{next(itertools.islice(lines, number - 1, None))}"


def _draw_pairs(partners: NDArray[np.int64], wanted: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw `wanted` distinct pairs (i, j) of n things, ascending; all pairs where there are not more.

    `partners` [n] tells where the things that i can be paired with begin: j runs from partners[i] to n - 1.
    Pairs are drawn by their rank, so that they need not all be made.
    """
    counts = len(partners) - partners
    ends = np.cumsum(counts)
    total = int(ends[-1])
    ranks = np.arange(total) if total <= wanted else np.sort(random.choice(total, wanted, replace=False, shuffle=False))
    first = np.searchsorted(ends, ranks, side="right")
    second = partners[first] + ranks - (ends - counts)[first]
    return np.stack([first, second], axis=1)


def shorten(text: str, limit: int = 80) -> str:
    """The beginning of a text that a message quotes."""
    return text if len(text) <= limit else f"{text[:limit]}..."
