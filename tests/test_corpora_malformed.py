"""Whatever lies in a corpus, it is listed as unreadable and the rest prepared, or there is one line; nothing hangs."""

import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from test_corpora_prepare import make_tree, recording, supervision, write_lines
from voxnest.corpora.layouts import find_corpus
from voxnest.corpora.manifest import check_files, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.errors import CorpusError

NOISE = bytes(range(256)) * 8
pytestmark = pytest.mark.timeout(30)  # a FIFO that is opened is waited for without end


def refused(source: Path) -> list[tuple[str, str]]:
    """Prepare; give name and reason of what is listed as unreadable."""
    prepare(source, source.parent / "manifest", jobs=2)
    rows = (source.parent / "manifest" / "unreadable.tsv").read_bytes().decode(errors="surrogateescape").splitlines()
    return [(os.path.basename(path), reason) for path, reason in (row.split("\t") for row in rows[1:])]


# ---- odd things in folders


def socket_at(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # the address of a socket must be short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


@pytest.mark.parametrize(
    ("name", "make", "expected"),
    [
        ("x.wav", os.mkfifo, [("x.wav", "is not a regular file")]),
        ("x.wav", socket_at, [("x.wav", "is not a regular file")]),
        ("x.wav", lambda path: path.symlink_to("/dev/zero"), [("x.wav", "is not a regular file")]),
        ("x.wav", lambda path: path.symlink_to("nowhere"), [("x.wav", "No such file or directory")]),
        ("x.wav", lambda path: path.symlink_to("x.wav"), [("x.wav", "cannot be followed: Too many levels of")]),
        ("x", lambda path: path.symlink_to("x"), [("x", "cannot be followed: Too many levels of symbolic links")]),
        ("me", lambda path: path.symlink_to("."), [("me", "is a link to ")]),
        ("up", lambda path: path.symlink_to(".."), [("up", "is a link to ")]),
        ("x.wav", Path.mkdir, []),
        ("x.wav", Path.touch, [("x.wav", "is empty (0 bytes)")]),
        ("x\ny.wav", Path.touch, [("x y.wav", "is empty (0 bytes)")]),
        (os.fsdecode(b"\xfa.wav"), Path.touch, [(os.fsdecode(b"\xfa.wav"), "is empty (0 bytes)")]),
        ("x.wav", lambda path: path.write_bytes(b"\0" * 1000), [("x.wav", "is not audio")]),
        ("../x.csv", Path.mkdir, []),
        ("../x.csv", os.mkfifo, []),
        ("../x.csv", socket_at, []),
        ("../x.csv", lambda path: path.write_bytes(NOISE), []),
        ("../x.csv", lambda path: path.write_bytes(b"a" * 10_000_000), []),
    ],
)
def test_an_odd_thing_in_a_corpus_leaves_the_rest(
    tmp_path: Path, name: str, make: Callable[[Path], object], expected: list[tuple[str, str]]
) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "bert/b.wav")
    make(Path(os.path.normpath(root / "anna" / name)))
    found = refused(root)
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(reason.startswith(start) for (_, reason), (_, start) in zip(found, expected, strict=True))
    assert [utterance.id for utterance in read_manifest(tmp_path / "manifest")] == ["anna/a", "bert/b"]


def test_a_folder_that_may_not_be_read_is_listed_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "bert/b.wav")
    scandir = os.scandir

    def refuse(place: str) -> object:
        if os.path.basename(place) in denied:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    denied = {"anna"}
    assert refused(root) == [("anna", "cannot be listed: Permission denied")]
    denied = {"anna", "bert"}
    with pytest.raises(CorpusError, match=r"no recordings found; .*anna cannot be listed: Permission denied; .*bert"):
        find_corpus(root)


def test_a_folder_that_is_linked_twice_is_searched_once(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "bert/b.wav")
    (root / "aaa").symlink_to("anna")  # its own name comes later
    make_tree(tmp_path / "far", "carl/c.wav")
    (root / "carl").symlink_to(tmp_path / "far" / "carl")
    (root / "dora").symlink_to(tmp_path / "far" / "carl")
    assert [entry.id for entry in find_corpus(root)] == ["anna/a", "bert/b", "carl/c"]
    assert [name for name, _ in refused(root)] == ["aaa", "dora"]


