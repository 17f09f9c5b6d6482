"""A corpus in numbers."""

from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np

from voxnest.corpora.lists import Entry


@dataclass(frozen=True)
class Statistics:
    """A corpus in numbers.

    Args:
        layout: the layout it has.
        speakers: how many.
        sessions: how many, counted per speaker.
        recordings: audio files in the manifest.
        utterances: entries of the manifest.
        hours: of the utterances.
        duration: seconds of an utterance: min, quartile1, median, quartile3, max.
        shortest: id of the shortest utterance.
        longest: id of the longest utterance.
        recordings_per_speaker: min, median, max.
        unreadable: files or segments that were left out.
    """

    layout: str
    speakers: int
    sessions: int
    recordings: int
    utterances: int
    hours: float
    duration: dict[str, float]
    shortest: str
    longest: str
    recordings_per_speaker: dict[str, float]
    unreadable: int


class Tally:
    """Counts utterances for the statistics."""

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.durations = array("d")
        self._ids = {"shortest": "", "longest": ""}
        self._extremes = {"shortest": float("inf"), "longest": 0.0}
        self._recordings: Counter[str] = Counter()
        self._sessions: set[tuple[str, str]] = set()

    def add(self, entry: Entry, duration: float, *, new_recording: bool) -> None:
        """Count an utterance, and its recording too if it is the first one there."""
        self.durations.append(duration)
        self._sessions.add((entry.speaker, entry.session))
        self._recordings[entry.speaker] += new_recording
        if duration < self._extremes["shortest"]:
            self._extremes["shortest"], self._ids["shortest"] = duration, entry.id
        if duration > self._extremes["longest"]:
            self._extremes["longest"], self._ids["longest"] = duration, entry.id

    def statistics(self, unreadable: int) -> Statistics:
        """The statistics of at least one utterance, `unreadable` others left out."""
        quartiles = np.percentile(np.frombuffer(self.durations), [0, 25, 50, 75, 100])
        names = ("min", "quartile1", "median", "quartile3", "max")
        counts = sorted(self._recordings.values())
        return Statistics(
            layout=self.layout,
            speakers=len(counts),
            sessions=len(self._sessions),
            recordings=sum(counts),
            utterances=len(self.durations),
            hours=sum(self.durations) / 3600,
            duration={name: float(value) for name, value in zip(names, quartiles, strict=True)},
            **self._ids,
            recordings_per_speaker={"min": counts[0], "median": float(np.median(counts)), "max": counts[-1]},
            unreadable=unreadable,
        )
