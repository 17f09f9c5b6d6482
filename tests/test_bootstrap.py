"""How sure a metric is, and metrics by group and of identification."""

import numpy as np
import pytest

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import TrialError
from voxnest.evaluation import (
    ErrorCurve,
    Group,
    bands,
    breakdown,
    compute_act_dcf,
    compute_cllr,
    compute_eer,
    compute_min_cllr,
    compute_min_dcf,
    metric_difference,
    metric_interval,
    metric_replicates,
    open_set_error,
    pair_groups,
    top_k_accuracy,
)

METRICS = {
    ErrorCurve.eer: lambda scores, labels: compute_eer(scores, labels)[0],
    ErrorCurve.min_dcf: compute_min_dcf,
    ErrorCurve.act_dcf: compute_act_dcf,
    ErrorCurve.cllr: compute_cllr,
    ErrorCurve.min_cllr: compute_min_cllr,
}


def world(speakers, seed, noise=1.0):
    """Scores of all pairs of three utterances per speaker, and who speaks; some with ties."""
    random = np.random.default_rng(seed)
    speaker = np.repeat(np.arange(speakers), 3)
    points = np.random.default_rng(0).standard_normal((speakers, 8))[speaker] + noise * random.standard_normal(
        (len(speaker), 8)
    )
    first, second = np.triu_indices(len(speaker), k=1)
    return np.round(4 - np.linalg.norm(points[first] - points[second], axis=1), 1), speaker[first], speaker[second]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.__name__)
def test_a_draw_of_speakers_is_a_list_in_which_each_comes_as_often_as_it_was_drawn(metric):
    scores, first, second = world(7, seed=1)
    found = metric_replicates(scores, first == second, first, second, metric, replicates=5, seed=3)
    drawn = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), size=5)
    for times, value in zip(drawn, found, strict=True):
        weights = np.where(first == second, times[first], times[first] * times[second])
        wanted = METRICS[metric](np.repeat(scores, weights), np.repeat(first == second, weights))
        assert value == pytest.approx(wanted, abs=1e-12)


def test_any_metric_has_an_interval():
    scores, first, second = world(30, seed=1)
    labels = first == second
    for metric, compute in METRICS.items():
        low, high = metric_interval(scores, labels, first, second, metric, replicates=60)
        assert low <= compute(scores, labels) <= high
        assert low < high or metric not in (ErrorCurve.eer, ErrorCurve.cllr)  # a cost of 1 is that of no answer
    low, high = metric_interval(scores, labels, first, second, lambda curve: curve.fnr_at_fpr(0.05), replicates=60)
    assert 0 <= low <= high <= 1


def test_a_paired_difference_is_surer_than_two_intervals():
    good, first, second = world(40, seed=1, noise=1.0)
    poor = good + np.random.default_rng(0).normal(scale=0.8, size=len(good))
    labels = first == second
    found = metric_difference(poor, good, labels, first, second, replicates=200)
    assert found.value == compute_eer(poor, labels)[0] - compute_eer(good, labels)[0]
    assert 0 < found.low < found.value < found.high
    alone = metric_interval(good, labels, first, second, replicates=200)
    assert found.high - found.low < 1.5 * (alone[1] - alone[0])
    same = metric_difference(good, 2 * good + 1, labels, first, second, replicates=50)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="confidence"):
        metric_difference(good, poor, labels, first, second, confidence=0)


def test_lowest_misses_at_a_rate_of_false_accepts():
    curve = ErrorCurve.of([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 0, 1, 0, 1, 1])
    assert [curve.fnr_at_fpr(rate) for rate in (0, 0.33, 0.34, 1)] == [1 / 3, 1 / 3, 0, 0]


def test_groups_of_trials_are_measured_by_themselves():
    labels = [1, 0, 1, 0, 1, 1]
    scores = [0.9, 0.1, 0.2, 0.8, 0.5, 0.5]
    assert breakdown(scores, labels, ["f", "f", "m", "m", "m", "x"]) == [
        Group("m", 2, 1, 1.0),
        Group("f", 1, 1, 0.0),
        Group("x", 1, 0, None),
    ]
    with pytest.raises(ValueError, match="groups of shape"):
        breakdown(scores, labels, ["f"])


def test_a_pair_is_named_after_both_whatever_their_order():
    trials = IndexedTrials(list("abc"), np.array([0, 0, 1, 2]), np.array([1, 2, 0, 2]), np.zeros(4, bool))
    assert pair_groups(["m", "f", "m"], trials).tolist() == ["f / m", "m", "f / m", "m"]
    assert bands([1.9, 2, 3.99, 4, 9], [2, 4]).tolist() == ["under 2 s", "2-4 s", "2-4 s", "from 4 s", "from 4 s"]
    for edges in ([], [2, 2]):
        with pytest.raises(ValueError, match="ascending"):
            bands([1.0], edges)


def test_top_k_counts_ties_against_the_right_person():
    scores = [[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.9, 0.8, 0.7]]
    assert top_k_accuracy(scores, ["a", "b", "c"], ["a", "b", "c"], (1, 2, 3)) == {1: 1 / 3, 2: 2 / 3, 3: 1}
    with pytest.raises(TrialError, match="1 of 3 are of nobody"):
        top_k_accuracy(scores, ["a", "b", "z"], ["a", "b", "c"])


def test_an_open_set_is_searched_at_a_threshold():
    gallery = ["a", "b"]
    scores = np.array([[0.9, 0.1], [0.4, 0.2], [0.8, 0.7], [0.3, 0.1], [0.5, 0.2], [0.1, 0.2], [0.2, 0.6]])
    probes = ["a", "a", "b", "x", "x", "y", "z"]  # the third is taken for somebody else
    for fpir, wanted, fnir in ((0, 0, 2 / 3), (0.25, 0.25, 2 / 3), (0.5, 0.5, 1 / 3), (1, 1, 1 / 3)):
        found = open_set_error(scores, probes, gallery, fpir)
        assert (found.fpir, found.fnir) == (wanted, fnir)
        assert found.fpir == np.mean(scores[3:].max(axis=1) >= found.threshold)
    assert (found.mated, found.nonmated) == (3, 4)
    tied = open_set_error([[0.5], [0.5], [0.5]], ["a", "x", "y"], ["a"], 0.5)
    assert (tied.fpir, tied.fnir) == (0, 1)


@pytest.mark.parametrize(
    ("scores", "probes", "gallery", "error", "message"),
    [
        ([[0.1, np.nan]], ["a"], ["a", "b"], TrialError, "1 of 2 are NaN"),
        ([[0.1, 0.2]], ["a"], ["a", "b"], TrialError, "1 of enrolled people and 0 of others"),
        ([[0.1, 0.2]], ["a"], ["a", "a"], ValueError, "each person once"),
        ([[0.1]], ["a"], ["a", "b"], ValueError, "each person once"),
        (np.empty((0, 1)), [], ["a"], TrialError, "no probes"),
    ],
)
def test_searches_that_cannot_be_measured_are_named(scores, probes, gallery, error, message):
    with pytest.raises(error, match=message):
        open_set_error(scores, probes, gallery)
