"""Finding corpora in each layout, describing them, interrupted or not, and reading manifests back."""

import gzip
import json
import shutil
import wave
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from voxnest.cli.prepare import prepare as prepare_command
from voxnest.corpora import prepare as preparation
from voxnest.corpora.layouts import find_corpus
from voxnest.corpora.manifest import Utterance, missing_files, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.errors import ConfigError, CorpusError


def write_wav(path: Path, seconds: float = 0.5, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).integers(-999, 999, (round(seconds * 8000), channels), dtype=np.int16)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.tobytes())
    return path


def make_tree(root: Path, *names: str) -> Path:
    for index, name in enumerate(names):
        write_wav(root / name, 0.5 + 0.1 * index)
    return root


def described(root: Path, **options: str) -> dict[str, tuple[str, str]]:
    """Speaker and session by id, after a whole round through the manifest."""
    output = root.parent / "manifest"
    prepare(root, output, jobs=2, **options)
    return {utterance.id: (utterance.speaker, utterance.session) for utterance in read_manifest(output)}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write_lines(path: Path, *items: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items)


def recording(name: str, path: str) -> dict:
    source = {"type": "file", "channels": [0], "source": path}
    return {"id": name, "sources": [source], "sampling_rate": 8000, "num_samples": 80000, "duration": 10.0}


def supervision(name: str, inside: str, **more: object) -> dict:
    return {"id": name, "recording_id": inside, "start": 0.0, "duration": 2.0, "speaker": "anna", **more}


# ---- layouts


def test_voxceleb_tree_below_other_folders(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "vox", "dev/aac/id00012/abc_-1/00001.wav", "dev/aac/id10270/x/00002.wav")
    assert find_corpus(root).layout == "voxceleb"
    assert described(root) == {
        "dev/aac/id00012/abc_-1/00001": ("id00012", "abc_-1"),
        "dev/aac/id10270/x/00002": ("id10270", "x"),
    }


def test_several_librispeech_subsets_at_once(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "LibriSpeech",
        "train-clean-100/19/198/19-198-0000.wav",
        "test-other/367/130732/367-130732-0003.wav",
    )
    (root / "train-clean-100/19/198/19-198.trans.txt").write_text("text")
    assert find_corpus(root).layout == "librispeech"
    assert described(root) == {
        "test-other/367/130732/367-130732-0003": ("367", "130732"),
        "train-clean-100/19/198/19-198-0000": ("19", "198"),
    }


def test_speaker_folders_make_every_file_a_session(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/a.wav", "anna/b.x.wav", "bert/a.wav")
    assert find_corpus(root).layout == "speaker"
    assert described(root) == {"anna/a": ("anna", "a"), "anna/b.x": ("anna", "b.x"), "bert/a": ("bert", "a")}


def test_speaker_session_folders(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "anna/home/1.wav", "bert/office/1.wav")
    assert find_corpus(root).layout == "voxceleb"
    assert described(root) == {"anna/home/1": ("anna", "home"), "bert/office/1": ("bert", "office")}


def test_kaldi_with_segments(tmp_path: Path) -> None:
    root = tmp_path / "kaldi"
    path = write_wav(tmp_path / "elsewhere" / "call one.wav", 3.0)
    make_tree(root, "b.wav")
    (root / "wav.scp").write_text(f"rec1 {path}\nrec2 b.wav\n")
    (root / "segments").write_text("s1 rec1 0.5 1.25\ns2 rec1 1.25 -1\ns3 rec2 0 0.5\n")
    (root / "utt2spk").write_text("s1 anna\ns2 bert\ns3 anna\n")
    prepare(root, tmp_path / "manifest")
    assert read_manifest(tmp_path / "manifest") == [
        Utterance("s1", "anna", "rec1", path, 0.75, 0.5),
        Utterance("s2", "bert", "rec1", path, 1.75, 1.25),
        Utterance("s3", "anna", "rec2", root / "b.wav", 0.5, 0.0),
    ]


def test_kaldi_paths_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, "audio/a.wav")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "wav.scp").write_text("u1 audio/a.wav\n")
    (tmp_path / "data" / "utt2spk").write_text("u1 anna\n")
    monkeypatch.chdir(tmp_path)
    prepare("data", "manifest")
    assert [utterance.path for utterance in read_manifest("manifest")] == [tmp_path / "audio" / "a.wav"]


