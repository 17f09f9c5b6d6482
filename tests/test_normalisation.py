"""Scores by a cohort: what the norms are, by whatever way they are computed, and what bad input gets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import TrialError
from voxnest.evaluation import as_norm, s_norm, t_norm, z_norm
from voxnest.scoring import cohort_statistics, normalise, score_indexed, speaker_means, subtract_mean
from voxnest.scoring.arrays import unique_rows

few = settings(derandomize=True, database=None, deadline=None, max_examples=30)


def world(seed, recordings=20, cohort=30, trials=60, dim=6, dtype=np.float64):
    """Embeddings, a cohort, indexed trials and their cosines."""
    random = np.random.default_rng(seed)
    matrix = (random.standard_normal((recordings, dim)) + 0.3).astype(dtype)
    others = (random.standard_normal((cohort, dim)) + 0.3).astype(dtype)
    first, second = random.integers(recordings, size=(2, trials))
    indexed = IndexedTrials([str(n) for n in range(recordings)], first, second, first % 3 == second % 3)
    return matrix, others, indexed, score_indexed(matrix, indexed, (dim,))[dim]


def by_hand(score, embeddings, cohort, top_n):
    """The mean of the score, normalised by each embedding: one trial, everything sorted."""
    normalised = []
    for embedding in embeddings:
        cosines = [c @ embedding / np.linalg.norm(c) / np.linalg.norm(embedding) for c in cohort]
        nearest = sorted(cosines, reverse=True)[:top_n]
        mean = sum(nearest) / len(nearest)
        deviation = (sum((cosine - mean) ** 2 for cosine in nearest) / len(nearest)) ** 0.5
        normalised.append((score - mean) / deviation)
    return sum(normalised) / len(normalised)


@pytest.mark.parametrize("top_n", [2, 7, 29, 30, 1000])
def test_as_norm_takes_the_nearest_of_the_cohort_all_of_a_smaller_one(top_n):
    matrix, cohort, trials, scores = world(0)
    sides = matrix[trials.enrollment], matrix[trials.test]
    wanted = [by_hand(score, pair, cohort, top_n) for score, *pair in zip(scores, *sides, strict=True)]
    assert as_norm(scores, *sides, cohort, top_n) == pytest.approx(wanted, abs=1e-9)
    assert normalise(scores, matrix, trials, cohort, "as", top_n) == pytest.approx(wanted, abs=1e-9)


def test_each_norm_uses_its_own_sides():
    matrix, cohort, trials, scores = world(1)
    sides = {"z": [trials.enrollment], "t": [trials.test], "s": [trials.enrollment, trials.test]}
    for norm, positions in sides.items():
        rows = zip(scores, *(matrix[position] for position in positions), strict=True)
        wanted = [by_hand(score, pair, cohort, len(cohort)) for score, *pair in rows]
        assert normalise(scores, matrix, trials, cohort, norm) == pytest.approx(wanted, abs=1e-9)
    first, second = matrix[trials.enrollment], matrix[trials.test]
    assert z_norm(scores, first, cohort).tolist() == normalise(scores, matrix, trials, cohort, "z").tolist()
    assert t_norm(scores, second, cohort).tolist() == normalise(scores, matrix, trials, cohort, "t").tolist()
    halves = (z_norm(scores, first, cohort) + t_norm(scores, second, cohort)) / 2
    assert s_norm(scores, first, second, cohort) == pytest.approx(halves, abs=1e-12)
    with pytest.raises(ValueError, match="norm is 'as-norm'"):
        normalise(scores, matrix, trials, cohort, "as-norm")


@few
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 45))
def test_the_forms_agree_and_the_whole_cohort_is_s_norm(seed, size, top_n):
    matrix, cohort, trials, scores = world(seed, cohort=size)
    first, second = matrix[trials.enrollment], matrix[trials.test]
    by_index = normalise(scores, matrix, trials, cohort, "as", top_n)
    assert as_norm(scores, first, second, cohort, top_n) == pytest.approx(by_index, rel=1e-9)
    assert as_norm(scores, first, second, cohort, size) == pytest.approx(s_norm(scores, first, second, cohort))
    # Neither the length of embeddings nor the order of the cohort or of the sides matters.
    assert as_norm(scores, 3 * second, first, 2 * cohort[::-1], top_n) == pytest.approx(by_index, rel=1e-6)


def test_similarities_tied_at_the_cut_count_as_often_as_there_is_room():
    cohort = np.array([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8], [0.6, 0.8], [-1.0, 0.0]])
    mean, deviation = cohort_statistics(np.array([[2.0, 0.0]]), cohort, 3)
    assert mean == pytest.approx([np.mean([1, 0.6, 0.6])])
    assert deviation == pytest.approx([np.std([1, 0.6, 0.6])])


def test_float32_embeddings_in_many_blocks_and_threads_give_the_same(monkeypatch):
    matrix, cohort, _, _ = world(2, recordings=300, cohort=50)
    exact = [cohort_statistics(matrix, cohort, top_n) for top_n in (20, None)]
    monkeypatch.setattr("voxnest.scoring.normalisation.BLOCK_VALUES", 50 * 7)
    for top_n, wanted in zip((20, None), exact, strict=True):
        found = cohort_statistics(matrix.astype(np.float32), cohort.astype(np.float32), top_n)
        assert np.abs(np.subtract(found, wanted)).max() < 1e-6
        assert found[0].dtype == np.float64


def test_rows_that_come_again_are_found_once_also_where_hashes_collide(monkeypatch):
    random = np.random.default_rng(0)
    rows = random.standard_normal((9, 5)).astype(np.float32)
    sides = rows[random.integers(9, size=40)], rows[random.integers(9, size=30)]
    distinct, positions = unique_rows(*sides)
    assert len(distinct) == 9
    monkeypatch.setattr("voxnest.scoring.arrays._hashes", lambda matrix: np.zeros(len(matrix), np.uint64))
    for found, places in ((distinct, positions), unique_rows(*sides)):
        for side, place in zip(sides, places, strict=True):
            assert np.array_equal(found[place], side)


def test_a_cohort_of_speakers_has_the_mean_of_each():
    embeddings = np.array([[2.0, 0.0], [0.0, 1.0], [0.0, 5.0], [3.0, 4.0]])
    means = speaker_means(embeddings, ["b", "a", "b", "c"])
    assert means == pytest.approx(np.array([[0, 1], [0.5, 0.5], [0.6, 0.8]]))


def test_the_mean_of_the_cohort_is_taken_from_both():
    matrix, cohort, _, _ = world(3, dtype=np.float32)
    assert np.abs(subtract_mean(cohort, cohort).mean(axis=0)).max() < 1e-6
    assert subtract_mean(matrix, cohort) == pytest.approx(matrix - cohort.mean(axis=0), abs=1e-6)
    assert subtract_mean(matrix, cohort).dtype == np.float32


def test_cohorts_that_cannot_be_used_are_refused():
    matrix, scores = np.array([[1.0, 0.0], [0.0, 1.0]]), [0.5]
    with pytest.raises(ValueError, match="expected two or more"):
        s_norm(scores, matrix[:1], matrix[1:], np.ones((1, 2)))
    with pytest.raises(ValueError, match="expected two or more"):
        as_norm(scores, matrix[:1], matrix[1:], np.eye(2), top_n=1)
    with pytest.raises(ValueError, match="a cohort of 3"):
        s_norm(scores, matrix[:1], matrix[1:], np.ones((5, 3)))
    with pytest.raises(ValueError, match="2 scores of 1 trials"):
        s_norm(np.zeros(2), matrix[:1], matrix[1:], np.eye(2))
    with pytest.raises(ValueError, match="shapes"):
        s_norm(scores, matrix[:1], np.ones((1, 3)), np.eye(2))


@pytest.mark.parametrize("broken", [[0.0, 0.0], [np.nan, 1.0]])
def test_a_recording_that_a_cohort_cannot_scale_is_named_in_one_line(broken):
    cohort = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    matrix = np.array([[1.0, 2.0], broken])
    for top_n in (2, 3):
        with pytest.raises(TrialError, match="equally similar to 1 of 2 recordings"):
            as_norm([0.5], matrix[:1], matrix[1:], cohort, top_n)
    with pytest.raises(TrialError, match="equally similar to 1 of 1"):
        z_norm([0.5], matrix[:1], np.ones((4, 2)))