# ---- lists


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NOISE, r"its first line is |is not a CSV file in UTF-8"),
        (b"path,speaker\n" + b"\xff" * 2000, "is not a CSV file in UTF-8"),
        (b"path,speaker\n" + b"a" * 10_000_000 + b",x\n", r"is not a CSV file in UTF-8: field larger than"),
        (
            b"path,speaker\n" + b"a" * 5000 + b".wav,x\n",
            r"list\.csv:2: a path of 5004 characters \(expected at most 4096",
        ),
        (b"a" * 10_000_000, "its first line is .{0,300}$"),
        (b"\0" * 10_000, "its first line is .{0,900}$"),
        (b"\n\n", "its first line is "),
        ("path,speaker\na.wav,x\n".encode("utf-16"), "its first line is "),
        (b"path,name\na.wav,x\n", "its first line is path,name"),
        (b"path,speaker,offset\na.wav,x,-1\n", r"list\.csv:2: offset -1\.0"),
        (b"path,speaker,offset\na.wav,x,nan\n", r"list\.csv:2: offset is 'nan'"),
        (b"path,speaker,offset\na.wav,x,1e300\n", r"list\.csv:2: offset is '1e300'"),
        (b"path,speaker,duration\na.wav,x,inf\n", r"list\.csv:2: duration is 'inf'"),
        (b'path,speaker\n"a.wav,x\nb.wav,y\n', r"list\.csv:3: no speaker"),
        (b"path,speaker\na.wav\0,x\n", r"none of its 1 utterances can be read: .*has a NUL byte"),
    ],
)
def test_a_malformed_csv_file_is_one_line(tmp_path: Path, text: bytes, message: str) -> None:
    root = make_tree(tmp_path / "corpus", "a.wav")
    (root / "list.csv").write_bytes(text)
    with pytest.raises(CorpusError, match=message) as caught:
        prepare(root / "list.csv", tmp_path / "manifest")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["a\0b.wav", ".", "/dev/zero", "b" * 300 + ".wav", '"a\nb.wav"'])
def test_a_list_that_names_what_is_no_recording_leaves_the_rest(tmp_path: Path, path: str) -> None:
    root = make_tree(tmp_path / "corpus", "a.wav")
    (root / "list.csv").write_text(f"path,speaker\n{path},x\na.wav,y\n")
    assert len(refused(root)) == 1
    assert [utterance.speaker for utterance in read_manifest(tmp_path / "manifest")] == ["y"]


