"""Read lhotse manifests as a plain list of utterances.

`voxnest prepare` writes `recordings.jsonl.gz` and `supervisions.jsonl.gz`; lhotse's own recipes write files
of such names, or `*cuts*.jsonl.gz`. All are read here as text, without importing lhotse.

Paths: a manifest that lies in its corpus or beside it holds paths relative to the manifest's folder, so that
both can be moved together; other paths are absolute. (For lhotse:
`RecordingSet.from_file(...).with_path_prefix(folder)`.)
"""

import contextlib
import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from voxnest.corpora.lists import LATEST
from voxnest.errors import CorpusError

RECORDINGS = "recordings.jsonl.gz"
SUPERVISIONS = "supervisions.jsonl.gz"
LHOTSE_LABELS = ("gender", "language")
"""Labels that have a field of their own in lhotse's supervisions; others are among the custom ones."""
# What a field raises that is not there, or is an object where a list should be, text where a number should be, ...
_WRONG = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Utterance:
    """One stretch of one speaker's speech.

    Args:
        id: unique in the manifest.
        speaker: label.
        session: what its recordings share besides the speaker; the recording's id where nothing is known.
        path: the audio file. Its channels are mixed.
        duration: seconds.
        offset: seconds into the file.
        labels: what else is known of it, such as ("gender", "f"): a supervision's gender, language and custom fields.
    """

    id: str
    speaker: str
    session: str
    path: Path
    duration: float
    offset: float = 0.0
    labels: tuple[tuple[str, str], ...] = ()


def is_manifest(folder: Path) -> bool:
    """Whether a folder holds manifests of lhotse's kind."""
    kinds = ("recordings", "supervisions", "cuts")
    return folder.is_dir() and any(any(folder.glob(f"*{kind}*.jsonl*")) for kind in kinds)


def read_manifest(directory: str | Path) -> list[Utterance]:
    """Read all `*recordings*` and `*supervisions*` files of a folder, or else all its `*cuts*`.

    Relative paths start at the folder if the first of a file exists there, else at the current folder (as
    lhotse has it). Whether the audio files exist is not looked at: see `check_files`.

    Raises:
        CorpusError: a missing folder or file, a malformed line (`file:line`), a supervision of an unknown
            recording or without a speaker, an id that comes twice, audio that is not in a file, or nothing.
    """
    seen: set[str] = set()
    result = []
    for where, utterance in stream_manifest(directory):
        if utterance.id in seen:
            raise CorpusError(where, f"the utterance {utterance.id} again", "unique ids")
        seen.add(utterance.id)
        result.append(utterance)
    if not result:
        raise CorpusError(directory, "the manifest holds no utterance")
    return result


def stream_manifest(directory: str | Path) -> Iterator[tuple[str, Utterance]]:
    """As `read_manifest`, with the `file:line` of each utterance, one after the other; an id may come twice.

    In memory are the paths of the recordings, if they are in a file of their own.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CorpusError(directory, "no such manifest folder", "the folder that `voxnest prepare` wrote")
    recordings, supervisions, cuts = (_files(directory, kind) for kind in ("recordings", "supervisions", "cuts"))
    if not (recordings and supervisions) and not cuts:
        lacking = SUPERVISIONS if recordings else RECORDINGS
        raise CorpusError(directory / lacking, "missing", "a manifest that `voxnest prepare` or lhotse wrote")
    if recordings and supervisions:
        yield from _read_supervisions(directory, recordings, supervisions)
    else:
        yield from _read_cuts(directory, cuts)


def missing_files(utterances: Sequence[Utterance]) -> list[Path]:
    """Audio files of these utterances that are not there, sorted; cheap, since folders are listed once."""
    wanted: dict[str, set[str]] = {}
    for utterance in utterances:
        folder, name = os.path.split(utterance.path)
        wanted.setdefault(folder, set()).add(name)
    missing: list[Path] = []
    for folder, names in wanted.items():
        with contextlib.suppress(OSError):
            names.difference_update(os.listdir(folder or "."))
        missing += (Path(folder, name) for name in names)
    return sorted(missing)


def check_files(utterances: Sequence[Utterance], manifest: str | Path) -> None:
    """See that the audio files of a manifest are there, before work is begun that needs them.

    Raises:
        CorpusError: some are not: how many, and the first of them.
    """
    missing = missing_files(utterances)
    if missing:
        total = len({utterance.path for utterance in utterances})
        found = f"{len(missing)} of its {total} audio files are not there: {missing[0]}{' ...' * (len(missing) > 1)}"
        raise CorpusError(manifest, found, "the corpus where it was, or `voxnest prepare` again where it is now")


def _files(directory: Path, kind: str) -> list[Path]:
    found = chain(directory.glob(f"*{kind}*.jsonl.gz"), directory.glob(f"*{kind}*.jsonl"))
    return sorted(path for path in found if not path.name.startswith("."))


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    if not path.is_file():  # a FIFO would keep us waiting
        raise CorpusError(path, "is not a file", "a manifest that `voxnest prepare` or lhotse wrote")
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                item = json.loads(line)
                if not isinstance(item, dict):
                    raise ValueError("not an object")
                yield number, item
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}:{max(number, 1)}", f"malformed line: {error}", "one JSON object") from error
    except (OSError, EOFError, zlib.error) as error:
        raise CorpusError(f"{path}:{number + 1}", f"cannot be read: {error}", "a whole gzip file") from error


class _Paths:
    """Turns the sources of one manifest's recordings into paths."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory.resolve())
        self._base = ""

    def of(self, recording: dict[str, Any]) -> Path:
        source = recording["sources"][0]
        if source["type"] != "file":
            raise ValueError(f"the recording {recording['id']} is of type {source['type']}, only files can be read")
        path = source["source"]
        if os.path.isabs(path):
            return Path(path)
        if not self._base:
            here = os.path.join(self._directory, path)
            self._base = self._directory if os.path.exists(here) or not os.path.exists(path) else os.getcwd()
        return Path(os.path.normpath(os.path.join(self._base, path)))


