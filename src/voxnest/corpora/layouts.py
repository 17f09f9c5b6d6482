"""Find the recordings of a corpus in the layouts people have.

| layout | folder | speaker, session |
| --- | --- | --- |
| voxceleb | `.../<speaker>/<session>/<utterance>.*` | the two folders |
| voxceleb1 | `{dev,test}/wav/<speaker>/<video>/<utterance>.*`, and the lists of `voxceleb1` | the two folders |
| speaker | `.../<speaker>/<utterance>.*` | the folder; every file is a session of its own |
| librispeech | `.../<speaker>/<chapter>/<speaker>-<chapter>-NNNN.*` | the two folders |
| kaldi | `wav.scp`, `utt2spk`, optional `segments` | utt2spk; every recording is a session |
| csv | columns path, speaker, optional session, id, offset, duration | the columns |
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from voxnest.audio import AUDIO_SUFFIXES, walk
from voxnest.corpora.lists import Entry, csv_header, read_csv, read_kaldi
from voxnest.errors import CorpusError

LAYOUTS = ("voxceleb", "speaker", "librispeech", "kaldi", "csv", "voxceleb1")

_LIBRISPEECH = re.compile(r"(?:.*/)?(\d+)/(\d+)/\1-\2-\d+\.[^./]+")
_VOXCELEB = re.compile(r"(?:.*/)?id\d{5}/[^/]+/[^/]+")
_VOXCELEB1 = re.compile(r"(?:dev|test)/wav/[^/]+/[^/]+/[^/]+")
_PATTERNS = {"librispeech": _LIBRISPEECH, "voxceleb1": _VOXCELEB1}
_SPLIT = re.compile(r"(train|test|dev|val|valid|validation|eval|evaluation)([-_].*)?", re.IGNORECASE)
_SHOWN = 3  # paths quoted in an error


@dataclass(frozen=True)
class Corpus:
    """What was found; iterating (as often as you like) gives the entries, in order of their recordings.

    `unlisted` holds the places in the folder that could not be searched, and why.
    """

    layout: str
    root: Path
    size: int
    entries: Callable[[], Iterator[Entry]]
    unlisted: tuple[tuple[Path, str], ...] = ()

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Entry]:
        return self.entries()


def find_corpus(source: str | Path, layout: str = "auto") -> Corpus:
    """Find the utterances below a folder (or in a CSV file) without opening any recording.

    Args:
        source: the corpus folder, or a CSV file.
        layout: one of `LAYOUTS`, or "auto" to recognise it.

    Raises:
        CorpusError: nothing there, no recording, a layout that is unknown, ambiguous or does not fit, a
            malformed list, or two utterances of one id.
    """
    source = Path(source)
    if layout != "auto" and layout not in LAYOUTS:
        raise CorpusError(layout, "is not a layout", f"auto, {', '.join(LAYOUTS)}")
    if source.is_file():
        if layout not in ("auto", "csv") or (layout == "auto" and source.suffix.lower() != ".csv"):
            raise CorpusError(
                source, "is a file", "a folder of recordings, or a CSV file with columns path and speaker"
            )
        return _listed("csv", source.parent, read_csv(source))
    if not source.is_dir():
        raise CorpusError(source, "is neither a folder nor a file" if source.exists() else "no such folder")

    lists = _lists(source)
    if layout == "auto" and len(lists) > 1:
        raise CorpusError(source, f"holds several lists ({', '.join(sorted(map(str, lists)))})", "--layout, or one CSV")
    if layout == "kaldi" or (layout == "auto" and source / "wav.scp" in lists):
        return _listed("kaldi", source, read_kaldi(source))
    if layout == "csv" or (layout == "auto" and lists):
        tables = [path for path in lists if path.name != "wav.scp"]
        if len(tables) != 1:
            found = f"holds {len(tables)} CSV files with columns path and speaker"
            raise CorpusError(source, found, "one, or name the file itself")
        return _listed("csv", source, read_csv(tables[0]))

    unlisted: list[tuple[Path, str]] = []

    def tell(place: Path, reason: str) -> None:
        unlisted.append((place, reason))

    files = list(walk(source, tell, tell))
    if not files:
        found = "; ".join(["no recordings found", *(f"{place} {reason}" for place, reason in unlisted[:_SHOWN])])
        raise CorpusError(source, found, f"files ending in {', '.join(sorted(AUDIO_SUFFIXES))}")
    files.sort(key=lambda path: (_stem(path), path))
    layout = _recognise(source, files) if layout == "auto" else _checked(source, files, layout)
    _reject_twins(source, files)
    has_session = layout != "speaker"

    def entries() -> Iterator[Entry]:
        for path in files:
            parts = path.split("/")
            name = _stem(path)
            speaker, session = (parts[-3], parts[-2]) if has_session else (parts[-2], _stem(parts[-1]))
            yield Entry(name, name, speaker, session, path)

    return Corpus(layout, source, len(files), entries, tuple(unlisted))


def _stem(path: str) -> str:
    return path.rpartition(".")[0]


def _recognise(root: Path, files: Sequence[str]) -> str:
    if all(map(_LIBRISPEECH.fullmatch, files)):
        return "librispeech"
    if all(map(_VOXCELEB.fullmatch, files)):
        return "voxceleb"
    depths = {path.count("/") for path in files}
    if depths <= {1} or depths <= {2}:
        tops = sorted({path.split("/", 1)[0] for path in files})
        if not all(map(_SPLIT.fullmatch, tops)):
            return "speaker" if depths == {1} else "voxceleb"
        found = f"its folders look like parts of a corpus, not speakers ({', '.join(tops[:_SHOWN])})"
    elif depths == {0}:
        found = "recordings lie in no speaker's folder"
    else:
        found = f"recordings lie {' and '.join(str(depth) for depth in sorted(depths))} folders deep"
    of_each_depth = {path.count("/"): path for path in reversed(files)}.values()
    shown = sorted(list(dict.fromkeys([*of_each_depth, *files[:_SHOWN]]))[: max(_SHOWN, len(of_each_depth))])
    expected = f"--layout with one of {', '.join(LAYOUTS)}, or the folder of one part"
    raise CorpusError(root, f"{found}: {', '.join(shown)}", expected)


def _checked(root: Path, files: Sequence[str], layout: str) -> str:
    for path in files:
        depth = path.count("/")
        pattern = _PATTERNS.get(layout)
        if depth < (1 if layout == "speaker" else 2) or (pattern and not pattern.fullmatch(path)):
            expected = {
                "speaker": "<speaker>/<utterance>",
                "voxceleb": "<speaker>/<session>/<utterance>",
                "voxceleb1": "dev/wav/<speaker>/<video>/<utterance> or test/wav/...",
                "librispeech": "<speaker>/<chapter>/<speaker>-<chapter>-NNNN",
            }[layout]
            raise CorpusError(root / path, f"does not fit the layout {layout}", expected)
    return layout


def _reject_twins(root: Path, files: Sequence[str]) -> None:
    for first, second in pairwise(files):
        if _stem(first) == _stem(second):
            found = f"the same utterance twice: {first} and {second}"
            raise CorpusError(root, found, "one file per utterance, in one format")


def _lists(folder: Path) -> list[Path]:
    """The Kaldi and CSV lists right in a folder."""
    tables = [path for path in sorted(folder.glob("*.csv")) if not path.name.startswith(".")]
    lists = [path for path in tables if {"path", "speaker"} <= set(csv_header(path))]
    return [*lists, *(path for path in [folder / "wav.scp"] if path.exists())]


def _listed(layout: str, root: Path, entries: list[tuple[str, Entry]]) -> Corpus:
    """A corpus from `(where it is listed, entry)`, checked for repeated ids."""
    if not entries:
        raise CorpusError(root, f"the {layout} lists are empty")
    first: dict[str, str] = {}
    for where, entry in entries:
        if entry.id in first:
            raise CorpusError(where, f"the id {entry.id} again (first at {first[entry.id]})", "unique utterance ids")
        first[entry.id] = where
    ordered = sorted((entry for _, entry in entries), key=lambda entry: (entry.recording, entry.offset, entry.id))
    return Corpus(layout, root, len(ordered), lambda: iter(ordered))
