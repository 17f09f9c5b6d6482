"""Trial lists: reading, writing, making, and the check that every recording is there."""

import collections
import gc
import gzip
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from voxnest.corpora.manifest import Utterance
from voxnest.corpora.trials import check_recordings, find_root, find_speakers, index_trials, locate_recordings
from voxnest.errors import CorpusError, TrialError
from voxnest.evaluation import Trial, make_trials, read_trials, score_trials, write_trials
from voxnest.evaluation.checks import check_rates, check_trials


def listed(folder, content):
    path = folder / "trials.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n",
        "a/1.wav a/2.wav target\na/1.wav b/1.wav nontarget\n",
        "\r\n1\ta/1.wav   a/2.wav \r\n\r\n  0 a/1.wav b/1.wav",
        b"\xef\xbb\xbf1 a/1.wav a/2.wav\n0 a/1.wav b/1.wav\n",
    ],
    ids=["voxceleb", "kaldi", "windows", "byte-order-mark"],
)
def test_both_formats_and_loose_white_space_are_read(tmp_path, content):
    trials = [Trial(True, "a/1.wav", "a/2.wav"), Trial(False, "a/1.wav", "b/1.wav")]
    assert read_trials(listed(tmp_path, content)) == trials


def test_kaldi_names_may_look_like_labels(tmp_path):
    assert read_trials(listed(tmp_path, "a 1 target\n1 0 nontarget\n")) == [
        Trial(True, "a", "1"),
        Trial(False, "1", "0"),
    ]


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("1 a b\n\n0 a\n", 3, "0 a"),
        ("1 a b\n2 a b\n", 2, "2 a b"),
        ("1 a b c\n", 1, "1 a b c"),
        ("1 a b\na b target\n", 2, "a b target"),
        ("a b target\n1 a b\n", 2, "1 a b"),
        ("a b target\na b 1\n", 2, "a b 1"),
        ("target a b\n", 1, "target a b"),
        ("enrollment,test,label\n", 1, "enrollment,test,label"),
        ("a\n", 1, "a"),
        ("a b\n", 1, "a b"),
        ("1 a b 0.5 x\n", 1, "1 a b 0.5 x"),
        ("1 my voice.wav b.wav\n", 1, "1 my voice.wav b.wav"),
        ("1\u00a0a\u00a0b c\n", 1, "1\xa0a\xa0b c"),
        ("true a b\n", 1, "true a b"),
        ("TRUE a b\n", 1, "TRUE a b"),
        ("01 a b\n", 1, "01 a b"),
        ("1.0 a b\n", 1, "1.0 a b"),
        ("+1 a b\n", 1, "+1 a b"),
        ("-1 a b\n", 1, "-1 a b"),
        ("\u0661 a b\n", 1, "\u0661 a b"),
        ("a b 1\n", 1, "a b 1"),
        ("a b TARGET\n", 1, "a b TARGET"),
        ("a b impostor\n", 1, "a b impostor"),
        ("1,a,b\n", 1, "1,a,b"),
        ("1;a;b\n", 1, "1;a;b"),
        ("# comment\n1 a b\n", 1, "# comment"),
        ("1 a b\n# 0 a b\n", 2, "# 0 a b"),
        ("1 a b # comment\n", 1, "1 a b # comment"),
        ('1 "a b" c\n', 1, '1 "a b" c'),
        ('{"label": 1}\n', 1, '{"label": 1}'),
        ("<html>\n", 1, "<html>"),
        ("1 a b\r0 a c\r", 1, "1 a b\\r0 a c"),
        ("\ufeff\ufeff1 a b\n", 1, "\\ufeff1 a b"),
        ("1 a b\n\ufeff1 a b\n", 2, "\\ufeff1 a b"),
        ("1 a b\n" * 1000 + "1 a\n", 1001, "1 a"),
        ("1 " + "x " * 5_000_000, 1, ("1 " + "x " * 39) + "..."),
        ("1 a b\n" + "x" * 500, 2, "x" * 80 + "..."),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, content, line, found):
    with pytest.raises(TrialError) as caught:
        read_trials(listed(tmp_path, content))
    message = str(caught.value)
    shown = found if "\\" in found else repr(found)[1:-1]
    assert message.startswith(f"{tmp_path}/trials.txt:{line}: '{shown}' (expected '1|0 enrollment test'")
    assert message.endswith("names without spaces)")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no trials"),
        ("\n \r\n", "no trials"),
        (b"\xef\xbb\xbf", "no trials"),
        (bytes(range(256)), "not a text file"),
        (b"\0", "not a text file"),
        ("1 a b\n".encode("utf-16"), "not a text file"),
        (gzip.compress(b"1 a b\n", mtime=0), "not a text file"),
        (b"RIFF\x24\0\0\0WAVE", "not a text file"),
    ],
)
def test_a_list_without_trials_is_refused(tmp_path, content, message):
    with pytest.raises(TrialError, match=f"trials.txt: {message}"):
        read_trials(listed(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("1 a b\n0 a \u00fc\n".encode("latin-1"), 2, "not UTF-8 text"),
        (b"\xff\xfe", 1, "not UTF-8 text"),
        (b"1 a b\n\n1 a \xed\xa0\x80\n", 3, "not UTF-8 text"),
        (b"1 a b\n" * 20_000 + b"1 a b\0\n", 20_001, "not a line of text"),
    ],
)
def test_a_line_that_is_not_text_is_named(tmp_path, content, line, found):
    with pytest.raises(TrialError, match=rf"^{tmp_path}/trials.txt:{line}: {found} \(expected '1\|0 enrollment"):
        read_trials(listed(tmp_path, content))