@pytest.mark.parametrize(
    ("scp", "utt2spk", "segments", "message"),
    [
        ("a a.wav\nb sph2pipe -f wav b.sph |\n", "a x\nb x\n", None, r"wav\.scp:2: b is made by a command"),
        ("a a.wav\na b.wav\n", "a x\n", None, r"wav\.scp:2: the recording a again \(first at .*wav\.scp:1\)"),
        ("a a.wav\n", "b x\n", None, r"wav\.scp:1: the utterance a has no speaker in .*utt2spk"),
        ("a a.wav\n", None, None, r"utt2spk: missing"),
        ("a\n", "a x\n", None, r"wav\.scp:1: 1 columns"),
        ("a a.wav\n", "s x\n", "s c 0 1\n", r"segments:1: the recording c is not in .*wav\.scp"),
        ("a a.wav\n", "s x\n", "s a 2 1\n", r"segments:1: s goes from 2.0 to 1.0 s"),
        ("a a.wav\n", "s x\n", "s a 0 end\n", r"segments:1: end is 'end' \(expected a number of seconds\)"),
        ("", "", None, r"the kaldi lists are empty"),
    ],
)
def test_kaldi_mistakes_name_the_line(
    tmp_path: Path, scp: str, utt2spk: str | None, segments: str | None, message: str
) -> None:
    for name, text in (("wav.scp", scp), ("utt2spk", utt2spk), ("segments", segments)):
        if text is not None:
            (tmp_path / name).write_text(text)
    with pytest.raises(CorpusError, match=message):
        find_corpus(tmp_path)


def test_csv_with_all_columns(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "corpus", "clips/a.wav", "clips/b.wav")
    (root / "list.csv").write_text(
        "\ufeffSpeaker,path,session,id,offset,duration,text\n"
        'anna,clips/a.wav,s1,u1,0.1,0.3,"hello, there"\nanna,clips/a.wav,s1,u2,0.4,,\n\n'
        "bert,./clips/b.wav,,,,,\n"
    )
    assert described(root) == {"u1": ("anna", "s1"), "u2": ("anna", "s1"), "clips/b": ("bert", "clips/b.wav")}
    first, second, third = read_manifest(tmp_path / "manifest")
    assert (first.offset, first.duration, second.offset) == (0.1, 0.3, 0.4)
    assert second.duration == pytest.approx(0.1)
    assert third.path == root / "clips" / "b.wav"


def test_csv_file_named_itself_with_offsets_in_place_of_ids(tmp_path: Path) -> None:
    make_tree(tmp_path, "a.wav")
    table = tmp_path / "part.csv"
    table.write_text("path,speaker,offset,duration\na.wav,x,0,0.2\na.wav,x,0.2,0.2\n")
    assert [entry.id for entry in find_corpus(table)] == ["a@0.000", "a@0.200"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,speaker\na.wav,x\n",
            r"list\.csv: its first line is file,speaker \(expected a header with",
        ),
        ("", r"list\.csv: its first line is  \(expected a header"),
        ("path,speaker\na.wav\n", r"list\.csv:2: no speaker"),
        ("path,speaker,offset\na.wav,x,soon\n", r"list\.csv:2: offset is 'soon'"),
        ("path,speaker,duration\na.wav,x,-1\n", r"list\.csv:2: offset 0.0, duration -1.0"),
        (
            "path,speaker\na.wav,x\nb.wav,x\na.flac,x\n",
            r"list\.csv:4: the id a again \(first at .*list\.csv:2\)",
        ),
        ("path,speaker\n", r"the csv lists are empty"),
    ],
)
def test_csv_mistakes_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(CorpusError, match=message):
        find_corpus(tmp_path / "list.csv")


def test_a_csv_without_the_columns_is_no_list(tmp_path: Path) -> None:
    make_tree(tmp_path, "anna/a.wav", "bert/a.wav")
    (tmp_path / "metadata.csv").write_text("speaker,gender\nanna,f\n")
    assert find_corpus(tmp_path).layout == "speaker"


