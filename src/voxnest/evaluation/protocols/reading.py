"""Find the lists of a protocol and the recordings that they name, and check that nothing is missing."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from voxnest.corpora.trials import IndexedTrials, filled_lines, shorten
from voxnest.errors import ConfigError, TrialError
from voxnest.evaluation.checks import check_trials
from voxnest.evaluation.protocols.protocol import Protocol
from voxnest.evaluation.trial_sets import MissingRecordings, TrialSet, check_labels, drop_missing
from voxnest.hub.download import fetch_list

LABELS = {"1": True, "0": False, "target": True, "nontarget": False, "tgt": True, "imp": False}
SUFFIXES = (".wav", ".flac", ".opus", ".m4a", ".mp3")
"""A recording may have been converted: one of these in place of its suffix is taken, if it is there."""
_LINE = "'1|0 enrollment test' or 'enrollment test LABEL', with target|nontarget, tgt|imp or 1|0"


def find_protocol_trials(
    protocol: Protocol,
    root: str | Path,
    trials: str | Path | None = None,
    enrollment: str | Path | None = None,
    *,
    allow_missing: bool = False,
    progress: bool = True,
) -> TrialSet:
    """Read the trials of a protocol and find their recordings.

    Args:
        protocol: see `find_protocol`.
        root: the folder of the corpus.
        trials: the list, if it is not the one below `root`, or else the published one, which is downloaded once.
        enrollment: the list of enrolled speakers, if it is not the one below `root`.
        allow_missing: leave out trials whose recordings are not there.
        progress: show a download's progress on stderr.

    Raises:
        TrialError: a list that is not there, is malformed, or has another number of trials.
        MissingRecordings: recordings are missing, and that is not allowed.
        CheckpointError: the list cannot be downloaded.
        ConfigError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise ConfigError("--root", f"{root} is not a folder", f"the folder of the corpus of {protocol.title}")
    source = Path(trials) if trials is not None else _find_list(protocol, protocol.list, root)
    if source is None:
        assert protocol.address is not None
        source = fetch_list(protocol.address, protocol.list[0], progress=progress, sha256=protocol.sha256)
    models = {}
    if protocol.enrollment:
        place = Path(enrollment) if enrollment is not None else _find_list(protocol, protocol.enrollment, root)
        assert place is not None
        models = read_enrollment(place)
    elif enrollment is not None:
        raise ConfigError("--enrollment", f"given with {protocol.name}", "a protocol with models of several recordings")
    listed = read_list(source)
    check_labels(listed, source)
    if protocol.trials not in (None, len(listed.labels)):
        expected = f"{protocol.trials:,}, which {protocol.title} has"
        raise TrialError(source, f"{len(listed.labels):,} trials", expected)
    located = _Locator(root, protocol.folders)
    found = _locate(listed, models, protocol.model_suffix, located, source)
    if not located.missing or allow_missing:
        return drop_missing(found, lambda path: path not in located.missing)
    missing = list(located.missing)
    others = f"; {len(missing):,} of {len(found.recordings):,} recordings are missing" if len(missing) > 1 else ""
    expected = f"the recordings of {protocol.title} under {root}; --allow-missing goes on without them"
    raise MissingRecordings(source, f"{shorten(missing[0], 300)} is not there{others}", expected, missing)


def read_list(path: str | Path) -> IndexedTrials:
    """Read a trial list of any of the protocols.

    Raises:
        TrialError: it cannot be read, is empty, or a line does not fit (with its number).
    """
    positions: dict[str, int] = {}
    sides, labels = (array("q"), array("q")), bytearray()
    first = None
    for number, line, fields in filled_lines(path):
        if first is None:
            first = len(fields) == 3 and fields[0] in ("0", "1") and fields[-1] not in LABELS
        label = fields.pop(0 if first else -1)
        if len(fields) != 2 or label not in LABELS:
            raise TrialError(f"{path}:{number}", repr(shorten(line.strip())), _LINE)
        labels.append(LABELS[label])
        for side, name in zip(sides, fields, strict=True):
            side.append(positions.setdefault(name, len(positions)))
    if first is None:
        raise TrialError(path, "no trials", f"lines of {_LINE}")
    enrollment, test = (np.array(side, dtype=np.int64) for side in sides)
    return IndexedTrials(list(positions), enrollment, test, np.frombuffer(labels, dtype=np.uint8).astype(bool))


