"""What a run knows of its output: which recordings are in which shard, and whose embeddings they are."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TextIO

from voxnest import __version__
from voxnest.errors import ConfigError, VoxnestError
from voxnest.files import atomic_write, writing
from voxnest.inference.bulk.formats import UNFINISHED, Format, Model, find_format, text
from voxnest.inference.pipeline import Outcome, Span
from voxnest.locks import locked

FAILURES = "failures.tsv"
NOTE = "run.json"
SHOWN = 20
"""How many failures are kept in memory."""

_DONE = "done.sqlite"
_TABLES = """
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, recordings INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS recordings (id BLOB PRIMARY KEY, span BLOB NOT NULL, shard INTEGER NOT NULL) WITHOUT ROWID;
"""


def run_folder(output: Path) -> Path:
    """Where the notes about a folder of shards are: beside it, wherever a link leads, so that it holds only shards."""
    real = Path(os.path.realpath(output))
    return real.with_name(f"{real.name}.run")


def noted_format(output: Path) -> str | None:
    """In which format a folder of shards was begun; None if none was."""
    try:
        return str(json.loads((run_folder(output) / NOTE).read_text(encoding="utf-8"))["format"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass
class Counts:
    """How far a run is.

    Attributes:
        embedded: recordings embedded by this run.
        seconds: how long these are together.
        warned: recordings among them whose embedding is not to be relied on.
        there: recordings that were in the output before.
        failed: recordings, lines and folders that gave no embedding.
        failures: the first `SHOWN` of them: (id, path, reason).
        held: recordings in the output, at the end of the run.
        begun: when the run did, by `time.monotonic`.
    """

    embedded: int = 0
    seconds: float = 0.0
    warned: int = 0
    there: int = 0
    failed: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    held: int = 0
    begun: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Count a recording that may have an embedding."""
        if not outcome.failure:
            self.embedded += 1
            self.seconds += outcome.seconds
            self.warned += bool(outcome.warnings)

    def rate(self) -> str:
        """How fast it was so far, such as "35.1 recordings/s, 210 times real time"."""
        seconds = time.monotonic() - self.begun + 1e-9
        return f"{self.embedded / seconds:,.1f} recordings/s, {self.seconds / seconds:,.0f} times real time"


class OutputFolder:
    """A folder of shards, held by this process; see `open_folder`.

    A recording is known by its id. What is in the table is in a shard, and the other way round: a shard that was
    written and not noted, when the process was killed, is removed at the next start.

    Attributes:
        path: of the shards.
        scratch: where unfinished files may be.
        counts: of the run.
    """

    def __init__(self, path: Path, model: Model, format: Format, table: sqlite3.Connection, failures: TextIO) -> None:
        self.path, self.model, self.format = path, model, format
        self.scratch = run_folder(path)
        self.counts = Counts()
        self._table, self._file = table, failures
        self._pending: dict[bytes, bytes] = {}  # of shards that are under way
        table.executescript(_TABLES)
        for gone in format.keep(path, dict(table.execute("SELECT number, recordings FROM shards"))):
            with table:
                table.execute("DELETE FROM recordings WHERE shard = ?", (gone,))
                table.execute("DELETE FROM shards WHERE number = ?", (gone,))
        self._first = self._next = table.execute("SELECT coalesce(max(number) + 1, 0) FROM shards").fetchone()[0]

    def next_number(self) -> int:
        """A number for a new shard."""
        self._next += 1
        return self._next - 1

    def fresh(self, spans: Iterable[tuple[str, Span]]) -> Iterator[tuple[str, Span]]:
        """Those that are in no shard, neither written nor under way."""
        for name, span in spans:
            key, where = _key(name), _key(repr(span))
            known, shard = self._pending.get(key), self._first
            if known is None:
                query = "SELECT span, shard FROM recordings WHERE id = ?"
                known, shard = self._table.execute(query, (key,)).fetchone() or (None, 0)
            if known is None:
                if reason := self.format.objection(name):
                    self.fail(name, span.path, reason)
                else:
                    self._pending[key] = where
                    yield name, span
            elif shard < self._first:
                self.counts.there += 1
            elif known != where:
                self.fail(name, span.path, "has the id of another recording (expected unique ids)")

    def commit(self, number: int, outcomes: Sequence[Outcome]) -> None:
        """Note a shard that is written."""
        rows = [(key, self._pending.pop(key), number, outcome) for outcome in outcomes for key in [_key(outcome.name)]]
        written = [row[:3] for row in rows if not row[3].failure]
        if written:
            with self._table:
                self._table.execute("INSERT INTO shards VALUES (?, ?)", (number, len(written)))
                self._table.executemany("INSERT INTO recordings VALUES (?, ?, ?)", written)
        for outcome in outcomes:
            if outcome.failure:
                self.fail(outcome.name, outcome.span.path, outcome.failure)
        self._file.flush()

    def fail(self, name: str, path: str | Path, reason: str) -> None:
        """List a recording that gave no embedding."""
        self.counts.failed += 1
        row = (text(name), text(path), reason)
        if len(self.counts.failures) < SHOWN:
            self.counts.failures.append(row)
        self._file.write("\t".join(" ".join(cell.split()) for cell in row) + "\n")

    def finish(self) -> None:
        """Write what the folder has beside its shards, and count all recordings."""
        with writing(self.path):
            self.format.finish(self.path)
        self.counts.held = self._table.execute("SELECT coalesce(sum(recordings), 0) FROM shards").fetchone()[0]