def test_several_lists_are_ambiguous(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("path,speaker\n")
    (tmp_path / "wav.scp").write_text("")
    with pytest.raises(CorpusError, match=r"several lists .*one\.csv, .*wav\.scp"):
        find_corpus(tmp_path)


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "c", "anna/a.WAV", "anna/._a.wav", ".trash/b/c.wav", "__MACOSX/anna/d.wav", "bert/e.wav"
    )
    (root / "anna" / ".DS_Store").write_text("")
    (root / "readme.txt").write_text("")
    assert [entry.id for entry in find_corpus(root)] == ["anna/a", "bert/e"]


def test_linked_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    make_tree(tmp_path / "store" / "anna", "a.wav")
    root = make_tree(tmp_path / "c", "bert/b.wav")
    (root / "anna").symlink_to(tmp_path / "store" / "anna")
    (root / "bert" / "loop").symlink_to(root)
    assert [entry.id for entry in find_corpus(root)] == ["anna/a", "bert/b"]


def test_one_utterance_in_two_formats_names_both(tmp_path: Path) -> None:
    make_tree(tmp_path, "anna/a.wav", "anna/a.b.wav", "anna/a.flac")
    with pytest.raises(CorpusError, match=r"the same utterance twice: anna/a\.flac and anna/a\.wav"):
        find_corpus(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.wav", "b.wav"],
            r"no speaker's folder: a\.wav, b\.wav \(expected --layout with one of voxceleb, speaker",
        ),
        (["a/b.wav", "a/c/d.wav"], r"1 and 2 folders deep: a/b\.wav, a/c/d\.wav"),
        (["train/anna/a.wav", "test/bert/b.wav"], r"parts of a corpus, not speakers \(test, train\)"),
        (["a/b/c/d/e.wav"], r"4 folders deep: a/b/c/d/e\.wav"),
    ],
)
def test_ambiguous_trees_show_paths_and_layouts(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        find_corpus(make_tree(tmp_path, *names))


def test_a_named_layout_overrules_and_is_checked(tmp_path: Path) -> None:
    make_tree(tmp_path, "train/anna/a.wav", "test/bert/b.wav")
    assert {entry.speaker for entry in find_corpus(tmp_path, "speaker")} == {"anna", "bert"}
    assert {entry.speaker for entry in find_corpus(tmp_path, "voxceleb")} == {"train", "test"}
    with pytest.raises(CorpusError, match=r"b\.wav: does not fit the layout librispeech"):
        find_corpus(tmp_path, "librispeech")
    with pytest.raises(CorpusError, match=r"speakers: is not a layout \(expected auto, voxceleb"):
        find_corpus(tmp_path, "speakers")


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no recordings found"):
        find_corpus(tmp_path)
    with pytest.raises(CorpusError, match="no such folder"):
        find_corpus(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="is a file"):
        find_corpus(write_wav(tmp_path / "a.wav"))


# ---- preparing


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = make_tree(
        tmp_path / "corpus", *(f"id{i:05d}/v{j}/{k}.wav" for i in range(5) for j in "ab" for k in range(4))
    )
    (root / "id00001" / "va" / "broken.wav").write_bytes(b"RIFFnot audio at all")
    (root / "id00002" / "va" / "empty.flac").write_bytes(b"")
    return root


def test_unreadable_files_are_listed_with_reasons(corpus: Path, tmp_path: Path) -> None:
    report = prepare(corpus, tmp_path / "manifest")
    assert (report.statistics.utterances, report.statistics.unreadable) == (40, 2)
    header, *rows = (tmp_path / "manifest" / "unreadable.tsv").read_text().splitlines()
    assert header == "path\treason"
    assert [row.split("\t")[0] for row in rows] == [
        str(corpus / "id00001/va/broken.wav"),
        str(corpus / "id00002/va/empty.flac"),
    ]
    assert all(row.split("\t")[1] for row in rows)


def test_statistics_describe_the_corpus(corpus: Path, tmp_path: Path) -> None:
    prepare(corpus, tmp_path / "manifest")
    found = json.loads((tmp_path / "manifest" / "statistics.json").read_text())
    assert (found["layout"], found["speakers"], found["sessions"], found["recordings"]) == (
        "voxceleb",
        5,
        10,
        40,
    )
    assert found["hours"] == pytest.approx(sum(0.5 + 0.1 * i for i in range(40)) / 3600)
    assert found["duration"]["median"] == pytest.approx(2.45)
    assert (found["shortest"], found["longest"]) == ("id00000/va/0", "id00004/vb/3")
    assert found["recordings_per_speaker"] == {"min": 8, "median": 8.0, "max": 8}


def test_lhotse_reads_the_manifests(corpus: Path, tmp_path: Path) -> None:
    from lhotse import CutSet, RecordingSet, SupervisionSet, validate

    write_wav(corpus / "id00009" / "v" / "stereo.wav", 1.0, channels=2)
    output = tmp_path / "far" / "manifest"
    prepare(corpus, output)
    recordings = RecordingSet.from_file(output / "recordings.jsonl.gz")
    supervisions = SupervisionSet.from_file(output / "supervisions.jsonl.gz")
    validate(recordings)
    validate(supervisions)
    cuts = CutSet.from_manifests(recordings=recordings, supervisions=supervisions)
    by_id = {cut.supervisions[0].id: cut for cut in cuts}
    cut = by_id["id00003/vb/2"]
    assert (cut.supervisions[0].speaker, cut.supervisions[0].custom["session"]) == ("id00003", "vb")
    assert cut.load_audio().shape == (1, cut.recording.num_samples)
    assert by_id["id00009/v/stereo"].load_audio().shape == (2, 8000)


@pytest.mark.parametrize("tail", [0, 7])
def test_an_interrupted_run_continues_to_the_same_bytes(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int
) -> None:
    monkeypatch.setattr(preparation, "_CHUNK", 4)
    output = tmp_path / "manifest"
    prepare(corpus, output)
    whole = contents(output)
    shutil.rmtree(output)

    def interrupt(done: int, _total: int) -> None:
        if done >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(corpus, output, jobs=2, progress=interrupt)
    assert [path.name for path in output.iterdir()] == ["journal.jsonl"]
    journal = output / "journal.jsonl"
    if tail:  # killed in the middle of a line
        journal.write_bytes(journal.read_bytes()[:-tail])
    known = len(journal.read_bytes().splitlines()) - bool(tail)
    assert 15 <= known < 25

    report = prepare(corpus, output)
    assert report.opened == 42 - known
    assert contents(output) == whole


def test_a_repeated_run_opens_only_what_is_new_or_changed(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    prepare(corpus, output)
    whole = contents(output)
    assert prepare(corpus, output).opened == 2  # the unreadable ones get another chance
    assert contents(output) == whole

    write_wav(corpus / "id00000/va/0.wav", 3.0)
    write_wav(corpus / "id00007/vc/0.wav")
    (corpus / "id00001/va/broken.wav").unlink()
    (corpus / "id00004/vb/3.wav").unlink()
    assert prepare(corpus, output).opened == 3
    found = {utterance.id: utterance.duration for utterance in read_manifest(output)}
    assert found["id00000/va/0"] == 3.0
    assert "id00007/vc/0" in found
    assert "id00004/vb/3" not in found
    assert "id00004/vb/3" not in (output / "journal.jsonl").read_text()


def test_a_journal_of_garbage_is_no_obstacle(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    output.mkdir()
    (output / "journal.jsonl").write_bytes(b'{"a": 1}\nnull\n["x", 1]\n\xff\xfe\n["y"')
    assert prepare(corpus, output).statistics.utterances == 40


def test_all_unreadable_names_the_first_reasons(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / "c" / name).mkdir(parents=True)
        (tmp_path / "c" / name / "x.wav").write_bytes(b"noise")
    with pytest.raises(CorpusError, match=r"none of its 4 utterances can be read: .*a/x\.wav: .*c/x\.wav: [^;]*$"):
        prepare(tmp_path / "c", tmp_path / "manifest")
    assert not list((tmp_path / "manifest").glob("*.gz"))


def test_segments_outside_their_recording_are_listed(tmp_path: Path) -> None:
    make_tree(tmp_path, "a.wav")
    (tmp_path / "l.csv").write_text("path,speaker,offset,duration\na.wav,x,0,0.52\na.wav,x,0.2,9\na.wav,x,7,\n")
    report = prepare(tmp_path, tmp_path / "manifest")
    assert (report.statistics.utterances, report.statistics.unreadable) == (1, 2)
    assert read_manifest(tmp_path / "manifest")[0].duration == 0.5  # clipped to the recording
    reasons = (tmp_path / "manifest" / "unreadable.tsv").read_text()
    assert "a@0.200 goes from 0.20 s to 9.20 s, the recording lasts 0.50 s" in reasons
    assert "a@7.000 goes from 7.00 s to its end" in reasons


def test_vanished_files_of_a_list_are_listed(tmp_path: Path) -> None:
    make_tree(tmp_path, "a.wav")
    (tmp_path / "l.csv").write_text("path,speaker\na.wav,x\nb.wav,x\n")
    assert prepare(tmp_path, tmp_path / "m").statistics.unreadable == 1
    assert "b.wav\tNo such file" in (tmp_path / "m" / "unreadable.tsv").read_text()


def test_a_failed_write_keeps_the_previous_manifest(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "manifest"
    prepare(corpus, output)
    whole = contents(output)
    write_wav(corpus / "id00000/va/new.wav")

    def full(*_: object) -> dict:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preparation, "_supervision", full)
    with pytest.raises(CorpusError, match="manifest: cannot be written: No space left on device"):
        prepare(corpus, output)
    whole.pop("journal.jsonl")
    now = contents(output)
    now.pop("journal.jsonl")
    assert now == whole


def test_output_that_is_a_file(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "m").write_text("")
    with pytest.raises(CorpusError, match="m: cannot be written: File exists"):
        prepare(corpus, tmp_path / "m")
    with pytest.raises(ConfigError, match="jobs: is 0"):
        prepare(corpus, tmp_path / "n", jobs=0)


@pytest.mark.parametrize("place", ["corpus/manifest", "manifest"])
def test_a_corpus_moves_with_its_manifest(corpus: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "old").mkdir()
    corpus = corpus.rename(tmp_path / "old" / "corpus")
    prepare(corpus, tmp_path / "old" / place)
    (tmp_path / "old").rename(tmp_path / "new")
    utterances = read_manifest(tmp_path / "new" / place)
    assert len(utterances) == 40
    assert missing_files(utterances) == []
    assert utterances[0].path == tmp_path / "new" / "corpus" / "id00000" / "va" / "0.wav"


def test_manifest_elsewhere_has_absolute_paths(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prepare("corpus", "far/away")
    (tmp_path / "far").rename(tmp_path / "further")
    assert missing_files(read_manifest("further/away")) == []


def test_real_speech(voices: Path, tmp_path: Path) -> None:
    statistics = prepare(voices / "test", tmp_path / "m").statistics
    assert (statistics.layout, statistics.speakers, statistics.utterances) == ("voxceleb", 10, 100)
    utterances = read_manifest(tmp_path / "m")
    assert missing_files(utterances) == []
    assert {utterance.session for utterance in utterances if utterance.speaker == "libri-1688"} == {"142285"}


# ---- the command


def test_command_prints_statistics_and_counts_what_was_left_out(corpus: Path, tmp_path: Path) -> None:
    app = Typer()
    app.command()(prepare_command)
    result = CliRunner().invoke(app, [str(corpus), "-o", str(tmp_path / "m"), "--jobs", "2"])
    assert result.exit_code == 0, result.output
    assert "layout voxceleb" in result.output
    assert "2 left out" in result.output
    assert "longest" in result.output


# ---- reading


def test_missing_files_are_found(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "c", "a/1.wav", "a/2.wav", "b/1.wav")
    prepare(root, tmp_path / "m")
    (root / "a" / "2.wav").unlink()
    shutil.rmtree(root / "b")
    assert missing_files(read_manifest(tmp_path / "m")) == [root / "a" / "2.wav", root / "b" / "1.wav"]


def test_manifests_of_lhotse_recipes(tmp_path: Path) -> None:
    for part in ("dev", "test"):
        write_lines(tmp_path / f"vox_recordings_{part}.jsonl.gz", recording(f"r-{part}", f"/data/{part}.wav"))
        write_lines(tmp_path / f"vox_supervisions_{part}.jsonl.gz", supervision(f"u-{part}", f"r-{part}", start=1.5))
    (tmp_path / ".vox_recordings_x.jsonl.gz").write_bytes(b"left by a killed writer")
    assert read_manifest(tmp_path) == [
        Utterance(f"u-{part}", "anna", f"r-{part}", Path(f"/data/{part}.wav"), 2.0, 1.5) for part in ("dev", "test")
    ]


def test_cuts_that_lhotse_wrote(corpus: Path, tmp_path: Path) -> None:
    from lhotse import CutSet, RecordingSet, SupervisionSet

    prepare(corpus, tmp_path / "far" / "m")
    whole = CutSet.from_manifests(
        recordings=RecordingSet.from_file(tmp_path / "far/m/recordings.jsonl.gz"),
        supervisions=SupervisionSet.from_file(tmp_path / "far/m/supervisions.jsonl.gz"),
    )
    cuts = CutSet.from_cuts(cut.truncate(offset=0.1, duration=0.3) for cut in whole)
    (tmp_path / "cuts").mkdir()
    cuts.to_file(tmp_path / "cuts" / "cuts_train.jsonl.gz")
    expected = read_manifest(tmp_path / "far" / "m")
    found = read_manifest(tmp_path / "cuts")
    assert [(u.id, u.speaker, u.session, u.path) for u in found] == [
        (u.id, u.speaker, u.session, u.path) for u in expected
    ]
    assert all((u.offset, u.duration) == (0.1, 0.3) for u in found)


def test_relative_paths_of_lhotse_start_at_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, "download/a.wav")
    write_lines(tmp_path / "m" / "recordings.jsonl.gz", recording("r", "download/a.wav"))
    write_lines(tmp_path / "m" / "supervisions.jsonl.gz", supervision("u", "r"))
    monkeypatch.chdir(tmp_path)
    assert missing_files(read_manifest("m")) == []


R, S = recording("r", "/a.wav"), supervision("u", "r")


@pytest.mark.parametrize(
    ("recordings", "supervisions", "message"),
    [
        ([R], [supervision("u", "q")], r"supervisions\.jsonl\.gz:1: u is in the recording q, which no"),
        ([R], [S, S], r"supervisions\.jsonl\.gz:2: the utterance u again"),
        ([R], [S, "{half"], r"supervisions\.jsonl\.gz:2: malformed line"),
        ([R], ["[1]"], r"supervisions\.jsonl\.gz:1: malformed line: not an object"),
        ([R], [{**S, "speaker": None}], r"supervisions\.jsonl\.gz:1: the supervision u has no speaker"),
        ([R], [{"id": "u"}], r"supervisions\.jsonl\.gz:1: no field 'recording_id'"),
        ([R], [{**S, "duration": -1}], r"supervisions\.jsonl\.gz:1: the supervision u lasts -1.0 s"),
        ([R, recording("r", "/b.wav")], [S], r"recordings\.jsonl\.gz:2: the recording r again"),
        (
            [{**R, "sources": [{"type": "url", "source": "s3://x"}]}],
            [S],
            r"gz:1: the recording r is of type url",
        ),
        ([], [], "the manifest holds no utterance"),
    ],
)
def test_damaged_manifests_name_the_line(tmp_path: Path, recordings: list, supervisions: list, message: str) -> None:
    write_lines(tmp_path / "recordings.jsonl.gz", *recordings)
    write_lines(tmp_path / "supervisions.jsonl.gz", *supervisions)
    with pytest.raises(CorpusError, match=message):
        read_manifest(tmp_path)


def test_truncated_and_missing_manifests(corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    with pytest.raises(CorpusError, match="manifest: no such manifest folder"):
        read_manifest(output)
    prepare(corpus, output)
    path = output / "supervisions.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CorpusError, match=r"supervisions\.jsonl\.gz:\d+: cannot be read"):
        read_manifest(output)
    path.unlink()
    with pytest.raises(CorpusError, match=r"supervisions\.jsonl\.gz: missing"):
        read_manifest(output)