@pytest.mark.parametrize("name", ["wav.scp", "utt2spk", "segments"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
def test_a_kaldi_list_that_is_no_file_is_one_line(tmp_path: Path, name: str, make: Callable[[Path], object]) -> None:
    (tmp_path / "wav.scp").write_text("u a.wav\n")
    (tmp_path / "utt2spk").write_text("u anna\n")
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    with pytest.raises(CorpusError, match=rf"{name}: is not a file \(expected lines"):
        find_corpus(tmp_path)


@pytest.mark.parametrize(
    ("scp", "message"),
    [
        (NOISE, r"wav\.scp: is not UTF-8 text"),
        (b"u " + b"a" * 10_000_000, r"wav\.scp:1: a path of 10000000 characters"),
        (b"u a\0.wav\n", "none of its 1 utterances can be read: .*has a NUL byte"),
    ],
)
def test_a_malformed_kaldi_list_is_one_line(tmp_path: Path, scp: bytes, message: str) -> None:
    (tmp_path / "wav.scp").write_bytes(scp)
    (tmp_path / "utt2spk").write_text("u anna\n")
    with pytest.raises(CorpusError, match=message):
        prepare(tmp_path, tmp_path / "manifest")


def test_a_source_or_a_journal_that_is_a_fifo_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list.csv")
    with pytest.raises(CorpusError, match=r"list\.csv: is neither a folder nor a file"):
        prepare(tmp_path / "list.csv", tmp_path / "manifest")
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "bert/b.wav")
    (tmp_path / "manifest").mkdir()
    os.mkfifo(tmp_path / "manifest" / "journal.jsonl")
    with pytest.raises(CorpusError, match=r"journal\.jsonl: is not a file"):
        prepare(root, tmp_path / "manifest")


def test_a_journal_of_absurd_numbers_is_no_obstacle(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "bert/b.wav")
    prepare(root, tmp_path / "manifest")
    journal = tmp_path / "manifest" / "journal.jsonl"
    name, size, time, *_ = json.loads(journal.read_text().splitlines()[0])
    lines = [json.dumps([name, size, time, 0, 0, 0]), '["x",1e999,1,1,1,1]', "[" * 100_000, '[["a"],1,1,1,1,1]']
    journal.write_text("\n".join(lines) + "\n")
    assert prepare(root, tmp_path / "manifest").opened == 2


def test_the_command_is_one_line_or_lists_what_is_unreadable(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", os.fsdecode(b"\xff/\xfe.wav"))
    os.mkfifo(root / "anna" / "x.wav")
    (root / "loop").symlink_to("loop")
    command = [sys.executable, "-m", "voxnest", "prepare", "--output", tmp_path / "manifest"]
    done = subprocess.run([*command, root], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len((tmp_path / "manifest" / "unreadable.tsv").read_bytes().splitlines()) == 3
    (root / "list.csv").write_bytes(b"path,speaker\n\0\xff,")
    done = subprocess.run([*command, root / "list.csv"], capture_output=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


# ---- manifests

R, S = recording("r", "/a.wav"), supervision("u", "r")


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({**R, "sources": {}}, S, r"recordings\.jsonl\.gz:1: no field 0 \(expected the fields that lhotse writes"),
        ({**R, "sources": "abc"}, S, r"recordings\.jsonl\.gz:1: a field of another form"),
        ({**R, "sources": [[]]}, S, r"recordings\.jsonl\.gz:1: a field of another form"),
        ({**R, "sources": []}, S, r"recordings\.jsonl\.gz:1: a field of another form"),
        ({**R, "sources": [{"type": "file", "source": 5}]}, S, r"recordings\.jsonl\.gz:1: a field of another form"),
        ({**R, "id": ["r"]}, S, r"recordings\.jsonl\.gz:1: a field of another form"),
        (R, {**S, "speaker": ["anna"]}, r"supervisions\.jsonl\.gz:1: \['anna'\] is no name"),
        (R, {**S, "speaker": {"a": 1}}, r"supervisions\.jsonl\.gz:1: \{'a': 1\} is no name"),
        (R, {**S, "id": [1]}, r"supervisions\.jsonl\.gz:1: \[1\] is no name"),
        (R, {**S, "custom": [1]}, r"supervisions\.jsonl\.gz:1: a field of another form"),
        (R, {**S, "custom": {"session": [1]}}, r"supervisions\.jsonl\.gz:1: \[1\] is no name"),
        (R, {**S, "start": 10**400}, r"supervisions\.jsonl\.gz:1: a field of another form: int too large"),
        (R, {**S, "start": 1e300}, r"supervisions\.jsonl\.gz:1: the supervision u lasts 2\.0 s from 1e\+300 s"),
        (R, {**S, "start": float("nan")}, r"supervisions\.jsonl\.gz:1: the supervision u lasts 2\.0 s from nan s"),
        (R, {**S, "duration": float("inf")}, r"supervisions\.jsonl\.gz:1: the supervision u lasts inf s"),
        (R, "[" * 100_000, r"supervisions\.jsonl\.gz:1: malformed line: maximum recursion"),
        (R, "\0\0", r"supervisions\.jsonl\.gz:1: malformed line"),
        (R, "9" * 5000, r"supervisions\.jsonl\.gz:1: malformed line"),
    ],
)
def test_a_malformed_manifest_names_the_line(tmp_path: Path, first: object, second: object, message: str) -> None:
    write_lines(tmp_path / "recordings.jsonl.gz", first)
    write_lines(tmp_path / "supervisions.jsonl.gz", second)
    with pytest.raises(CorpusError, match=message):
        read_manifest(tmp_path)


@pytest.mark.parametrize("data", [b"garbage", gzip.compress(b"x" * 9999, mtime=0)[:20], gzip.compress(NOISE)])
def test_a_manifest_that_is_no_gzip_file_of_text_is_one_line(tmp_path: Path, data: bytes) -> None:
    write_lines(tmp_path / "recordings.jsonl.gz", R)
    (tmp_path / "supervisions.jsonl.gz").write_bytes(data)
    with pytest.raises(CorpusError, match=r"supervisions\.jsonl\.gz:1: (cannot be read|malformed line)"):
        read_manifest(tmp_path)
    (tmp_path / "supervisions.jsonl.gz").unlink()
    os.mkfifo(tmp_path / "supervisions.jsonl.gz")
    with pytest.raises(CorpusError, match=r"supervisions\.jsonl\.gz: is not a file"):
        read_manifest(tmp_path)


def test_a_corpus_that_was_moved_after_it_was_prepared_is_named(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "anna/b.wav", "bert/c.wav")
    prepare(root, tmp_path / "far" / "manifest")
    utterances = read_manifest(tmp_path / "far" / "manifest")
    check_files(utterances, tmp_path / "far" / "manifest")
    root.rename(tmp_path / "moved")
    expected = (
        rf"^{tmp_path}/far/manifest: 3 of its 3 audio files are not there: {root}/anna/a\.wav \.\.\. "
        r"\(expected the corpus where it was, or `voxnest prepare` again where it is now\)$"
    )
    with pytest.raises(CorpusError, match=expected):
        check_files(utterances, tmp_path / "far" / "manifest")
