"""Describe a corpus: open every recording's header once, and write lhotse manifests and statistics.

Headers are read in a thread pool. What was learnt of a file goes to a journal in the output folder at once,
so that an interrupted run continues, and a repeated one opens only files that are new or changed. The
manifests are written at the end from the corpus and the journal: the same bytes however often the work was
interrupted.
"""

import contextlib
import gzip
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from voxnest.audio import audio_info
from voxnest.corpora.layouts import Corpus, find_corpus
from voxnest.corpora.lists import Entry
from voxnest.corpora.manifest import LHOTSE_LABELS, RECORDINGS, SUPERVISIONS
from voxnest.corpora.statistics import Statistics, Tally
from voxnest.corpora.threads import map_unordered
from voxnest.corpora.voxceleb1 import Count, VoxCeleb1, place_of, read_lists
from voxnest.errors import AudioError, ConfigError, CorpusError
from voxnest.files import atomic_write, writing

JOURNAL = "journal.jsonl"
STATISTICS = "statistics.json"
UNREADABLE = "unreadable.tsv"
MISSING = "missing.tsv"
_CHUNK = 64  # files per task: few enough that little is lost when killed
_TOLERANCE = 0.05  # seconds that a listed segment may stick out of its recording
_QUOTED = 3  # reasons in an error


@dataclass(frozen=True)
class PreparationReport:
    """What `prepare` did; `opened` counts the files whose header was read now, the rest were known.

    Of the layout voxceleb1, `counts` compares with the official numbers, and `missing` counts the lines of `MISSING`.
    """

    source: Path
    output: Path
    statistics: Statistics
    opened: int
    counts: tuple[Count, ...] = ()
    missing: int = 0


class Header(NamedTuple):
    """What the journal remembers of a file."""

    size: int
    mtime_ns: int
    samples: int
    sample_rate: int
    channels: int


def prepare(
    source: str | Path,
    output: str | Path,
    *,
    layout: str = "auto",
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PreparationReport:
    """Find the recordings of a corpus and write lhotse manifests of them.

    Writes into `output`: `recordings.jsonl.gz`, `supervisions.jsonl.gz` (the session in `custom`),
    `statistics.json`, `unreadable.tsv` (path, reason), and the journal `journal.jsonl`. Of the layout voxceleb1, also a
    manifest for each of `voxnest.corpora.voxceleb1.PARTS`, in a folder of that name, and `missing.tsv` (list, name).

    Args:
        source: the corpus folder, or a CSV file.
        output: the manifest folder.
        layout: "auto" or one of `voxnest.corpora.layouts.LAYOUTS`.
        jobs: threads that read headers; twice the processors when None.
        progress: called with the files looked at and their total.

    Raises:
        CorpusError: no corpus, an unknown layout, no readable file, or an output that cannot be written.
        ConfigError: `jobs` is not positive.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError("jobs", f"is {jobs}", "at least 1")
    output = Path(output)
    lists = read_lists(Path(source)) if layout == "voxceleb1" else None
    corpus = find_corpus(source, layout)
    counts: tuple[Count, ...] = ()
    missing = 0
    with writing(output, CorpusError):
        output.mkdir(parents=True, exist_ok=True)
        locate = _locator(corpus.root, output)
        with Journal(output / JOURNAL) as journal:
            opened, failures = _open_headers(corpus, locate, journal, jobs or 2 * (os.cpu_count() or 1), progress)
        statistics = _write_manifests(corpus, locate, output, journal.headers, failures)
        if lists is not None:
            counts, missing = _write_parts(lists, corpus, locate, output, journal.headers)
    return PreparationReport(Path(source), output, statistics, opened, counts, missing)


class Journal:
    """Headers by path, kept in a file of JSON lines that is appended to while the work goes on.

    A line that is malformed (the last one, when the process was killed) is dropped. Used as a context
    manager, which opens the file for appending.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.headers: dict[str, Header] = {}
        if not path.exists():
            return
        if not path.is_file():  # a FIFO would keep us waiting
            raise CorpusError(path, "is not a file", "the journal of an earlier run, or nothing")
        whole = 0  # bytes up to the end of the last whole line
        with open(path, "rb") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, OverflowError, RecursionError):
                    name, *values = json.loads(line)
                    header = Header(*map(int, values))
                    if min(header) > 0:
                        self.headers[name] = header
                whole += len(line) if line.endswith(b"\n") else 0
        os.truncate(path, whole)

    def __enter__(self) -> "Journal":
        self._file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, headers: dict[str, Header]) -> None:
        """Remember headers, and have the system write them down now."""
        self.headers.update(headers)
        self._file.writelines(_line([path, *header]) for path, header in headers.items())
        self._file.flush()


