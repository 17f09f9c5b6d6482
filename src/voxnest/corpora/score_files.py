"""Score files: a line for each trial with its score, in the orders that others read and write."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxnest.corpora.trials import KALDI, VOXCELEB, IndexedTrials, filled_lines, shorten
from voxnest.errors import TrialError
from voxnest.files import atomic_write

LABELS = {**VOXCELEB, **KALDI}
EXPECTED = "'enrollment test score [label]' or 'label enrollment test score', as in the first line"


Order = Literal["plain", "kaldi", "voxceleb"]
"""What is on a line: `enrollment test score` and 1 or 0 where the label is known; the same without label, which stays
in the trial list; or `1|0 enrollment test score`, a line of VoxCeleb's list with the score at its end."""


@dataclass(frozen=True)
class ScoredTrials:
    """The content of a score file.

    Attributes:
        names: every recording once.
        enrollment: [trials] positions in `names`.
        test: [trials] positions in `names`.
        scores: [trials] float64, finite.
        labels: [trials] True for target trials; None if the file has none.
    """

    names: list[str]
    enrollment: NDArray[np.int64]
    test: NDArray[np.int64]
    scores: NDArray[np.float64]
    labels: NDArray[np.bool_] | None


def read_scores(path: str | Path) -> ScoredTrials:
    """Read a score file: `enrollment test score [1|0|target|nontarget]` or `1|0 enrollment test score`.

    The first line decides which it is, and all lines must be like it. Blank lines, tabs, a byte order mark and Windows
    line ends are accepted. Memory: 25 bytes for each line, and the names once each.

    Raises:
        TrialError: a file that is missing, empty or not text, a line that does not fit, or a score that is not finite
            (each with the line's number).
    """
    positions: dict[str, int] = {}
    enrollment, test, scores, labels = array("q"), array("q"), array("d"), array("b")
    layout: tuple[int, ...] | None = None
    for number, line, fields in filled_lines(path):
        layout = layout or _layout(fields)
        try:
            first, second, score, *label = (fields[place] for place in layout)
            value = float(score)
            labels.extend(LABELS[text] for text in label)
            fits = len(fields) == len(layout)
        except (IndexError, KeyError, ValueError):
            fits = False
        if not fits:
            raise TrialError(f"{path}:{number}", repr(shorten(line.strip())), EXPECTED)
        if not math.isfinite(value):
            raise TrialError(f"{path}:{number}", repr(shorten(line.strip())), "a finite score")
        enrollment.append(positions.setdefault(first, len(positions)))
        test.append(positions.setdefault(second, len(positions)))
        scores.append(value)
    if not scores:
        raise TrialError(path, "no scores", f"lines of {EXPECTED}")
    found = np.frombuffer(labels, dtype=np.int8).astype(bool) if labels else None
    first_side, second_side = (np.frombuffer(side, dtype=np.int64) for side in (enrollment, test))
    return ScoredTrials(list(positions), first_side, second_side, np.frombuffer(scores), found)


def _layout(fields: list[str]) -> tuple[int, ...]:
    """Where enrollment, test, score and label are; a line that fits both orders is taken for the plain one."""
    if len(fields) == 4 and fields[0] in LABELS and not (fields[3] in LABELS and _is_number(fields[2])):
        return 1, 2, 3, 0
    return (0, 1, 2, 3) if len(fields) == 4 else (0, 1, 2)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def write_scores(rows: Iterable[tuple[str, str, float, bool | None]], path: str | Path, order: Order = "plain") -> int:
    """Write a score file, one line at a time, atomically.

    Args:
        rows: enrollment, test, score and label of each trial; the label is None where it is not known.
        path: of the file; "-" is the standard output.
        order: of what is on a line. Scores have nine digits, so that float32 is read back as it was.

    Returns:
        The number of lines.

    Raises:
        TrialError: a name with spaces, which a score file cannot hold, or VoxCeleb's order without labels.
        OSError: it cannot be written.
    """
    count = 0
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for enrollment, test, score, label in rows:
            for name in (enrollment, test):
                if name.split() != [name]:
                    raise TrialError(path, f"the name {name!r} cannot be written", "a name without spaces")
            line = f"{enrollment} {test} {score:.9g}"
            if order == "voxceleb":
                if label is None:
                    raise TrialError(path, "trials without labels", "labels, or --order plain or kaldi")
                line = f"{int(label)} {line}"
            elif order == "plain" and label is not None:
                line = f"{line} {int(label)}"
            file.write(line + "\n")
            count += 1
    return count


def match_scores(scored: ScoredTrials, trials: IndexedTrials, source: str | Path) -> tuple[NDArray[np.float64], int]:
    """Find the score of each trial, by its names, in whatever order the score file has them.

    A pair in the other order is another pair, for not every score is symmetric.

    Args:
        scored: what `read_scores` gave; may hold pairs that are not in the list.
        trials: whose scores are wanted; a pair may be there several times.
        source: the score file, to name it.

    Returns:
        The scores [trials], in the order of `trials`, and how many others the file has.

    Raises:
        TrialError: a trial has no score, or the file has two different scores of one pair.
    """
    positions = {name: number for number, name in enumerate(scored.names)}
    place = np.array([positions.get(name, -1) for name in trials.names], dtype=np.int64)
    keys = scored.enrollment * len(positions) + scored.test
    order = np.argsort(keys, kind="stable")
    keys, scores = keys[order], scored.scores[order]
    differ = np.flatnonzero((np.diff(keys) == 0) & (np.diff(scores) != 0))
    if len(differ):
        first = order[differ[0]]
        pair = f"{scored.names[scored.enrollment[first]]} {scored.names[scored.test[first]]}"
        raise TrialError(source, f"two different scores of {shorten(pair)!r}", "one score of a pair")
    enrollment, test = place[trials.enrollment], place[trials.test]
    wanted = enrollment * len(positions) + test
    found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    missing = (keys[found] != wanted) | (enrollment < 0) | (test < 0)
    if missing.any():
        trial = int(missing.argmax())
        pair = f"{trials.names[trials.enrollment[trial]]} {trials.names[trials.test[trial]]}"
        text = f"no score of {shorten(pair)!r}; {missing.sum():,} of {len(missing):,} trials have none"
        raise TrialError(source, text, "a score for every trial of the list")
    return scores[found], int((~np.isin(keys, wanted)).sum())
