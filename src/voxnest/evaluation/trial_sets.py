"""The trials of an evaluation with the places of their recordings, and the embeddings of what they compare."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from voxnest.corpora.trials import (
    IndexedTrials,
    Trial,
    check_recordings,
    find_root,
    index_trials,
    locate_recordings,
    read_trials,
    shorten,
)
from voxnest.errors import TrialError
from voxnest.evaluation.checks import check_trials
from voxnest.inference.cache import EmbeddingCache, embed_kept
from voxnest.inference.embedding import Embeddings
from voxnest.inference.pipeline import Progress, Span
from voxnest.scoring import score_indexed
from voxnest.scoring.arrays import Array, Floats, unit_rows

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder


@dataclass(frozen=True)
class TrialSet:
    """Trials whose recordings are all there.

    Attributes:
        pairs: the trials; names are paths of recordings, or of `models`.
        models: name -> paths of the several recordings that a speaker was enrolled by.
        source: what to call the trials; None if they did not come from a file.
        missing: paths of recordings that are not there, as they were looked for.
        dropped: number of trials that were left out because of them.
        warnings: what makes the trials doubtful.
    """

    pairs: IndexedTrials
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str | None = None
    missing: tuple[str, ...] = ()
    dropped: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def recordings(self) -> list[str]:
        """The path of every recording, once."""
        paths = (path for name in self.pairs.names for path in self.models.get(name, (name,)))
        return list(dict.fromkeys(paths))


class MissingRecordings(TrialError):
    """Recordings of trials that are not there; `missing` has their paths."""

    def __init__(self, subject: object, found: str, expected: str, missing: Sequence[str]) -> None:
        super().__init__(subject, found, expected)
        self.missing = tuple(missing)


def find_trials(
    trials: str | Path | Sequence[Trial], root: str | Path | None = None, *, allow_missing: bool = False
) -> TrialSet:
    """Read a trial list, or take trials, and find their recordings.

    Args:
        trials: a list (see `read_trials`), or trials.
        root: the folder that relative paths start from. If None: for a list, its own folder or `wav` or `test` in it,
            wherever its recordings are; for trials, the current folder.
        allow_missing: leave out trials whose recordings are not there.

    Raises:
        TrialError: a malformed list, no target or no non-target trial, or a recording that is not there.
    """
    source, listed = (Path(trials), read_trials(trials)) if isinstance(trials, str | Path) else (None, list(trials))
    given = index_trials(listed)
    check_labels(given, source or "trials")
    if root is None:
        root = find_root(source, listed) if source is not None else Path()
    if not allow_missing:
        check_recordings(listed, root, source)
    pairs = locate_recordings(given, root)
    found = TrialSet(pairs, {}, str(source) if source else None, warnings=tuple(check_trials(given, pairs)))
    return drop_missing(found) if allow_missing else found


def join_trials(sets: Sequence[TrialSet]) -> TrialSet:
    """The trials of several lists, one after another, as one list; a recording of several is one."""
    numbers: dict[str, int] = {}
    sides: list[list[np.ndarray]] = [[], []]
    for pairs in (each.pairs for each in sets):
        place = np.array([numbers.setdefault(name, len(numbers)) for name in pairs.names])
        for side, own in zip(sides, (pairs.enrollment, pairs.test), strict=True):
            side.append(place[own])
    enrollment, test = map(np.concatenate, sides)
    labels = np.concatenate([each.pairs.labels for each in sets])
    return TrialSet(
        IndexedTrials(list(numbers), enrollment, test, labels),
        {name: paths for each in sets for name, paths in each.models.items()},
        ", ".join(each.source for each in sets if each.source) or None,
        tuple(dict.fromkeys(path for each in sets for path in each.missing)),
        sum(each.dropped for each in sets),
        tuple(warning for each in sets for warning in each.warnings),
    )


def drop_missing(trials: TrialSet, exists: Callable[[str], bool] = os.path.isfile) -> TrialSet:
    """Leave out the trials of which a recording is not there; of a model, any of its recordings.

    Raises:
        TrialError: there are no target or no non-target trials left.
    """
    missing = tuple(path for path in trials.recordings if not exists(path))
    if not missing:
        return trials
    gone, pairs = set(missing), trials.pairs
    whole = np.array([gone.isdisjoint(trials.models.get(name, (name,))) for name in pairs.names])
    kept = whole[pairs.enrollment] & whole[pairs.test]
    used = np.zeros(len(whole), dtype=bool)
    used[pairs.enrollment[kept]] = used[pairs.test[kept]] = True
    place = np.cumsum(used) - 1
    names = [name for name, use in zip(pairs.names, used, strict=True) if use]
    sides = place[pairs.enrollment[kept]], place[pairs.test[kept]]
    rest = IndexedTrials(names, *sides, pairs.labels[kept])
    dropped = int(np.count_nonzero(~kept))
    check_labels(rest, trials.source or "trials", f", after {dropped:,} whose recordings are missing")
    text = f"{dropped:,} of {len(kept):,} trials are left out: {len(missing):,} recordings are missing"
    warnings = (*trials.warnings, f"{text}, first {shorten(missing[0], 300)}")
    return TrialSet(rest, trials.models, trials.source, missing, dropped, warnings)


def check_labels(trials: IndexedTrials, where: object, when: str = "") -> None:
    """Refuse trials of one kind only.

    Raises:
        TrialError: with the counts.
    """
    targets = int(trials.labels.sum())
    nontargets = len(trials.labels) - targets
    if not (targets and nontargets):
        found = f"{targets} target and {nontargets} non-target trials{when}"
        raise TrialError(where, found, "at least one of each kind")


@dataclass(frozen=True)
class EmbeddedTrials:
    """Trials, and the embeddings of what they compare.

    Attributes:
        trials: what is compared.
        embeddings: of every recording by its path, with warnings.
        cached: how many came from the cache.
    """

    trials: TrialSet
    embeddings: Embeddings
    cached: int = 0

    def matrix(self, dim: int) -> Array:
        """Embeddings [names, dim] of `trials.pairs.names`.

        That of a model of several recordings is the mean of their prefixes of `dim` numbers, each scaled to length one.
        """
        rows, models = self.embeddings, self.trials.models
        return np.stack(
            [
                unit_rows(np.stack([rows[path][:dim] for path in models[name]])).mean(axis=0)
                if name in models
                else rows[name][:dim]
                for name in self.trials.pairs.names
            ]
        )

    def row(self, number: int) -> EmbeddedTrials:
        """Of embeddings `[n, d]` of each recording, those of one row."""
        rows = copy.copy(self.embeddings)
        rows.update({path: embedding[number] for path, embedding in self.embeddings.items()})
        return replace(self, embeddings=rows)

    def seconds(self) -> Floats:
        """Durations [names]; of a model that of its recordings together."""
        given, models = self.embeddings.seconds, self.trials.models
        return np.array([sum(given[path] for path in models.get(name, (name,))) for name in self.trials.pairs.names])

    def score(self, dims: Sequence[int]) -> dict[int, Array]:
        """Cosine similarities [trials] at each prefix size."""
        pairs = self.trials.pairs
        if not self.trials.models:
            return score_indexed(self.matrix(max(dims)), pairs, dims)
        return {dim: score_indexed(self.matrix(dim), pairs, (dim,))[dim] for dim in dims}


def embed_trials(
    encoder: Embedder,
    trials: TrialSet,
    *,
    window: float | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> EmbeddedTrials:
    """Embed the recordings of trials, each once; arguments as of `embed_kept`.

    Raises:
        AudioError: a recording cannot be used.
        CheckpointError: the encoder gives no finite embedding.
        VoxnestError: the cache cannot be used.
    """
    spans = {path: Span(Path(path)) for path in trials.recordings}
    before = cache.hits if cache else 0
    found = embed_kept(encoder, spans, cache, window=window, progress=progress)
    return EmbeddedTrials(trials, found, cache.hits - before if cache else 0)