def _locator(root: Path, output: Path) -> Callable[[str], str]:
    """How the manifest names files: relative if it lies in the corpus or beside it, else absolute."""
    here, there = output.resolve(), root.resolve()
    beside = here.parent == there.parent or here.is_relative_to(there)
    base = os.path.relpath(there, here) if beside else str(there)
    return lambda path: os.path.normpath(os.path.join(base, path))


def _open_headers(
    corpus: Corpus,
    locate: Callable[[str], str],
    journal: Journal,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[int, dict[str, str]]:
    """Bring the journal up to date; give the number of files opened, and why files could not be."""

    def look(entries: list[Entry]) -> tuple[int, dict[str, Header], dict[str, str]]:
        found, failed = {}, {}
        for path in dict.fromkeys(entry.path for entry in entries):
            file, name = os.path.join(corpus.root, path), locate(path)
            try:
                status = os.stat(file)
                known = journal.headers.get(name)
                if known is None or known[:2] != (status.st_size, status.st_mtime_ns):
                    info = audio_info(file)
                    samples = round(info.duration * info.sample_rate)
                    found[name] = Header(status.st_size, status.st_mtime_ns, samples, info.sample_rate, info.channels)
            except AudioError as error:
                failed[name] = f"{error.found} (expected {error.expected})" if error.expected else error.found
            except OSError as error:
                failed[name] = error.strerror or str(error)
            except ValueError:
                failed[name] = "has a NUL byte in its name"
        return len(entries), found, failed

    opened, done = 0, 0
    failures: dict[str, str] = {}
    entries = iter(corpus)
    chunks = iter(lambda: list(islice(entries, _CHUNK)), [])
    with contextlib.closing(map_unordered(look, chunks, jobs)) as results:
        for count, found, failed in results:
            journal.add(found)
            failures |= failed
            opened += len(found) + len(failed)
            done += count
            if progress:
                progress(done, len(corpus))
    return opened, failures


def _write_parts(
    lists: VoxCeleb1, corpus: Corpus, locate: Callable[[str], str], output: Path, known: Mapping[str, Header]
) -> tuple[tuple[Count, ...], int]:
    """Write the manifests of VoxCeleb1's parts; give their numbers, and how much is missing."""
    readable = [entry for entry in corpus if locate(entry.path) in known]
    whole = replace(corpus, size=len(readable), entries=lambda: iter(readable), unlisted=())
    speakers: dict[str, list[str]] = {}
    for name, part in lists.parts(whole).items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        place = _locator(corpus.root, folder)
        headers = {place(entry.path): known[locate(entry.path)] for entry in part}
        _write_manifests(part, place, folder, headers, {})
        speakers[name] = [entry.speaker for entry in part]
    there = {place_of(entry) for entry in readable}
    missing = list(lists.missing(there))
    with atomic_write(output / MISSING) as temporary:
        text = "".join("\t".join(row) + "\n" for row in (("list", "name"), *missing))
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
    return tuple(lists.counts(speakers, lists.scorable(there))), len(missing)


def _write_manifests(
    corpus: Corpus,
    locate: Callable[[str], str],
    output: Path,
    known: Mapping[str, Header],
    failures: dict[str, str],
) -> Statistics:
    tally = Tally(corpus.layout)
    refused = [(str(place), reason) for place, reason in corpus.unlisted]
    with contextlib.ExitStack() as stack:  # all files are whole before the first takes its name
        recordings, supervisions, headers = (
            stack.enter_context(_json_lines(output / name)) for name in (RECORDINGS, SUPERVISIONS, JOURNAL)
        )
        for _, group in groupby(corpus, key=lambda entry: entry.recording):
            first, *others = group
            name = locate(first.path)
            if name in failures:
                refused.append((str(corpus.root / first.path), failures[name]))
                continue
            header = known[name]
            headers([name, *header])
            segments = 0
            for entry in (first, *others):
                duration = _duration(entry, header)
                if duration is None:
                    end = "its end" if entry.duration is None else f"{entry.offset + entry.duration:.2f} s"
                    length = f"the recording lasts {header.samples / header.sample_rate:.2f} s"
                    reason = f"{entry.id} goes from {entry.offset:.2f} s to {end}, {length}"
                    refused.append((str(corpus.root / entry.path), reason))
                    continue
                if not segments:
                    recordings(_recording(entry, name, header))
                segments += 1
                supervisions(_supervision(entry, header, duration))
                tally.add(entry, duration, new_recording=segments == 1)
        _write_refused(output / UNREADABLE, refused)
        if not tally.durations:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in refused[:_QUOTED])
            raise CorpusError(corpus.root, f"none of its {len(corpus)} utterances can be read: {reasons}")
    statistics = tally.statistics(len(refused))
    with atomic_write(output / STATISTICS) as path:
        path.write_text(json.dumps(asdict(statistics), indent=2) + "\n", encoding="utf-8")
    return statistics