def _read_supervisions(
    directory: Path, recordings: Sequence[Path], supervisions: Sequence[Path]
) -> Iterator[tuple[str, Utterance]]:
    paths: dict[str, Path] = {}
    for file in recordings:
        resolve = _Paths(directory).of
        for number, item in _lines(file):
            try:
                path = resolve(item)
                if paths.setdefault(item["id"], path) != path:
                    raise ValueError(f"the recording {item['id']} again, with another file")
            except _WRONG as error:
                raise _malformed(file, number, error) from error
    for file in supervisions:
        for number, item in _lines(file):
            try:
                recording = item["recording_id"]
                if recording not in paths:
                    raise ValueError(f"{item['id']} is in the recording {recording}, which no recordings file has")
                utterance = _utterance(item, paths[recording], float(item["start"]), float(item["duration"]))
            except _WRONG as error:
                raise _malformed(file, number, error) from error
            yield f"{file}:{number}", utterance


def _read_cuts(directory: Path, cuts: Sequence[Path]) -> Iterator[tuple[str, Utterance]]:
    for file in cuts:
        resolve = _Paths(directory).of
        for number, cut in _lines(file):
            try:
                if "recording" not in cut:
                    raise ValueError(f"the cut {cut['id']} has no recording of its own, only simple cuts can be read")
                path = resolve(cut["recording"])
                found = []
                for item in cut["supervisions"]:
                    start = max(0.0, float(item["start"]))  # relative to the cut, and may stick out of it
                    end = min(float(cut["duration"]), float(item["start"]) + float(item["duration"]))
                    found.append(_utterance(item, path, float(cut["start"]) + start, end - start))
            except _WRONG as error:
                raise _malformed(file, number, error) from error
            for utterance in found:
                yield f"{file}:{number}", utterance


def _utterance(item: dict[str, Any], path: Path, offset: float, duration: float) -> Utterance:
    name = _label(item["id"])
    if not item.get("speaker"):
        raise ValueError(f"the supervision {name} has no speaker")
    if not (0 <= offset < LATEST and 0 < duration < LATEST):
        raise ValueError(f"the supervision {name} lasts {duration} s from {offset} s")
    custom = item.get("custom") or {}
    session = custom.get("session") or item["recording_id"]
    labels = {key: item.get(key) for key in LHOTSE_LABELS} | {key: custom[key] for key in custom if key != "session"}
    told = tuple((key, str(value)) for key, value in labels.items() if isinstance(value, str | int) and value != "")
    return Utterance(name, _label(item["speaker"]), _label(session), path, duration, offset, told)


def _label(value: object) -> str:
    if not isinstance(value, str | int):
        raise ValueError(f"{value!r:.80} is no name")
    return str(value)


def _malformed(file: Path, number: int, error: Exception) -> CorpusError:
    """What a line does not have, or has in another form than lhotse's."""
    if isinstance(error, ValueError):
        return CorpusError(f"{file}:{number}", str(error))
    found = f"no field {error}" if isinstance(error, KeyError) else f"a field of another form: {error}"
    return CorpusError(f"{file}:{number}", found, "the fields that lhotse writes")
