"""Do what a plan has left: download, unpack, count, prepare. Each step does only what is not done yet."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.error import HTTPError

from voxnest.corpora.prepare import PreparationReport, prepare
from voxnest.corpora.trials import read_trials, write_trials
from voxnest.corpora.voxceleb1 import Count
from voxnest.errors import CheckpointError, ConfigError, CorpusError
from voxnest.files import writing
from voxnest.hub.download import fetch, fetch_file
from voxnest.hub.releases import find_release, names_release
from voxnest.training.quickstart.pieces import ACCESS, ARCHIVES, LISTS, Download, Piece
from voxnest.training.quickstart.planning import CONFIG, MANIFEST, Plan, State, is_prepared, look, trials_path
from voxnest.training.quickstart.unpacking import unpack
from voxnest.training.settings import dump_config

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a bar with a title; gives what is called with how much is done, and of how much."""

_SHOWN = 5


def download(plan: Plan, *, progress: bool = True) -> None:
    """Download what is missing, and the weights that the training starts from.

    Args:
        plan: what is there and what is not.
        progress: show bars on stderr.

    Raises:
        CorpusError: something cannot be had; it says how to get it by hand.
        CheckpointError: the same of the weights.
    """
    for item in plan.lists:
        _fetch(item, plan.root / LISTS, progress)
    if (start := plan.config.init_from) and names_release(start):
        fetch(find_release(start), progress=progress)
    for state in plan.unfinished:
        for item in state.piece.downloads:
            _fetch(item, plan.root / ARCHIVES, progress)


def _fetch(item: Download, folder: Path, progress: bool) -> None:
    try:
        fetch_file(item.address, folder / item.name, progress=progress)
    except CheckpointError as error:
        cause = error.__cause__
        if isinstance(cause, HTTPError) and cause.code in (401, 403):
            found = f"asks for a password ({cause.code} {cause.reason})"
            expected = (
                f"--from with the link of {ACCESS}, or {item.name} and its like in {folder}, then the same command"
            )
            raise CorpusError(item.address, found, expected) from error
        raise CorpusError(error.subject, error.found, error.expected) from error


def unpack_all(plan: Plan, bar: Bar) -> list[State]:
    """Unpack the archives of all pieces that are not complete; give how far all pieces are then.

    Raises:
        CorpusError: an archive is damaged.
        ConfigError: the disk has not enough room.
    """
    states = []
    for state in plan.states:
        if not state.finished(plan.allow_missing):
            piece = state.piece
            paths = [plan.root / ARCHIVES / item.name for item in piece.downloads]
            with bar(f"unpacking {piece.title}") as tell:
                unpack(paths, plan.root / piece.folder, room=state.to_unpack, progress=_with_total(tell, piece))
            state = look(piece, plan.root)
        states.append(state)
    return states


def _with_total(tell: Callable[[int, int], None], piece: Piece) -> Callable[[int, int], None]:
    return lambda done, total: tell(done, total or piece.recordings)


def count(plan: Plan, states: Sequence[State]) -> list[Count]:
    """Compare with the official numbers.

    Raises:
        CorpusError: something is missing or too much, unless the plan allows it.
        TrialError: the trial list is malformed.
    """
    counts = []
    for state in states:
        piece = state.piece
        if piece.speakers is not None:
            counts.append(Count(f"{piece.title}: speakers", len(state.speakers), piece.speakers))
        counts.append(Count(f"{piece.title}: recordings", state.recordings, piece.recordings))
    trials = len(read_trials(trials_path(plan.pieces, plan.root)))
    official = plan.pieces.trial_counts
    counts.append(Count("trials", trials, trials if trials in official else official[0]))
    wrong = [item for item in counts if item.found != item.official]
    if wrong and not plan.allow_missing:
        lacking = [f"{item.what}: {item.found:,} of {item.official:,}" for item in wrong]
        absent = [name for state in states for name in missing_speakers(plan, state)]
        if absent:
            more = f" and {len(absent) - _SHOWN:,} more" if len(absent) > _SHOWN else ""
            lacking.append(f"no speaker {', '.join(absent[:_SHOWN])}{more}")
        expected = f"all; the archives again in {plan.root / ARCHIVES}, or --allow-missing"
        raise CorpusError(plan.root, "; ".join(lacking), expected)
    return counts


def missing_speakers(plan: Plan, state: State) -> Iterator[str]:
    """The speakers that the list of a piece names and that have no recording."""
    if state.piece.meta is None:
        return
    name, part = state.piece.meta
    for line in (plan.root / LISTS / name).read_text(encoding="utf-8", errors="replace").splitlines():
        fields = re.split(r"\s*[\t,]\s*", line.strip())
        if fields[-1] == part and fields[0] not in state.speakers:
            yield fields[0]


def describe(plan: Plan, states: Sequence[State], bar: Bar) -> PreparationReport | None:
    """Prepare the manifest of the training corpus; None if it is there.

    Raises:
        CorpusError: no recording can be read.
    """
    train = plan.pieces.train
    (state,) = (state for state in states if state.piece is train)
    if is_prepared(plan.root, state.recordings):
        return None
    with bar("reading headers") as tell:
        return prepare(plan.root / train.corpus, plan.root / MANIFEST, layout="voxceleb", progress=tell)


def write_config(plan: Plan) -> Path:
    """Write the resolved configuration of the training; give its path.

    Trials of which a recording is missing, which only happens where that is allowed, are left out of the list.

    Raises:
        TrialError: no trial is left.
        ConfigError: it cannot be written.
    """
    config, listed = plan.config, trials_path(plan.pieces, plan.root)
    validation = config.data.validation
    if validation.trials == listed:
        root, trials = plan.root / plan.pieces.test.corpus, read_trials(listed)
        there = [trial for trial in trials if (root / trial.enrollment).exists() and (root / trial.test).exists()]
        if len(there) < len(trials):
            scorable = listed.with_name(f"scorable-{listed.name}")
            with writing(scorable, ConfigError):
                write_trials(there, scorable)
            validation = validation.model_copy(update={"trials": scorable})
    path = plan.root / CONFIG
    data = config.data.model_copy(update={"validation": validation})
    with writing(path, ConfigError):
        dump_config(config.model_copy(update={"data": data}), path)
    return path
