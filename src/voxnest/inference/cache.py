"""Embeddings kept between evaluations, by the digests of a model and of a recording's bytes.

A file of the cache folder for each model: a table of SQLite, which several processes may read and write. What counts as
a model is everything that its embeddings depend on: weights, configuration, window, and the version of voxnest.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from voxnest import __version__
from voxnest.errors import VoxnestError
from voxnest.files import cache_folder
from voxnest.inference.embedding import Embeddings, embed_spans
from voxnest.inference.pipeline import Outcome, Progress, Span, stream_spans

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

BATCH = 1024  # recordings after which what was found is kept
HASHERS = 4
_TABLE = (
    "CREATE TABLE IF NOT EXISTS embeddings (recording BLOB PRIMARY KEY, embedding BLOB NOT NULL, seconds REAL NOT NULL,"
    " silent INTEGER NOT NULL, warning TEXT NOT NULL) WITHOUT ROWID"
)


class _Row(NamedTuple):
    """What is known of a recording."""

    embedding: np.ndarray
    seconds: float
    silent: bool
    warning: str


class EmbeddingCache:
    """The embeddings of one model that were computed before.

    Args:
        encoder: whose embeddings they are.
        window: as of `embed_files`.
        folder: where files are kept; `embeddings` in the cache folder if None.

    Attributes:
        path: the file.
        hits: how many recordings were found in it so far.
    """

    def __init__(self, encoder: Embedder, window: float | None = None, folder: Path | None = None) -> None:
        name = embedder_digest(encoder, window)
        self.path = (folder or cache_folder() / "embeddings") / f"{name[:32]}.sqlite"
        self.size = encoder.embedding_dim
        self.hits = 0

    def read(self, recordings: Mapping[str, bytes]) -> dict[str, _Row]:
        """Give what is known of recordings {name: digest}.

        Raises:
            VoxnestError: the file is damaged.
        """
        found: dict[str, _Row] = {}
        if not self.path.exists():
            return found
        with self._open() as table:
            for name, digest in recordings.items():
                query = "SELECT embedding, seconds, silent, warning FROM embeddings WHERE recording = ?"
                row = table.execute(query, (digest,)).fetchone()
                if row is not None and len(row[0]) == 4 * self.size:
                    found[name] = _Row(np.frombuffer(row[0], dtype="<f4"), row[1], bool(row[2]), row[3])
        self.hits += len(found)
        return found

    def write(self, recordings: Mapping[str, bytes], outcomes: Iterable[Outcome]) -> None:
        """Keep what came of recordings {name: digest}.

        Raises:
            VoxnestError: it cannot be written.
        """
        rows = [
            (
                recordings[outcome.name],
                outcome.embedding.astype("<f4").tobytes(),
                outcome.seconds,
                outcome.silent,
                "; ".join(outcome.warnings),
            )
            for outcome in outcomes
            if outcome.embedding is not None and outcome.name in recordings
        ]
        with self._open() as table, table:
            table.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as table:
                table.execute(_TABLE)
                yield table
        except (OSError, sqlite3.Error) as error:
            expected = "a folder that you may write to, or a cache file that you delete; --no-cache goes without"
            raise VoxnestError(self.path, f"cannot be used as a cache of embeddings: {error}", expected) from error


def embedder_digest(encoder: Embedder, window: float | None = None) -> str:
    """SHA-256, in hexadecimal, of all that an encoder's embeddings depend on, and of who computes them."""
    return hashlib.sha256(json.dumps([encoder.digest(), window, __version__]).encode()).hexdigest()


def embed_kept(
    encoder: Embedder,
    spans: Mapping[str, Span],
    cache: EmbeddingCache | None,
    *,
    window: float | None = None,
    progress: Progress | None = None,
) -> Embeddings:
    """As `embed_files`, of those recordings only that the cache does not know; it knows them then.

    Args:
        encoder: that the cache was made for.
        spans: name -> file, or part of one.
        cache: None for none.
        window: as of `embed_files`.
        progress: as of `embed_files`.

    Raises:
        AudioError: a recording cannot be used.
        CheckpointError: the encoder gives no finite embedding.
        VoxnestError: the cache cannot be used.
    """
    if cache is None:
        return embed_spans(encoder, spans, progress=progress, window=window)
    digests = _digests(spans)
    known = cache.read(digests)
    rest = {name: span for name, span in spans.items() if name not in known}
    fresh = Embeddings()
    with closing(stream_spans(encoder, rest.items(), total=len(rest), progress=progress, window=window)) as outcomes:
        while batch := list(islice(outcomes, BATCH)):
            for outcome in batch:
                fresh.add(outcome)
            cache.write(digests, batch)
    return _merge(spans, known, fresh)


def _merge(spans: Mapping[str, Span], known: Mapping[str, _Row], fresh: Embeddings) -> Embeddings:
    """All embeddings in the order asked for."""
    result, warnings, silent = Embeddings(), dict(fresh.warnings), set(fresh.silent)
    for name in spans:
        if name in known:
            row = known[name]
            result[name], result.seconds[name] = row.embedding, row.seconds
            warning, quiet = row.warning, row.silent
        else:
            result[name], result.seconds[name] = fresh[name], fresh.seconds[name]
            warning, quiet = warnings.get(name, ""), name in silent
        if warning:
            result.warnings.append((name, warning))
        if quiet:
            result.silent.append(name)
    return result


def _digests(spans: Mapping[str, Span]) -> dict[str, bytes]:
    """SHA-256 of the bytes of files and of which part of them; those that cannot be read are left out."""

    def compute(item: tuple[str, Span]) -> tuple[str, bytes | None]:
        name, span = item
        try:
            with span.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        except OSError:
            return name, None
        if span.offset or span.duration is not None:
            digest.update(f"{span.offset!r} {span.duration!r}".encode())
        return name, digest.digest()

    with ThreadPoolExecutor(HASHERS, "digest") as pool:
        return {name: digest for name, digest in pool.map(compute, spans.items()) if digest is not None}
