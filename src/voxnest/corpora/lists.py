"""Corpora that a list describes: a Kaldi data folder, or a CSV file."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from voxnest.errors import CorpusError

_COLUMNS = ("path", "speaker", "session", "id", "offset", "duration")
_KALDI_LABELS = {"gender": "spk2gender", "language": "utt2lang"}
_LONGEST_PATH = 4096  # characters; no system has longer ones
LATEST = 1e9
"""No recording goes on for thirty years: seconds from here on are a mistake."""

_SHOWN = 200  # characters of a line in an error


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance before its recording has been opened.

    Args:
        id: unique in the corpus.
        recording: id of the recording it lies in; the entries of one recording follow each other.
        speaker: label.
        session: what its recordings share besides the speaker (a video, a chapter, a call).
        path: the file, absolute or relative to the corpus folder.
        offset: seconds into the recording.
        duration: seconds; None is to the end.
        labels: what else the corpus says of it, such as ("gender", "f").
    """

    id: str
    recording: str
    speaker: str
    session: str
    path: str
    offset: float = 0.0
    duration: float | None = None
    labels: tuple[tuple[str, str], ...] = ()


def csv_header(path: Path) -> list[str]:
    """Column names of a CSV file in lower case; empty for an empty file, and for what is no file of lines."""
    if not path.is_file():  # a FIFO would keep us waiting
        return []
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            return [name.strip().lower() for name in next(csv.reader(file), [])]
        except csv.Error:
            return []


def read_csv(path: Path) -> list[tuple[str, Entry]]:
    """Entries of a CSV file with their `file:line`.

    Columns path and speaker are needed; session, id, offset and duration (seconds) may be there, others are kept as
    labels (gender, language, ...). Relative paths start at the file's folder. Without a column id, an utterance is
    called by its path without the suffix, and by its offset if there is one.

    Raises:
        CorpusError: a missing column, a missing value, or an offset or duration that is no time.
    """
    header = csv_header(path)
    if not {"path", "speaker"} <= set(header):
        line = ",".join(header)
        shown = line if line.isprintable() and len(line) <= _SHOWN else f"{line[:_SHOWN]!r}..."
        raise CorpusError(path, f"its first line is {shown}", "a header with columns path and speaker")
    entries = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            next(reader)
            for values in reader:
                if any(value.strip() for value in values):
                    where = f"{path}:{reader.line_num}"
                    row = {name: value.strip() for name, value in zip(header, values, strict=False)}
                    entries.append((where, _csv_entry(where, row)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorpusError(path, f"is not a CSV file in UTF-8: {error}") from error
    return entries


def _csv_entry(where: str, row: dict[str, str]) -> Entry:
    for name in ("path", "speaker"):
        if not row.get(name):
            raise CorpusError(where, f"no {name}")
    path = os.path.normpath(_checked(where, row["path"]))
    offset = _number(where, "offset", row["offset"]) if row.get("offset") else 0.0
    duration = _number(where, "duration", row["duration"]) if row.get("duration") else None
    if offset < 0 or (duration is not None and duration <= 0):
        raise CorpusError(where, f"offset {offset}, duration {duration}", "offset >= 0 and duration > 0")
    name = os.path.splitext(path)[0].lstrip("/") + (f"@{offset:.3f}" if row.get("offset") else "")
    labels = tuple((key, value) for key, value in row.items() if key and key not in _COLUMNS and value)
    session = row.get("session") or path
    return Entry(row.get("id") or name, path, row["speaker"], session, path, offset, duration, labels)


def _read_table(path: Path, columns: int, what: str) -> Iterator[tuple[str, list[str]]]:
    """Rows of a Kaldi list with their `file:line`; the last column keeps its blanks."""
    if not path.is_file():
        raise CorpusError(path, "is not a file" if path.exists() else "missing", what)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(path, "is not UTF-8 text", what) from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        row = line.split(maxsplit=columns - 1)
        if len(row) < columns:
            raise CorpusError(f"{path}:{number}", f"{len(row)} columns", what)
        yield f"{path}:{number}", [value.strip() for value in row]


def read_kaldi(folder: Path) -> list[tuple[str, Entry]]:
    """Entries of a Kaldi data folder (https://kaldi-asr.org/doc/data_prep.html) with their `file:line`.

    Relative paths start at the folder if the first of them exists there, else at the current folder, as in
    Kaldi.

    Raises:
        CorpusError: a missing or malformed list, a recording made by a command, an utterance without a
            speaker, or a segment of an unknown recording.
    """
    recordings: dict[str, str] = {}
    lines: dict[str, str] = {}
    for where, (name, path) in _read_table(folder / "wav.scp", 2, "lines `recording path`"):
        if path.endswith("|"):
            raise CorpusError(where, f"{name} is made by a command ({path})", "a plain path: commands are not run")
        _checked(where, path)
        if name in recordings:
            raise CorpusError(where, f"the recording {name} again (first at {lines[name]})")
        recordings[name], lines[name] = path, where
    # Kaldi recipes write paths relative to where they were run; a copied folder has them relative to itself.
    here = next((path for path in recordings.values() if not os.path.isabs(path)), None)
    prefix = folder if here is None or os.path.exists(folder / here) else Path.cwd()

    def file_of(recording: str) -> str:
        path = recordings[recording]
        return path if prefix == folder else os.path.abspath(path)

    speakers = {name: speaker for _, (name, speaker) in _read_table(folder / "utt2spk", 2, "lines `utterance speaker`")}
    labels = {
        key: {name: value for _, (name, value) in _read_table(folder / file, 2, f"lines `name {key}`")}
        for key, file in _KALDI_LABELS.items()
        if (folder / file).exists()
    }

    def labels_of(name: str, speaker: str) -> tuple[tuple[str, str], ...]:
        found = {key: table.get(speaker if key == "gender" else name) for key, table in labels.items()}
        return tuple((key, value) for key, value in found.items() if value)

    entries: list[tuple[str, Entry]] = []
    if (folder / "segments").exists():
        for where, row in _read_table(folder / "segments", 4, "lines `utterance recording start end`"):
            name, recording = row[:2]
            start, end = _number(where, "start", row[2]), _number(where, "end", row[3])
            if recording not in recordings:
                raise CorpusError(where, f"the recording {recording} is not in {folder / 'wav.scp'}")
            if start < 0 or (end <= start and end != -1):
                raise CorpusError(where, f"{name} goes from {start} to {end} s", "0 <= start < end, or end -1")
            duration = None if end == -1 else end - start
            speaker = _speaker(where, name, speakers, folder)
            told = labels_of(name, speaker)
            entry = Entry(name, recording, speaker, recording, file_of(recording), start, duration, told)
            entries.append((where, entry))
    else:
        for name, where in lines.items():
            speaker = _speaker(where, name, speakers, folder)
            entry = Entry(name, name, speaker, name, file_of(name), labels=labels_of(name, speaker))
            entries.append((where, entry))
    return entries


def _speaker(where: str, name: str, speakers: dict[str, str], folder: Path) -> str:
    if name not in speakers:
        raise CorpusError(where, f"the utterance {name} has no speaker in {folder / 'utt2spk'}")
    return speakers[name]


def _checked(where: str, path: str) -> str:
    if len(path) > _LONGEST_PATH:
        raise CorpusError(where, f"a path of {len(path)} characters", f"at most {_LONGEST_PATH}")
    return path


def _number(where: str, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < LATEST:
        raise CorpusError(where, f"{name} is {text!r}", "a number of seconds")
    return value
