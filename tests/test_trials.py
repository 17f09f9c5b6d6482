"""Trial lists: reading, writing, making, and the check that every recording is there."""

import collections
from pathlib import Path

import numpy as np
import pytest

from voxnest.corpora.manifest import Utterance
from voxnest.errors import CorpusError, TrialError
from voxnest.evaluation import Trial, make_trials, read_trials, score_trials, write_trials
from voxnest.evaluation.trials import check_recordings, find_root, find_speakers, index_trials


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
        ("1 a b\n" + "x" * 500, 2, "x" * 80 + "..."),
    ],
)
def test_a_line_that_does_not_fit_is_named(tmp_path, content, line, found):
    with pytest.raises(TrialError) as caught:
        read_trials(listed(tmp_path, content))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/trials.txt:{line}: '{found}' (expected '1|0 enrollment test'")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "no trials"), ("\n \r\n", "no trials"), (bytes(range(256)), "not a text file")],
)
def test_a_list_without_trials_is_refused(tmp_path, content, message):
    with pytest.raises(TrialError, match=f"trials.txt: {message}"):
        read_trials(listed(tmp_path, content))


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
    monkeypatch.setattr("voxnest.evaluation.scoring.BLOCK_VALUES", 16 * 7)
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