@pytest.mark.timeout(60)
def test_an_endless_device_is_refused_at_once():
    with pytest.raises(TrialError, match=r"^/dev/zero: not a text file"):
        read_trials("/dev/zero")
    with pytest.raises(TrialError, match=r"^/dev/null: no trials"):
        read_trials("/dev/null")


@pytest.mark.timeout(60)
def test_a_list_may_come_through_a_pipe(tmp_path):
    """Which can be read once only: errors of a later check do not wait for it again."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text("1 a.wav b.wav\n"), daemon=True)
    writer.start()
    trials = read_trials(tmp_path / "pipe")
    assert trials == [Trial(True, "a.wav", "b.wav")]
    with pytest.raises(TrialError, match=r"pipe: trial 1: .*a.wav is not there"):
        check_recordings(trials, tmp_path, tmp_path / "pipe")


def test_half_a_million_trials_are_read_and_checked_about_as_fast_as_lines_are_split(tmp_path):
    """About a second where lines are split in a third of one; the bounds are twice what it takes."""
    random = np.random.default_rng(0)
    pairs = random.integers(0, 1250, (58_000, 2)), random.integers(0, 100, (58_000, 2))
    text = "".join(
        f"{number % 2} id{a:05d}/8jEAjG6SegY/{i:05d}.wav id{b:05d}/8jEAjG6SegY/{j:05d}.wav\n"
        for number, ((a, b), (i, j)) in enumerate(zip(*(pair.tolist() for pair in pairs), strict=True))
    )
    path = listed(tmp_path, 10 * text)

    def seconds(work):
        """The better of two, without the objects of earlier tests, which the garbage collector would look through."""
        took = []
        for _ in range(2):
            gc.collect()
            gc.freeze()
            start = time.process_time()
            found = work()
            took.append(time.process_time() - start)
            gc.unfreeze()
        return min(took), found

    split, _ = seconds(lambda: [tuple(line.split()) for line in path.read_text().splitlines()])
    read, trials = seconds(lambda: read_trials(path))
    indexed = index_trials(trials)
    check, _ = seconds(lambda: check_trials(indexed, indexed))
    assert read < 8 * split
    assert check < 4 * split


def test_a_kaldi_list_may_begin_with_a_recording_called_1(tmp_path):
    assert read_trials(listed(tmp_path, "1 b target\n")) == [Trial(True, "1", "b")]


def test_a_list_that_cannot_be_opened_is_refused(tmp_path):
    with pytest.raises(TrialError, match=r"nowhere.txt: cannot be read: No such file"):
        read_trials(tmp_path / "nowhere.txt")
    with pytest.raises(TrialError, match="cannot be read: Is a directory"):
        read_trials(tmp_path)


@pytest.mark.parametrize(("name", "count"), [("veri_test.txt", 37_720), ("veri_test2.txt", 37_611)])
def test_the_published_lists_of_voxceleb_are_read(shared, name, count):
    trials = read_trials(shared / "data" / "voxceleb" / name)
    assert len(trials) == count
    assert trials[0] == Trial(True, "id10270/x6uYqmx31kE/00001.wav", "id10270/8jEAjG6SegY/00008.wav")
    assert all(trial.label == (trial.enrollment[:7] == trial.test[:7]) for trial in trials)


def test_written_trials_read_the_same(tmp_path):
    trials = [Trial(True, "a/1.wav", "a/2.wav"), Trial(False, "a/1.wav", "b/ü.wav")]
    write_trials(iter(trials), tmp_path / "new" / "trials.txt")
    assert read_trials(tmp_path / "new" / "trials.txt") == trials


@pytest.mark.parametrize("name", ["my voice.wav", "", " a.wav"])
def test_paths_that_a_list_cannot_hold_leave_the_old_one(tmp_path, name):
    path = listed(tmp_path, "1 a b\n")
    with pytest.raises(TrialError, match="expected a path without spaces"):
        write_trials([Trial(True, "a", "b"), Trial(False, "a", name)], path)
    assert path.read_text() == "1 a b\n"


def corpus(sizes):
    return [
        Utterance(f"{speaker}-{n}", speaker, "s", Path(f"/c/{speaker}/s/{n:04d}.wav"), 3.0)
        for speaker, size in sizes.items()
        for n in range(size)
    ]


def test_made_trials_hold_all_target_pairs_and_as_many_nontargets_as_asked():
    speaker_of = {str(utterance.path): utterance.speaker for utterance in corpus({"a": 5, "b": 4, "c": 1})}
    trials = make_trials(corpus({"a": 5, "b": 4, "c": 1}), nontargets_per_target=1.5)
    assert all(trial.label == (speaker_of[trial.enrollment] == speaker_of[trial.test]) for trial in trials)
    assert len({frozenset(trial[1:]) for trial in trials}) == len(trials)
    assert all(trial.enrollment != trial.test for trial in trials)
    assert sum(trial.label for trial in trials) == 10 + 6
    assert sum(not trial.label for trial in trials) == 24


def test_made_trials_hold_every_nontarget_pair_where_there_are_fewer_than_asked():
    trials = make_trials(corpus({"a": 5, "b": 4, "c": 1}), nontargets_per_target=100)
    assert sum(not trial.label for trial in trials) == 5 * 4 + 5 + 4


def test_made_trials_depend_on_the_seed_and_not_on_the_order():
    utterances = corpus({"a": 20, "b": 20, "c": 20})
    once = make_trials(utterances, nontargets_per_target=1, seed=5)
    assert once == make_trials(utterances[::-1], nontargets_per_target=1, seed=5)
    assert once != make_trials(utterances, nontargets_per_target=1, seed=6)


def test_speakers_with_many_recordings_do_not_drown_the_others():
    trials = make_trials(corpus({"a": 100, "b": 3, "c": 3}), max_targets_per_speaker=50)
    counts = collections.Counter(trial.enrollment.split("/")[2] for trial in trials if trial.label)
    assert counts == {"a": 50, "b": 3, "c": 3}


def test_every_nontarget_pair_is_drawn_about_equally_often():
    utterances = corpus({"a": 6, "b": 2, "c": 3})
    drawn = collections.Counter(
        frozenset(trial[1:])
        for seed in range(400)
        for trial in make_trials(utterances, nontargets_per_target=0.5, seed=seed)
        if not trial.label
    )
    assert len(drawn) == 6 * 2 + 6 * 3 + 2 * 3
    expected = 400 * round(19 * 0.5) / 36
    assert all(0.6 * expected < count < 1.5 * expected for count in drawn.values())


@pytest.mark.parametrize(
    ("utterances", "message"),
    [
        ([], "no utterances"),
        (corpus({"a": 9}), "only one speaker, 'a'"),
        (corpus({"a": 1, "b": 1}), "no speaker has two"),
        (corpus({"a": 2, "b": 1}) + corpus({"a": 1}), "/c/a/s/0000.wav: holds several utterances"),
    ],
)
def test_utterances_that_cannot_make_trials_are_refused(utterances, message):
    with pytest.raises(CorpusError, match=message):
        make_trials(utterances)


def test_missing_recordings_are_counted_and_the_first_named_with_its_line(tmp_path):
    (tmp_path / "a.wav").touch()
    path = listed(tmp_path, "\n1 a.wav a.wav\n\r\n0 a.wav b.wav\n0 c.wav b.wav\n")
    trials = read_trials(path)
    with pytest.raises(TrialError) as caught:
        check_recordings(trials, tmp_path, path)
    assert str(caught.value).startswith(
        f"{path}:4: {tmp_path}/b.wav is not there; 2 of 3 recordings are missing (expected"
    )
    with pytest.raises(TrialError, match=r"^trial 2: .*b.wav is not there"):
        check_recordings(trials, tmp_path)
    (tmp_path / "b.wav").touch()
    with pytest.raises(TrialError, match=r":5: .*c.wav is not there \(expected"):
        check_recordings(trials, tmp_path, path)
    (tmp_path / "c.wav").touch()
    check_recordings(trials, tmp_path, path)


def test_the_root_is_found_beside_the_list_or_in_its_wav_or_test_folder(tmp_path):
    path = listed(tmp_path, "1 s/a.wav s/b.wav\n")
    trials = read_trials(path)
    with pytest.raises(TrialError, match=r"s/a.wav is in none of .*--root"):
        find_root(path, trials)
    for folder in ("wav/s", "test/s", "s"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.wav").touch()
        if folder == "wav/s":
            assert find_root(path, trials) == tmp_path / "wav"
    with pytest.raises(TrialError, match=r"s/a.wav is in each of .*--root"):
        find_root(path, trials)


def test_absolute_paths_need_no_root(tmp_path):
    for name in ("x/a.wav", "list/test/b.wav"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    path = listed(tmp_path / "list", f"1 {tmp_path}/x/a.wav b.wav\n0 {tmp_path}/x/a.wav ../../x/a.wav\n")
    trials = read_trials(path)
    assert find_root(path, trials) == tmp_path / "list" / "test"
    check_recordings(trials, tmp_path / "list" / "test", path)
    path = listed(tmp_path, f"1 {tmp_path}/x/a.wav {tmp_path}/x/a.wav\n")
    assert find_root(path, read_trials(path)) == tmp_path
    check_recordings(read_trials(path), tmp_path, path)
    path = listed(tmp_path, f"1 {tmp_path}/x/a.wav {tmp_path}/x/c.wav\n")
    with pytest.raises(TrialError, match=f"trials.txt:1: {tmp_path}/x/c.wav is not there"):
        check_recordings(read_trials(path), "elsewhere", path)


@pytest.mark.parametrize("name", ["~/a.wav", "x" * 300, "x" * 100_000, "a\0b"])
def test_names_that_can_be_of_no_file_are_missing_as_others_are(tmp_path, name):
    trials = [Trial(True, name, name)]
    with pytest.raises(TrialError, match="is in none of") as caught:
        find_root(tmp_path / "trials.txt", trials)
    assert len(str(caught.value)) < 1000
    with pytest.raises(TrialError, match="is not there") as caught:
        check_recordings(trials, tmp_path)
    assert len(str(caught.value)) < 1000


def check(*trials):
    """Warnings of trials, beside enough others of enough speakers."""
    others = [Trial(True, f"{speaker}/{n}", f"{speaker}/{n + 1}") for speaker in range(10) for n in range(3)]
    others += [Trial(False, f"{n // 6}/0", f"{n % 6}/1") for n in range(36) if n // 6 != n % 6]
    every = [*others, *trials]
    return check_trials(index_trials(every), locate_recordings(index_trials(every), "/root"))


@pytest.mark.parametrize(
    ("trials", "warning"),
    [
        ([Trial(True, "a", "b"), Trial(False, "a", "b")], "1 pair given both as target and as non-target, first 'a b'"),
        ([Trial(True, "a", "b"), Trial(False, "b", "./a")], "1 pair given both as target and as non-target"),
        ([Trial(False, "a", "b"), Trial(True, "/root/b", "a")], "1 pair given both as target and as non-target"),
        ([Trial(True, "a", "b")] * 3, "2 trials of a pair given before, first 'a b'"),
        ([Trial(True, "b", "a"), Trial(True, "a", "b")], "1 trial of a pair given before, first 'b a'"),
        ([Trial(True, "a", "a")], "1 trial of a recording with itself (1 target and 0 non-target), first 'a a'"),
        (
            [Trial(True, "a", "./a"), Trial(False, "b", "b")],
            "2 trials of a recording with itself (1 target and 1 non-target), first 'a ./a'",
        ),
    ],
)
def test_doubtful_trials_are_counted_and_the_first_shown(trials, warning):
    assert check() == []
    found = check(*trials)
    assert len(found) == 1
    assert found[0].startswith(warning)


def test_a_contradiction_given_twice_is_also_a_repetition():
    found = check(Trial(True, "a", "b"), Trial(False, "a", "b"), Trial(False, "b", "a"))
    assert [text.split(",")[0].split(":")[0] for text in found] == [
        "1 pair given both as target and as non-target",
        "1 trial of a pair given before",
    ]


def test_too_few_trials_and_speakers_are_told():
    trials = [Trial(True, "a", "b"), *(Trial(False, "a", f"{n}") for n in range(30))]
    found = check_trials(index_trials(trials), index_trials(trials))
    assert [text.split(":")[0] for text in found] == ["1 target trial", "target trials of 1 speaker"]
    found = check_trials(index_trials(trials[:5]), index_trials(trials[:5]))
    assert found[1].startswith("4 non-target trials: with fewer than 30")


def test_rates_worse_than_chance_look_like_inverted_labels():
    assert check_rates({8: 0.5, 16: 0.01}) == []
    assert check_rates({8: 0.51, 16: 0.99, 32: 0.2})[0].startswith(
        "EER above 50% (dimension 8, 16): the labels look inverted"
    )


def test_the_list_of_voxceleb_is_known_to_repeat_pairs(shared):
    trials = read_trials(shared / "data" / "voxceleb" / "veri_test2.txt")
    assert [text.split(",")[0] for text in check_trials(index_trials(trials), index_trials(trials))] == [
        "337 trials of a pair given before"
    ]


def test_the_root_of_the_real_voices_is_found(voices):
    path = voices / "trials.txt"
    assert find_root(path, read_trials(path)) == voices / "test"


def test_scores_are_cosines_of_prefixes():
    random = np.random.default_rng(0)
    embeddings = {name: random.standard_normal(8).astype(np.float32) for name in "abcd"}
    trials = [Trial(False, "a", "b"), Trial(False, "c", "a"), Trial(True, "d", "d")]
    for dim in (1, 3, 8):
        a, b, c = (embeddings[name][:dim] / np.linalg.norm(embeddings[name][:dim]) for name in "abc")
        assert score_trials(embeddings, trials, dim) == pytest.approx([a @ b, c @ a, 1], abs=1e-6)
    assert score_trials(embeddings, trials).tolist() == score_trials(embeddings, trials, 8).tolist()


def test_many_trials_are_scored_in_blocks_as_few_are(monkeypatch):
    random = np.random.default_rng(0)
    embeddings = {str(n): random.standard_normal(16) for n in range(50)}
    trials = [Trial(False, str(i), str(j)) for i in range(50) for j in range(50)]
    whole = score_trials(embeddings, trials, 10)
    monkeypatch.setattr("voxnest.scoring.cosine.BLOCK_VALUES", 16 * 7)
    assert score_trials(embeddings, trials, 10).tolist() == whole.tolist()


def test_an_embedding_of_zeros_scores_zero():
    embeddings = {"a": np.zeros(4, np.float32), "b": np.ones(4, np.float32)}
    assert score_trials(embeddings, [Trial(False, "a", "b"), Trial(True, "a", "a")]).tolist() == [0, 0]


def test_scores_of_what_is_not_there_are_refused():
    embeddings = {"a": np.ones(4), "b": np.ones(4)}
    with pytest.raises(ValueError, match=r"prefixes \[5\] of embeddings with 4 numbers"):
        score_trials(embeddings, [Trial(False, "a", "b")], 5)
    with pytest.raises(KeyError, match="c"):
        score_trials(embeddings, [Trial(False, "a", "c")])


def test_indexed_trials_name_each_recording_once():
    indexed = index_trials([Trial(True, "a", "b"), Trial(False, "c", "a")])
    assert sorted(indexed.names) == ["a", "b", "c"]
    assert [indexed.names[position] for position in indexed.enrollment] == ["a", "c"]
    assert [indexed.names[position] for position in indexed.test] == ["b", "a"]
    assert indexed.labels.tolist() == [True, False]


def test_recordings_that_target_trials_link_are_of_one_speaker():
    links = [("a", "d"), ("d", "c"), ("e", "f"), ("c", "b")]
    trials = [Trial(True, *pair) for pair in links] + [Trial(False, "a", "e"), Trial(False, "g", "b")]
    indexed = index_trials(trials)
    speaker = dict(zip(indexed.names, find_speakers(indexed), strict=True))
    groups = [{name for name in speaker if speaker[name] == speaker[of]} for of in "aeg"]
    assert groups == [set("abcd"), set("ef"), {"g"}]
