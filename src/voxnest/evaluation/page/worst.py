"""The trials that a model is most wrong about, to look at and to listen to."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import soundfile

from voxnest.audio import read_audio
from voxnest.errors import AudioError
from voxnest.evaluation.page.html import Markup, markup, tag
from voxnest.evaluation.page.tables import Column, Table

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

OF_EACH_KIND = 8
OF_A_MODEL = 3
CLIP_SECONDS = 6.0
MOST_CLIPS = 160
"""In one page: about 8 MB."""
_RATE = 16000
_BLOCK = 1 << 14  # the Vorbis encoder of libsndfile takes long arrays onto its stack


class WorstTrial(NamedTuple):
    """A non-target with one of the highest scores, or a target with one of the lowest."""

    label: bool
    score: float
    enrollment: str
    test: str


def worst_trials(report: EvaluationReport, dim: int, count: int = OF_EACH_KIND) -> list[WorstTrial]:
    """Give the highest non-targets, then the lowest targets, the worst first; none if the pairs are not known."""
    pairs, scores = report.pairs, report.scores[dim]
    if pairs is None:
        return []
    found = []
    for label, sign in ((False, -1), (True, 1)):
        chosen = np.flatnonzero(report.labels == label)
        order = chosen[np.argsort(sign * scores[chosen], kind="stable")[:count]]
        found += [
            WorstTrial(label, float(scores[n]), pairs.names[pairs.enrollment[n]], pairs.names[pairs.test[n]])
            for n in order
        ]
    return found


def worst_table(
    trials: Sequence[WorstTrial],
    player: Callable[[str], Markup] | None = None,
    models: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """A row for each, with names from where they differ, and players if there is something that makes them.

    Of a speaker who was enrolled by several recordings (`models`, by name) the first `OF_A_MODEL` are played.
    """
    models = models or {}
    folder = common_folder([name for trial in trials for name in trial[2:] if name not in models])

    def recording(name: str) -> str:
        heard = models.get(name, (name,))[:OF_A_MODEL]
        shown = os.path.relpath(name, folder) if folder and name not in models else name
        return markup(shown, *map(player, heard)) if player else shown

    rows = [
        ["target" if trial.label else "non-target", trial.score, recording(trial.enrollment), recording(trial.test)]
        for trial in trials
    ]
    columns = [Column("kind"), Column("score", ".4f"), Column("enrollment"), Column("test")]
    return Table("Worst trials", columns, rows, f"Recordings are in {folder}." if folder else "")


def common_folder(paths: Sequence[str]) -> str:
    """The deepest folder that all paths are in; empty if there is none."""
    try:
        return os.path.commonpath([os.path.dirname(path) for path in paths])
    except ValueError:  # absolute and relative ones, or none
        return ""


class Players:
    """Makes elements that play recordings, whose sound is in the page itself.

    A recording that cannot be read has its reason in place of a player. Each is encoded once, and after `MOST_CLIPS`
    there are no more.
    """

    def __init__(self) -> None:
        self._clips: dict[str, Markup] = {}
        self.count = 0

    def __call__(self, path: str) -> Markup:
        """The element for a recording."""
        if self.count >= MOST_CLIPS:
            return tag("div", "no player: the page has enough", class_="note")
        self.count += 1
        if path not in self._clips:
            try:
                address = encode_clip(path)
            except AudioError as error:
                self._clips[path] = tag("div", f"no player: {error.found}", class_="note")
            else:
                self._clips[path] = tag("audio", controls=True, preload="none", src=address, title=path)
        return self._clips[path]


def encode_clip(path: str) -> str:
    """The first `CLIP_SECONDS` of a recording as a `data:` address: mono Ogg Vorbis at 16 kHz.

    Raises:
        AudioError: it cannot be read.
    """
    samples = read_audio(path, sample_rate=_RATE, duration=CLIP_SECONDS).samples
    sound = BytesIO()
    with soundfile.SoundFile(sound, "w", _RATE, 1, format="OGG", subtype="VORBIS") as file:
        for start in range(0, len(samples), _BLOCK):
            file.write(samples[start : start + _BLOCK])
    return "data:audio/ogg;base64," + base64.b64encode(sound.getvalue()).decode()
