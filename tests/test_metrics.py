"""Error rates: agreement with wespeaker, exactness, and what bad input gets."""

import json
import time

import numpy as np
import pytest

from voxnest.errors import TrialError
from voxnest.evaluation import (
    Trial,
    as_norm,
    compute_eer,
    compute_min_dcf,
    error_rates,
    metric_interval,
    s_norm,
    score_trials,
)
from voxnest.scoring import subtract_mean


def drawn(case):
    """Embeddings, cohort and trials by the golden file's rule."""
    random = np.random.default_rng(case["seed"])
    speakers, utterances, noise = case["speakers"], case["utterances_per_speaker"], case["noise"]
    count = speakers * utterances
    centers = random.standard_normal((speakers, 192))
    embeddings = np.repeat(centers, utterances, axis=0) + noise * random.standard_normal((count, 192)) + 0.5
    cohort = random.standard_normal((case["cohort"], 192)) * np.sqrt(1 + noise**2) + 0.5
    a, b = random.integers(0, count, case["drawn"]), random.integers(0, count, case["drawn"])
    same = random.random(case["drawn"]) < 0.2
    b = np.where(same, (a // utterances) * utterances + random.integers(0, utterances, case["drawn"]), b)
    trials = [
        Trial(bool(i // utterances == j // utterances), str(i), str(j)) for i, j in zip(a, b, strict=True) if i != j
    ]
    return {str(i): embedding for i, embedding in enumerate(embeddings)}, cohort, trials


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("system", ["cosine", "cosine_mean_subtracted"])
@pytest.mark.parametrize("norm", ["", "+s_norm", "+as_norm"])
def test_scores_and_error_rates_agree_with_wespeaker(golden, index, system, norm):
    case = json.loads((golden / "scoring.json").read_text())["cases"][index]
    embeddings, cohort, trials = drawn(case)
    assert len(trials) == case["trials"]
    if system == "cosine_mean_subtracted":
        embeddings = dict(zip(embeddings, subtract_mean(list(embeddings.values()), cohort), strict=True))
        cohort = subtract_mean(cohort, cohort)
    scores = score_trials(embeddings, trials)
    sides = [np.stack([embeddings[trial[side]] for trial in trials]) for side in (1, 2)]
    if norm == "+s_norm":
        scores = s_norm(scores, *sides, cohort)
    elif norm == "+as_norm":
        scores = as_norm(scores, *sides, cohort, top_n=case["top_n"])
    labels = [trial.label for trial in trials]
    eer, threshold = compute_eer(scores, labels)
    wanted = case["results"][system + norm]
    assert scores[:5] == pytest.approx(wanted["first_scores"], abs=1e-10)
    assert eer == pytest.approx(wanted["eer"], abs=1e-12)
    assert threshold == pytest.approx(wanted["threshold"], abs=1e-10)
    assert compute_min_dcf(scores, labels, p_target=0.01) == pytest.approx(wanted["min_dcf_0p01"], abs=1e-12)
    assert compute_min_dcf(scores, labels, p_target=0.05) == pytest.approx(wanted["min_dcf_0p05"], abs=1e-12)


def test_perfect_scores_have_no_error_and_a_threshold_between_the_kinds():
    scores, labels = [0.9, 0.1, 0.8, 0.2], [1, 0, 1, 0]
    assert compute_eer(scores, labels) == (0.0, pytest.approx(0.5))
    assert compute_min_dcf(scores, labels) == 0.0


def test_inverted_scores_are_always_wrong_and_never_cost_more_than_a_constant_answer():
    scores, labels = [0.9, 0.1, 0.8, 0.2], [0, 1, 0, 1]
    assert compute_eer(scores, labels)[0] == 1.0
    assert compute_min_dcf(scores, labels, p_target=0.01) == 1.0
    assert compute_min_dcf(scores, labels, p_target=0.99) == pytest.approx(1.0)


def test_one_error_of_each_kind_in_four_is_a_quarter():
    scores = [0.1, 0.2, 0.3, 0.6, 0.4, 0.7, 0.8, 0.9]
    labels = [False] * 4 + [True] * 4
    eer, threshold = compute_eer(scores, labels)
    assert eer == 0.25
    accepted = np.array(scores) >= threshold
    assert np.mean(accepted[:4]) == np.mean(~accepted[4:]) == 0.25


def test_tied_scores_stand_or_fall_together():
    assert compute_eer([0.5] * 6, [1, 0, 0, 1, 0, 1])[0] == 0.5
    labels = np.array([1, 1, 0, 0, 0, 1])
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.2, 0.5])
    results = {compute_eer(scores[order], labels[order]) for order in ([0, 1, 2, 3, 4, 5], [5, 4, 2, 3, 1, 0])}
    assert len(results) == 1
    # from (fnr 0, fpr 1/3) to (fnr 2/3, fpr 0) with the tie: they meet at 2/9
    assert results.pop() == (pytest.approx(2 / 9), 0.5)


@pytest.mark.parametrize("levels", [3, 10, 1000])
def test_rates_are_those_of_counting_at_every_threshold(levels):
    random = np.random.default_rng(levels)
    labels = random.random(300) < 0.3
    scores = random.integers(0, levels, 300) / levels + 0.2 * labels
    thresholds, fnr, fpr = error_rates(scores, labels)
    assert len(thresholds) == len(np.unique(scores)) + 1
    for threshold, miss, false_accept in zip(thresholds, fnr, fpr, strict=True):
        assert miss == np.mean(scores[labels] < threshold)
        assert false_accept == np.mean(scores[~labels] >= threshold)
    by_hand = min(0.05 * fnr + 0.95 * fpr) / 0.05
    assert compute_min_dcf(scores, labels, p_target=0.05) == pytest.approx(by_hand)


def test_costs_weigh_the_errors():
    scores, labels = [0.1, 0.3, 0.2, 0.4], [0, 0, 1, 1]
    assert compute_min_dcf(scores, labels, p_target=0.5) == 0.5
    assert compute_min_dcf(scores, labels, p_target=0.5, c_miss=10, c_fa=1) == 0.5
    assert compute_min_dcf(scores, labels, p_target=0.5, c_miss=1, c_fa=0.5) == 0.5
    # the same cost ratio is the same cost
    random = np.random.default_rng(0)
    labels = random.random(500) < 0.2
    scores = random.standard_normal(500) + labels
    ratio = compute_min_dcf(scores, labels, p_target=0.5, c_miss=1, c_fa=99)
    assert ratio == pytest.approx(compute_min_dcf(scores, labels, p_target=0.01))


def test_threshold_of_neighbouring_floats_still_separates():
    low = 0.3
    high = np.nextafter(low, 1)
    _, threshold = compute_eer([low, high], [0, 1])
    assert low < threshold <= high


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "no trials"),
        ([0.1, 0.2], [1, 1], "only target trials"),
        ([0.1, 0.2], [False, False], "only non-target trials"),
        ([0.1, float("nan")], [0, 1], "1 of 2 are NaN or infinite"),
        ([0.1, float("inf")], [0, 1], "NaN or infinite"),
    ],
)
def test_trials_that_cannot_be_measured_are_named(scores, labels, message):
    for metric in (compute_eer, compute_min_dcf, error_rates):
        with pytest.raises(TrialError, match=message):
            metric(scores, labels)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1], r"\(2,\) and labels of shape \(1,\)"),
        ([[0.1, 0.2]], [[0, 1]], "one each per trial"),
        ([0.1, 0.2], [1, 2], "labels hold"),
        ([0.1, 0.2], [-1, 1], "labels hold"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        compute_eer(scores, labels)


@pytest.mark.parametrize("arguments", [{"p_target": 0}, {"p_target": 1}, {"c_miss": 0}, {"c_fa": -1}])
def test_impossible_costs_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        compute_min_dcf([0.1, 0.2], [0, 1], **arguments)


def test_half_a_million_trials_take_less_than_a_second_of_computing():
    random = np.random.default_rng(0)
    labels = random.random(581_480) < 0.5
    scores = random.standard_normal(581_480) + 3 * labels
    start = time.process_time()
    compute_eer(scores, labels)
    assert time.process_time() - start < 1


def world(speakers, seed):
    """All pairs of four utterances per speaker; some speakers are harder than others."""
    random = np.random.default_rng(seed)
    voices = random.standard_normal((speakers, 16))
    spread = random.uniform(0.5, 2.5, speakers)
    speaker = np.repeat(np.arange(speakers), 4)
    points = voices[speaker] + spread[speaker, None] * random.standard_normal((4 * speakers, 16))
    first, second = np.triu_indices(4 * speakers, k=1)
    scores = -np.linalg.norm(points[first] - points[second], axis=1)
    return scores, speaker[first], speaker[second]


def test_interval_holds_the_truth_about_as_often_as_it_says():
    truth = compute_eer(*(lambda s, a, b: (s, a == b))(*world(400, seed=999)))[0]
    held = 0
    for seed in range(40):
        scores, first, second = world(30, seed)
        low, high = metric_interval(scores, first == second, first, second, confidence=0.9, replicates=150)
        assert low < compute_eer(scores, first == second)[0] < high
        held += low <= truth <= high
    assert 30 <= held <= 40  # 36 expected


def test_interval_is_repeatable_and_takes_names():
    scores, first, second = world(12, seed=3)
    names = np.array([f"id{index:05d}" for index in range(12)])
    once = metric_interval(scores, first == second, names[first], names[second], replicates=100)
    assert once == metric_interval(scores, first == second, first, second, replicates=100)
    wider = metric_interval(scores, first == second, first, second, replicates=100, confidence=0.99)
    assert wider[0] <= once[0] <= once[1] <= wider[1]


def test_interval_refuses_too_few_speakers_and_arrays_that_do_not_fit():
    with pytest.raises(TrialError, match="2 speakers: too few"):
        metric_interval([0.9, 0.1], [1, 0], ["a", "a"], ["a", "b"], replicates=300)
    with pytest.raises(ValueError, match="2 scores, but 1 pairs"):
        metric_interval([0.9, 0.1], [1, 0], ["a"], ["b"])
    with pytest.raises(ValueError, match="confidence"):
        metric_interval([0.9, 0.1], [1, 0], ["a", "a"], ["a", "b"], confidence=95)