@contextlib.contextmanager
def _json_lines(path: Path) -> Iterator[Callable[[Any], None]]:
    """Give a function that appends an object to a file: atomic, gzip without a time stamp if called `.gz`."""
    with atomic_write(path) as temporary, open(temporary, "wb") as raw:
        if path.suffix == ".gz":
            with (
                gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
                io.BufferedWriter(packed, 1 << 20) as file,
            ):
                yield lambda item: _write(file, item)
        else:
            yield lambda item: _write(raw, item)


def _write(file: io.BufferedIOBase, item: Any) -> None:
    file.write(_line(item).encode())


def _line(item: Any) -> str:
    return json.dumps(item, separators=(",", ":")) + "\n"


def _duration(entry: Entry, header: Header) -> float | None:
    """Seconds of an utterance in its recording, None if it does not lie in it."""
    rest = header.samples / header.sample_rate - entry.offset
    duration = rest if entry.duration is None else entry.duration
    return min(duration, rest) if rest > 0 and duration <= rest + _TOLERANCE else None


def _recording(entry: Entry, path: str, header: Header) -> dict[str, Any]:
    channels = list(range(header.channels))
    return {
        "id": entry.recording,
        "sources": [{"type": "file", "channels": channels, "source": path}],
        "sampling_rate": header.sample_rate,
        "num_samples": header.samples,
        "duration": header.samples / header.sample_rate,
        "channel_ids": channels,
    }


def _supervision(entry: Entry, header: Header, duration: float) -> dict[str, Any]:
    labels = dict(entry.labels)
    own = {key: labels.pop(key) for key in LHOTSE_LABELS if key in labels}
    return {
        "id": entry.id,
        "recording_id": entry.recording,
        "start": entry.offset,
        "duration": duration,
        "channel": 0 if header.channels == 1 else list(range(header.channels)),
        "speaker": entry.speaker,
        **own,
        "custom": {**labels, "session": entry.session},
    }


def _write_refused(path: Path, refused: list[tuple[str, str]]) -> None:
    rows = [("path", "reason"), *refused]
    with atomic_write(path) as temporary:
        text = "".join("\t".join(" ".join(value.split()) for value in row) + "\n" for row in rows)
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")