@contextmanager
def open_folder(output: Path, model: Model, format: str, inputs: Sequence[str]) -> Iterator[OutputFolder]:
    """Hold a folder of shards, new or to be continued.

    Args:
        output: the folder.
        model: what embeds.
        format: see `voxnest.inference.bulk.formats`.
        inputs: what is embedded, for the note; other inputs add to a folder.

    Raises:
        ConfigError: the folder holds embeddings of another model, size or format, or something else, or another
            process works on it.
        VoxnestError: it cannot be written.
    """
    kind = find_format(format)
    notes = run_folder(output)
    _check_place(output)
    with locked(notes, "is written to"):
        if not (notes / NOTE).exists() and output.is_dir() and any(output.iterdir()):
            found = f"holds files, and there is no {notes.name} beside it"
            raise ConfigError(output, found, "a folder that is not there")
        _check_note(output, model, format, inputs)
        with writing(output):
            output.mkdir(exist_ok=True)
            for path in notes.glob(f"*{UNFINISHED}"):
                path.unlink()
        try:
            with (
                closing(sqlite3.connect(notes / _DONE)) as table,
                open(notes / FAILURES, "w", encoding="utf-8") as failures,
            ):
                folder = OutputFolder(output, model, kind, table, failures)
                yield folder
                folder.finish()
        except sqlite3.Error as error:
            raise VoxnestError(notes / _DONE, f"cannot be used: {error}", "room and permission to write") from error
        if not folder.counts.failed:
            (notes / FAILURES).unlink()


def _check_place(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise ConfigError(output, "is a file", "a folder of shards, or a new one")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)


def _check_note(output: Path, model: Model, format: str, inputs: Sequence[str]) -> None:
    """Compare with the note that is there, and write it."""
    path = run_folder(output) / NOTE
    now = {"format": format, "model": model.name, "digest": model.digest, "dim": model.dim}
    before: dict[str, object] = {}
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ConfigError(path, "is damaged", "a note of voxnest embed; another output starts anew") from error
    different = [key for key, value in now.items() if key != "model" and key in before and before[key] != value]
    if different:
        held, wanted = (
            f"{of['format']}, {of['dim']} numbers of {of['model']} ({str(of['digest'])[:8]})" for of in (before, now)
        )
        raise ConfigError(output, f"holds {held}, not {wanted}", "the same model and options, or another output")
    places = [place for place in before.get("inputs", ()) if place not in inputs]  # type: ignore[attr-defined]
    content = {"voxnest": __version__, **now, "inputs": [*places, *map(text, inputs)]}
    with writing(path), atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _key(value: str) -> bytes:
    """A short form: 2^64 recordings would have to come before two are alike."""
    return blake2b(value.encode("utf-8", "surrogateescape"), digest_size=16).digest()