def read_enrollment(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Read which recordings each speaker is enrolled by: `model recording ...`, on one line or several.

    Raises:
        TrialError: it cannot be read, is empty, or a line names no recording.
    """
    models: dict[str, dict[str, None]] = {}
    expected = "'model recording ...'"
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                name, *recordings = line.split() or [""]
                if name and not recordings:
                    raise TrialError(f"{path}:{number}", repr(shorten(line.strip())), expected)
                if name:
                    models.setdefault(name, {}).update(dict.fromkeys(recordings))
    except OSError as error:
        raise TrialError(path, f"cannot be read: {error.strerror}", "a list of enrolled speakers") from error
    except UnicodeDecodeError as error:
        raise TrialError(path, "not UTF-8 text", expected) from error
    if not models:
        raise TrialError(path, "no enrolled speakers", f"lines of {expected}")
    return {name: tuple(recordings) for name, recordings in models.items()}


def _find_list(protocol: Protocol, names: Sequence[str], root: Path) -> Path | None:
    """The first of these files below the root; None where it is published instead."""
    for place in (root / name for name in names):
        if place.is_file():
            return place
    if names is protocol.list and protocol.address:
        return None
    option = "--trials" if names is protocol.list else "--enrollment"
    raise TrialError(root, f"none of {', '.join(names)} is there", f"the list, or another as {option}")


class _Locator:
    """Finds recordings, and remembers which are not there."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        self.bases = [root / folder for folder in folders]
        self.missing: dict[str, None] = {}

    def __call__(self, name: str) -> str:
        """The path of a recording, with the suffix that it has here; of a missing one where it was sought first."""
        for base in self.bases:
            if os.path.isfile(path := os.path.join(base, name)):
                return str(Path(path))
        stem, suffix = os.path.splitext(name)
        for base in self.bases:
            for other in SUFFIXES if suffix in SUFFIXES else ():
                if os.path.isfile(path := os.path.join(base, stem + other)):
                    return str(Path(path))
        missing = str(Path(self.bases[0], name))
        self.missing[missing] = None
        return missing


def _locate(
    listed: IndexedTrials, models: Mapping[str, tuple[str, ...]], suffix: str, locate: _Locator, source: Path
) -> TrialSet:
    """The same trials by paths and, where there are enrolled speakers, by those."""
    enrolled = set(np.unique(listed.enrollment).tolist()) if models else set()
    tested = set(np.unique(listed.test).tolist())
    names, found = [], {}
    for position, name in enumerate(listed.names):
        if position not in enrolled:
            names.append(locate(name))
            continue
        recordings = models.get(name) or models.get(name.removesuffix(suffix) if suffix else name)
        if recordings is None:
            raise TrialError(
                source, f"the speaker {shorten(name)!r}, who is not enrolled", "one of the enrollment list"
            )
        if position in tested:
            raise TrialError(source, f"{shorten(name)!r}, both as a speaker and as a recording", "one of them")
        paths = tuple(map(locate, recordings))
        names.append(paths[0] if len(paths) == 1 else name)
        if len(paths) > 1:
            found[name] = paths
    positions: dict[str, int] = {}
    merged = np.array([positions.setdefault(name, len(positions)) for name in names])
    pairs = IndexedTrials(list(positions), merged[listed.enrollment], merged[listed.test], listed.labels)
    return TrialSet(pairs, found, str(source), warnings=tuple(check_trials(listed, pairs)))
