"""Embeddings of large collections: every recording once, whatever happens, in formats that others read."""

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from tones import ToneEncoder
from voxnest import create_encoder, save_encoder
from voxnest.audio.folders import walk
from voxnest.corpora.prepare import prepare
from voxnest.errors import ConfigError, CorpusError
from voxnest.inference import embed_files, embed_to_file, read_embeddings
from voxnest.inference.bulk import Counts, embed_to_folder, find_spans
from voxnest.inference.bulk.folder import OutputFolder
from voxnest.inference.pipeline import Span, stream_spans
from voxnest.progress import throughput_bar

pytest.importorskip("pyarrow", reason="pyarrow is not installed")
FORMATS = ["parquet", "kaldi", "lance"]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=FORMATS)
def format(request: pytest.FixtureRequest) -> str:
    if request.param == "lance":
        pytest.importorskip("lance", reason="pylance is not installed")
    return str(request.param)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty recordings in three folders: links to five."""
    folder = tmp_path_factory.mktemp("audio")
    draw = np.random.default_rng(0)
    for number in range(5):
        soundfile.write(folder / f".{number}.wav", 0.1 * draw.standard_normal(3200 + 400 * number), 16000)
    for number in range(30):
        (folder / str(number % 3)).mkdir(exist_ok=True)
        (folder / str(number % 3) / f"{number:02d}.wav").symlink_to(folder / f".{number % 5}.wav")
    return folder


def names(audio: Path) -> list[str]:
    return sorted(map(str, audio.glob("*/*.wav")))


def embed(places: Path | list[str], output: Path, format: str = "parquet", **options: object) -> Counts:
    places = places if isinstance(places, list) else [str(places)]
    return embed_to_folder(ToneEncoder, places, output, format=format, **{"shard_size": 7, **options})  # type: ignore[arg-type]


def check(output: Path, audio: Path) -> None:
    """Every recording is there once, with its embedding."""
    found, matrix = read_embeddings(output)
    expected = embed_files(ToneEncoder(), names(audio))
    assert sorted(found) == names(audio)
    np.testing.assert_array_equal(matrix, np.stack([expected[name] for name in found]))


def test_what_is_written_is_read_again_and_not_embedded_again(audio: Path, tmp_path: Path, format: str) -> None:
    first = embed(audio, tmp_path / "out", format)
    assert (first.embedded, first.there, first.held, first.failed) == (30, 0, 30, 0)
    assert first.seconds == pytest.approx(30 * 0.25)
    check(tmp_path / "out", audio)
    again = embed(audio, tmp_path / "out", format)
    assert (again.embedded, again.there, again.held) == (0, 30, 30)
    check(tmp_path / "out", audio)
    embed_to_file(ToneEncoder(), names(audio)[:3], tmp_path / "some.npz")
    with pytest.raises(CorpusError, match="two embeddings of"):
        read_embeddings(tmp_path / "out", tmp_path / "some.npz")


def test_parquet_is_read_by_everyone_as_it_is(audio: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    (tmp_path / "silent.wav").parent.mkdir(exist_ok=True)
    soundfile.write(tmp_path / "silent.wav", np.zeros(8000), 16000)
    embed([str(audio), str(tmp_path / "silent.wav"), str(tmp_path / "none.wav")], output, dim=8)
    expected = embed_files(ToneEncoder(), names(audio))
    digest = ToneEncoder().digest()

    def agree(row: dict[str, object]) -> None:
        if row["path"] == str(tmp_path / "silent.wav"):
            assert "is silent" in str(row["warnings"])
            return
        assert row["id"] == row["path"]
        np.testing.assert_array_equal(row["embedding"], expected[str(row["id"])][:8])
        assert (row["model"], row["digest"], row["dim"], row["offset"]) == ("tones", digest, 8, 0)
        assert row["duration"] == soundfile.info(str(row["path"])).duration

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(output)
    assert len(frame) == 31
    for row in frame.to_dict("records"):
        agree(row)
    polars = pytest.importorskip("polars")
    table = polars.read_parquet(output)
    assert table["embedding"].dtype == polars.Array(polars.Float32, 8)
    for row in table.to_dicts():
        agree(row)
    duckdb = pytest.importorskip("duckdb")
    found = duckdb.sql(f"SELECT * FROM '{output}/*.parquet' WHERE warnings LIKE '%silent%'").fetchall()
    assert [row[1] for row in found] == [str(tmp_path / "silent.wav")]
    datasets = pytest.importorskip("datasets")
    for place in ({"path": str(output)}, {"path": "parquet", "data_dir": str(output)}):
        loaded = datasets.load_dataset(**place, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.num_rows == 31
        agree(loaded[0])


def test_kaldiio_reads_archives_and_their_list(audio: Path, tmp_path: Path) -> None:
    kaldiio = pytest.importorskip("kaldiio")
    embed(audio, tmp_path / "out", "kaldi")
    expected = embed_files(ToneEncoder(), names(audio))
    listed = kaldiio.load_scp(str(tmp_path / "out" / "xvector.scp"))
    archived = [item for path in (tmp_path / "out").glob("*.ark") for item in kaldiio.load_ark(str(path))]
    assert sorted(listed) == sorted(name for name, _ in archived) == names(audio)
    for name, vector in [*listed.items(), *archived]:
        np.testing.assert_array_equal(vector, expected[name])
    (tmp_path / "a b.wav").symlink_to(names(audio)[0])
    counts = embed([str(tmp_path / "a b.wav")], tmp_path / "out", "kaldi")
    assert "has a blank in its id" in counts.failures[0][2]


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("before", [0, 3])
def test_a_shard_that_was_written_and_not_noted_is_written_again(
    audio: Path, tmp_path: Path, format: str, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, calls = OutputFolder.commit, list[int]()

    def killed(self: OutputFolder, number: int, outcomes: object) -> None:
        if len(calls) == before:
            raise _Killed
        calls.append(number)
        commit(self, number, outcomes)  # type: ignore[arg-type]

    monkeypatch.setattr(OutputFolder, "commit", killed)
    with pytest.raises(_Killed):
        embed(audio, tmp_path / "out", format)
    monkeypatch.undo()
    counts = embed(list(reversed(names(audio))), tmp_path / "out", format)  # in another order, even
    assert (counts.there, counts.embedded) == (7 * before, 30 - 7 * before)
    check(tmp_path / "out", audio)


def _slowly(audio: Path, output: Path) -> None:
    class Slow(ToneEncoder):
        def forward(self, *arguments: object, **options: object) -> object:
            time.sleep(0.02)  # 30 recordings, two at a time: longer than the first of the kills waits
            return super().forward(*arguments, **options)

    embed_to_folder(Slow, [str(audio)], output, shard_size=2, jobs=2)


@pytest.mark.filterwarnings("ignore:lance is not fork-safe")  # nor is it used here
@pytest.mark.skipif(sys.platform != "linux", reason="processes that fork")
def test_a_run_that_is_killed_at_any_moment_loses_and_repeats_nothing(audio: Path, tmp_path: Path) -> None:
    draw, statuses = random.Random(time.time_ns()), list[int | None]()
    for longest in (0.2, *[0.35] * 14):
        process = multiprocessing.get_context("fork").Process(target=_slowly, args=(audio, tmp_path / "out"))
        process.start()
        process.join(draw.uniform(0.03, longest))
        process.kill()
        process.join()
        statuses.append(process.exitcode)
        if process.exitcode == 0:
            break
    assert statuses.count(-signal.SIGKILL) > 0
    embed(audio, tmp_path / "out")
    check(tmp_path / "out", audio)
    assert not list((tmp_path / "out.run").glob("*.tmp"))


def test_shards_that_were_deleted_are_made_again_and_unknown_ones_removed(audio: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to("disk")
    embed(audio, tmp_path / "out")
    assert (tmp_path / "disk.run" / "run.json").exists()  # on the same disk
    (tmp_path / "out" / "part-00001.parquet").rename(tmp_path / "disk" / "part-00009.parquet")
    counts = embed(audio, tmp_path / "out")
    assert (counts.embedded, counts.there) == (7, 23)
    check(tmp_path / "out", audio)


def test_an_output_is_of_one_model_size_and_format(audio: Path, tmp_path: Path) -> None:
    embed(audio, tmp_path / "out")

    class Other(ToneEncoder):
        def digest(self) -> str:
            return "0" * 64

    for refused in (
        lambda: embed_to_folder(Other, [str(audio)], tmp_path / "out"),
        lambda: embed(audio, tmp_path / "out", dim=8),
        lambda: embed(audio, tmp_path / "out", "kaldi"),
    ):
        with pytest.raises(ConfigError, match=r"out: holds parquet, 16 numbers of tones .*, not ") as caught:
            refused()
        assert "\n" not in str(caught.value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "part-00000.parquet").write_text("of somebody")
    with pytest.raises(ConfigError, match=r"holds files, and there is no mine\.run beside it"):
        embed(audio, tmp_path / "mine")
    check(tmp_path / "out", audio)


def test_one_run_writes_to_an_output_at_a_time(audio: Path, tmp_path: Path) -> None:
    refusals = list[str]()

    def second(counts: Counts) -> None:
        if not refusals:
            with pytest.raises(ConfigError, match=f"is written to already, by process {os.getpid()}") as caught:
                embed(audio, tmp_path / "out")
            refusals.append(str(caught.value))

    embed(audio, tmp_path / "out", progress=second)
    assert refusals
    check(tmp_path / "out", audio)


def test_what_failed_is_listed_and_tried_again(run: Run, audio: Path, tmp_path: Path) -> None:
    (tmp_path / "bad\tname.wav").write_text("not audio")
    command = ["embed", audio / "0", tmp_path / "bad\tname.wav", "-o", tmp_path / "out.parquet", "--shard-size", 4]
    command += [tmp_path / f"none-{number}.wav" for number in range(25)]
    status, text, errors = run(*command)
    assert status == 2
    assert "10 embeddings, 10 of them new" in text
    assert "name.wav: is not audio" in errors
    assert f"6 more: all are in {tmp_path}/out.parquet.run/failures.tsv" in errors
    rows = [line.split("\t") for line in (tmp_path / "out.parquet.run" / "failures.tsv").read_text().splitlines()]
    assert [len(row) for row in rows] == [3] * 26
    assert rows[0] == [f"{tmp_path}/bad name.wav"] * 2 + ["is not audio, or its header is damaged or cut off"]
    for path in command[-25:]:
        Path(str(path)).symlink_to(names(audio)[0])
    (tmp_path / "bad\tname.wav").unlink()
    (tmp_path / "bad\tname.wav").symlink_to(names(audio)[0])
    status, text, errors = run(*command)
    assert (status, errors.count("error")) == (0, 0)
    assert "36 embeddings, 26 of them new" in text
    assert not (tmp_path / "out.parquet.run" / "failures.tsv").exists()


def spans(*places: object) -> tuple[list[tuple[str, Span]], list[tuple[str, str]]]:
    failures = list[tuple[str, str]]()
    found = list(find_spans(list(map(str, places)), lambda *failure: failures.append(failure)))
    return found, failures


def test_lists_hold_paths_or_ids_and_paths(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = names(audio)[:2]
    (tmp_path / "with blank.wav").symlink_to(one)
    (tmp_path / "list.txt").write_text(f"{one}\n\n  id-2   {two}\nwith blank.wav\r\n")
    (tmp_path / "wav.scp").write_text(f"a with blank.wav\nb {one}\nc sox {one} -t wav - |\n")
    found, failures = spans(tmp_path / "list.txt", tmp_path / "wav.scp")
    blank = Path(tmp_path, "with blank.wav")
    assert [(name, span.path) for name, span in found[:2]] == [(one, Path(one)), ("id-2", Path(two))]
    assert found[3:] == [("a", Span(blank)), ("b", Span(Path(one)))]
    assert [place for place, _ in failures] == [f"{tmp_path}/wav.scp:3"]
    assert "commands are not run" in failures[0][1]
    assert found[2] == ("with blank.wav", Span(blank))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"x/a.wav\n"), isatty=lambda: False))
    assert spans("-")[0] == [("x/a.wav", Span(Path("x/a.wav")))]
    with pytest.raises(CorpusError, match=r"none\.txt: No such file"):
        spans(tmp_path / "none.txt")


def test_a_list_on_standard_input_is_used_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=os.fdopen(reader, "rb"), isatty=lambda: False))
    found = find_spans(["-"], lambda *_: None)
    for number in range(3):
        os.write(writer, b"%d.wav\n" % number)
        assert next(found)[0] == f"{number}.wav"
    os.close(writer)
    assert next(found, None) is None


def test_a_manifest_gives_ids_offsets_and_durations(audio: Path, tmp_path: Path) -> None:
    prepare(audio, tmp_path / "manifest")
    embed(tmp_path / "manifest", tmp_path / "out")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(f"{n % 3}/{n:02d}" for n in range(30))
    assert {Path(row["path"]) for row in rows} == set(map(Path, names(audio)))
    assert {row["duration"] for row in rows} == {0.2, 0.225, 0.25, 0.275, 0.3}


def test_an_id_that_comes_again_is_embedded_once(audio: Path, tmp_path: Path) -> None:
    one, two = names(audio)[:2]
    (tmp_path / "list.txt").write_text(f"a {one}\nb {two}\na {one}\na {two}\n")
    counts = embed(tmp_path / "list.txt", tmp_path / "out", shard_size=2)
    assert (counts.embedded, counts.failed) == (2, 1)
    assert counts.failures == [("a", two, "has the id of another recording (expected unique ids)")]
    counts = embed(tmp_path / "list.txt", tmp_path / "out")
    assert (counts.embedded, counts.there, counts.failed) == (0, 4, 0)


def test_no_more_is_taken_than_is_soon_worked_on(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = list[str]()

    def endless() -> Iterator[tuple[str, Span]]:
        while True:
            taken.append(names(audio)[0])
            yield str(len(taken)), Span(Path(taken[-1]))

    outcomes = stream_spans(ToneEncoder(), endless(), jobs=2)
    assert [outcome.name for outcome in islice(outcomes, 200)] == [str(number) for number in range(1, 201)]
    assert len(taken) < 240
    outcomes.close()
    searched, scandir = list[str](), os.scandir
    monkeypatch.setattr(os, "scandir", lambda place: searched.append(place) or scandir(place))  # type: ignore[func-returns-value]
    next(walk(audio))
    assert len(searched) == 2  # of four folders


def test_ctrl_c_keeps_whole_shards_and_says_how_to_go_on(audio: Path, tmp_path: Path) -> None:
    save_encoder(create_encoder("redimnet-tiny"), tmp_path / "tiny.safetensors")
    (tmp_path / "list.txt").write_text("".join(f"{n}-{name} {name}\n" for n in range(300) for name in names(audio)))
    command = [sys.executable, "-m", "voxnest", "embed", tmp_path / "list.txt", "-o", tmp_path / "out.parquet"]
    command += ["--shard-size", "10", "-m", tmp_path / "tiny.safetensors"]
    process = subprocess.Popen([*map(str, command)], stderr=-1, stdout=-1)
    limit = time.monotonic() + 60
    while not list(tmp_path.glob("out.parquet/part-00001*")):
        assert time.monotonic() < limit
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    _, errors = process.communicate()
    assert time.monotonic() - start < 2  # a second, and a busy machine
    assert process.returncode == 130
    assert b"out.parquet: whole shards are kept; the same command continues" in errors
    found, _ = read_embeddings(tmp_path / "out.parquet")
    assert len(found) % 10 == 0


def test_what_is_not_installed_is_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxnest.inference.bulk.formats.find_spec", lambda name: None)
    status, _, errors = run("embed", "a.wav", "-o", tmp_path / "x.parquet")
    assert (status, errors.count("\n")) == (2, 1)
    assert "needs pyarrow, which is not installed (expected pip install 'voxnest[parquet]')" in errors
    assert not list(tmp_path.iterdir())


def test_the_bar_shows_how_fast_it_is_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    master, slave = os.openpty()
    os.set_blocking(master, False)
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setattr("threading.Timer", lambda after, call: Timer(0, call))
        with throughput_bar("embedding", lambda: 50) as show:
            for counting in [thread for thread in threading.enumerate() if thread.name == "count"]:
                counting.join()
            show(3, 10, "2.0 recordings/s, 9 times real time")
            time.sleep(0.3)
    shown = os.read(master, 100_000)
    os.close(master)
    assert b"3/40" in shown
    assert b"2.0 recordings/s, 9 times real time" in shown
