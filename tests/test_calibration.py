"""Log-likelihood ratios and thresholds: calibration, fusion, PLDA, and the numbers that judge them."""

import json
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import CheckpointError, CorpusError, TrialError
from voxnest.evaluation import compute_act_dcf, compute_cllr, compute_eer, compute_min_cllr, compute_min_dcf
from voxnest.scoring import (
    PLDA,
    FalseAcceptThreshold,
    LinearLLR,
    TooFewTrials,
    bayes_threshold,
    false_accept_threshold,
    fit_calibration,
    fit_fusion,
    fit_plda,
    pair_measures,
    probability,
    score_crops,
    score_indexed,
)

few = settings(derandomize=True, database=None, deadline=None, max_examples=40)


def normal_llrs(count, seed, separation=3.0, share=0.3):
    """Scores that are log-likelihood ratios: normal ones with means of +-d/2 and a variance of d."""
    random = np.random.default_rng(seed)
    labels = random.random(count) < share
    return random.standard_normal(count) * math.sqrt(separation) + np.where(labels, 0.5, -0.5) * separation, labels


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_calibration_undoes_scale_and_shift(prior):
    llrs, labels = normal_llrs(200_000, 0)
    calibration = fit_calibration(llrs / 40 + 0.3, labels, prior=prior)
    assert calibration.weights["score"] == pytest.approx(40, rel=0.03)
    assert calibration({"score": [0.3]}) == pytest.approx([0], abs=0.06)
    assert (calibration.targets, calibration.nontargets) == (labels.sum(), (~labels).sum())


def test_calibration_holds_on_other_trials():
    llrs, labels = normal_llrs(20_000, 1)
    calibration = fit_calibration(llrs**3 / 1000 + llrs / 40, labels)
    llrs, labels = normal_llrs(20_000, 2)
    scores = llrs**3 / 1000 + llrs / 40
    calibrated = calibration({"score": scores})
    least = compute_min_cllr(scores, labels)
    assert compute_cllr(calibrated, labels) < 1.15 * least < 0.8 * compute_cllr(scores, labels)


def test_the_least_cost_is_found():
    """No other weights have a lower cost, also with several inputs of very different sizes."""
    llrs, labels = normal_llrs(500, 3)
    random = np.random.default_rng(3)
    inputs = {"a": llrs + random.standard_normal(500), "b": 1e4 * (llrs + random.standard_normal(500)) + 1e6}
    fusion = fit_fusion(inputs, labels, prior=0.2)

    def cost(a, b, offset):
        odds = a * inputs["a"] + b * inputs["b"] + offset + math.log(0.2 / 0.8)
        losses = np.logaddexp(0, np.where(labels, -odds, odds))
        return 0.2 * losses[labels].mean() + 0.8 * losses[~labels].mean()

    at = [*fusion.weights.values(), fusion.offset]
    least = cost(*at)
    for changed in range(3):
        for factor in (0.9, 1.1):
            assert cost(*(value * (factor if place == changed else 1) for place, value in enumerate(at))) > least


def test_fusion_beats_each_of_its_systems():
    llrs, labels = normal_llrs(20_000, 4)
    random = np.random.default_rng(4)
    systems = {name: llrs + 2 * random.standard_normal(len(llrs)) for name in ("one", "other")}
    fused = fit_fusion(systems, labels)(systems)
    alone = [compute_cllr(fit_fusion({"x": scores}, labels)({"x": scores}), labels) for scores in systems.values()]
    assert compute_cllr(fused, labels) < 0.95 * min(alone)
    assert compute_eer(fused, labels)[0] < 0.9 * min(compute_eer(scores, labels)[0] for scores in systems.values())


def test_quality_measures_help_where_the_scores_depend_on_them():
    llrs, labels = normal_llrs(20_000, 5)
    random = np.random.default_rng(5)
    trials = IndexedTrials([], *random.integers(200, size=(2, 20_000)), labels)
    measures = pair_measures("log_duration", random.standard_normal(200), trials)
    scores = llrs + 3 * measures["log_duration_low"]
    plain, aware = fit_calibration(scores, labels), fit_calibration(scores, labels, measures)
    assert set(aware.weights) == {"score", "log_duration_low", "log_duration_high"}
    found = aware({"score": scores, **measures})
    assert compute_cllr(found, labels) < 0.8 * compute_cllr(plain({"score": scores}), labels)
    swapped = IndexedTrials([], trials.test, trials.enrollment, labels)
    again = pair_measures("log_duration", np.arange(200), swapped)
    assert again["log_duration_low"].tolist() == np.minimum(trials.test, trials.enrollment).tolist()


def test_kinds_that_can_be_separated_and_constant_measures_give_finite_weights():
    calibration = fit_calibration([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], {"constant": [7] * 4})
    assert calibration.weights["constant"] == pytest.approx(0, abs=1e-9)
    llrs = calibration({"score": [0.1, 0.9], "constant": [7, 7]})
    assert np.isfinite(llrs).all()
    assert llrs[0] < -2 < 2 < llrs[1]


def test_a_calibration_is_plain_json_and_anything_else_is_refused_in_one_line():
    calibration = fit_calibration([0.1, 0.5, 0.4, 0.9], [0, 0, 1, 1], prior=0.2)
    text = json.dumps(calibration.to_dict())
    assert LinearLLR.from_dict(json.loads(text)) == calibration
    for change in ({"weights": {}}, {"weights": 3}, {"offset": None}, {"offset": math.nan}, {"prior": 1}):
        with pytest.raises(CheckpointError, match="calibration"):
            LinearLLR.from_dict({**calibration.to_dict(), **change})
    for other in (None, [], {"weights": {"score": 1}}):
        with pytest.raises(CheckpointError, match="calibration"):
            LinearLLR.from_dict(other)
    with pytest.raises(ValueError, match="inputs duration, score: expected score"):
        calibration({"score": [1], "duration": [2]})


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "score: no trials"),
        ([0.1, 0.2], [1, 1], "only target trials"),
        ([0.1, float("nan")], [0, 1], "score: 1 of 2 are NaN"),
    ],
)
def test_trials_that_nothing_can_be_learnt_from_are_named(scores, labels, message):
    with pytest.raises(TrialError, match=message):
        fit_calibration(scores, labels)


def test_each_trial_twice_is_the_same_calibration():
    llrs, labels = normal_llrs(2000, 6)
    once, twice = fit_calibration(llrs, labels), fit_calibration(np.tile(llrs, 2), np.tile(labels, 2))
    assert twice.weights["score"] == pytest.approx(once.weights["score"], rel=1e-3)


def test_bayes_threshold_and_probability_are_one_rule():
    assert bayes_threshold(0.5) == 0
    assert bayes_threshold(0.01) == pytest.approx(math.log(99))
    assert bayes_threshold(0.5, c_miss=1, c_fa=99) == pytest.approx(bayes_threshold(0.01))
    assert probability([bayes_threshold(0.01), 0, 800, -800], 0.01) == pytest.approx([0.5, 0.01, 1, 0])
    for arguments in ((0,), (1,), (0.5, 0), (0.5, 1, -1)):
        with pytest.raises(ValueError, match="expected"):
            bayes_threshold(*arguments)


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_a_false_accept_threshold_keeps_its_promise_whatever_the_distribution(rate):
    random = np.random.default_rng(0)
    accepted = []
    for _ in range(300):
        scores = random.standard_cauchy(1000)
        found = false_accept_threshold(scores, rate)
        assert isinstance(found, FalseAcceptThreshold)
        assert found.accepted == np.sum(scores >= found.threshold) == rate * 1000 - 1
        accepted.append(np.mean(random.standard_cauchy(1000) >= found.threshold))
    assert 0.85 * rate < np.mean(accepted) < 1.05 * rate


def test_too_few_trials_for_a_rate_are_said_to_be():
    few = false_accept_threshold(np.arange(98), 0.01)
    assert few == TooFewTrials(0.01, 98, 99)
    assert str(few) == "98 non-target trials are too few for a false-accept rate of 0.01: it takes 99"
    enough = false_accept_threshold(np.arange(99), 0.01)
    assert isinstance(enough, FalseAcceptThreshold)
    assert (enough.accepted, enough.nontargets) == (0, 99)
    assert "fewer than 30" in str(enough)
    tied = false_accept_threshold(np.zeros(1000), 0.1)
    assert isinstance(tied, FalseAcceptThreshold)
    assert 0 < tied.threshold < 1e-300
    assert tied.accepted == 0
    for scores, message in (([], "no trials"), ([1, np.nan], "1 of 2 are NaN")):
        with pytest.raises(TrialError, match=message):
            false_accept_threshold(scores, 0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        false_accept_threshold([1], 1)


def test_act_dcf_is_the_cost_at_the_bayes_threshold():
    llrs, labels = normal_llrs(3000, 7)
    for prior, c_miss, c_fa in ((0.01, 1, 1), (0.5, 1, 1), (0.05, 10, 2)):
        threshold = bayes_threshold(prior, c_miss, c_fa)
        cost = c_miss * prior * np.mean(llrs[labels] < threshold)
        cost += c_fa * (1 - prior) * np.mean(llrs[~labels] >= threshold)
        wanted = cost / min(c_miss * prior, c_fa * (1 - prior))
        assert compute_act_dcf(llrs, labels, prior, c_miss, c_fa) == pytest.approx(wanted)
        assert compute_min_dcf(llrs, labels, prior, c_miss, c_fa) <= wanted + 1e-12
    assert compute_act_dcf([0.0, 0.0], [0, 1], 0.5) == 1  # at the threshold is accepted


def test_cllr_is_the_mean_surprise_in_bits():
    llrs, labels = np.array([2.0, -1.0, 0.5, -3.0]), np.array([1, 1, 0, 0])
    wanted = (np.log2(1 + np.exp(-llrs[:2])).mean() + np.log2(1 + np.exp(llrs[2:])).mean()) / 2
    assert compute_cllr(llrs, labels) == pytest.approx(wanted)
    assert compute_cllr(np.zeros(5), [0, 1, 0, 1, 1]) == pytest.approx(1)
    assert compute_cllr([900, -900], [1, 0]) == 0
    assert compute_cllr([900, -900], [0, 1]) == pytest.approx(900 / math.log(2))


def isotonic(scores, labels):
    """Posteriors by the definition: the largest over beginnings of the smallest over ends of the mean between."""
    values = np.unique(scores)
    targets, counts = (
        np.array([weight[scores == value].sum() for value in values]) for weight in (labels, labels + 1 - labels)
    )
    share = [
        max(
            min(targets[a : b + 1].sum() / counts[a : b + 1].sum() for b in range(k, len(values))) for a in range(k + 1)
        )
        for k in range(len(values))
    ]
    return np.array(share)[np.searchsorted(values, scores)]


# The last score, of non-targets alone, pulls down all that are below it, one after the other.
CASCADE = [
    (score, kind < of[0]) for score, of in enumerate([(1, 1), (6, 5), (3, 2), (0, 5)]) for kind in range(sum(of))
]


@few
@example(CASCADE)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=25))
def test_min_cllr_is_that_of_isotonic_regression_and_never_above_cllr(trials):
    scores, labels = np.array([t[0] for t in trials], float), np.array([int(t[1]) for t in trials])
    if labels.min() == labels.max():
        return
    share = isotonic(scores, labels)
    with np.errstate(divide="ignore"):
        best = np.log(share / (1 - share)) - math.log(labels.sum() / (1 - labels).sum())
    kinds = [np.logaddexp(0, -best[labels == 1]).mean(), np.logaddexp(0, best[labels == 0]).mean()]
    found = compute_min_cllr(scores, labels)
    assert found == pytest.approx(sum(kinds) / math.log(4), abs=1e-12)
    assert found <= compute_cllr(scores, labels) + 1e-12
    assert found <= 1 + 1e-12
    assert compute_min_cllr(scores**3 + 2 * scores, labels) == pytest.approx(found, abs=1e-12)


def two_covariances(seed, speakers=300, each=8, dim=12):
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((dim, dim))
    centres = random.standard_normal((speakers, dim)) * np.linspace(0.3, 2, dim)
    speaker = np.repeat(np.arange(speakers), each)
    return (centres[speaker] + random.standard_normal((len(speaker), dim))) @ mixing + 5, speaker


def all_pairs(speaker):
    first, second = np.triu_indices(len(speaker), k=1)
    return IndexedTrials([str(n) for n in range(len(speaker))], first, second, speaker[first] == speaker[second])


def test_plda_tells_new_speakers_apart_better_than_cosine_and_is_calibrated():
    plda = fit_plda(*two_covariances(0))
    matrix, speaker = two_covariances(0, speakers=360)
    matrix, trials = matrix[-480:], all_pairs(speaker[-480:])
    llrs, cosines = plda.score(matrix, trials), score_indexed(matrix, trials, (12,))[12]
    assert compute_eer(llrs, trials.labels)[0] < 0.6 * compute_eer(cosines, trials.labels)[0]
    whitened = fit_plda(*two_covariances(0), lda=False).score(matrix, trials)
    assert compute_eer(whitened, trials.labels)[0] < 0.6 * compute_eer(cosines, trials.labels)[0]
    assert compute_cllr(llrs, trials.labels) < 1.2 * compute_min_cllr(llrs, trials.labels)


def test_plda_scores_are_the_ratio_of_the_two_densities():
    plda = fit_plda(*two_covariances(1, dim=3), dim=2)
    matrix, speaker = two_covariances(2, speakers=3, each=2, dim=3)
    trials = all_pairs(speaker)
    rows, between = plda.transform(matrix), np.diag(plda.between)

    def log_density(x, covariance):
        return -0.5 * (x @ np.linalg.solve(covariance, x) + np.linalg.slogdet(covariance)[1])

    total = between + np.eye(2)
    wanted = [
        log_density(np.concatenate([rows[a], rows[b]]), np.block([[total, between], [between, total]]))
        - log_density(rows[a], total)
        - log_density(rows[b], total)
        for a, b in zip(trials.enrollment, trials.test, strict=True)
    ]
    assert plda.score(matrix, trials) == pytest.approx(wanted, abs=1e-9)


def test_plda_is_a_set_of_arrays_and_others_are_refused():
    plda = fit_plda(*two_covariances(3, speakers=40, each=5, dim=4))
    matrix, speaker = two_covariances(4, speakers=3, each=2, dim=4)
    again = PLDA.from_arrays(plda.to_arrays())
    assert again.score(matrix, all_pairs(speaker)).tolist() == plda.score(matrix, all_pairs(speaker)).tolist()
    for change in (
        {"mean": np.zeros(3)},
        {"between": -np.ones(4)},
        {"centre": np.full(4, np.nan)},
        {"more": np.ones(1)},
    ):
        with pytest.raises(CheckpointError, match="PLDA"):
            PLDA.from_arrays({**plda.to_arrays(), **change})
    with pytest.raises(CorpusError, match="two or more speakers"):
        fit_plda(np.eye(3), [0, 1, 2])
    with pytest.raises(CorpusError, match="NaN"):
        fit_plda(np.full((4, 2), np.nan), [0, 0, 1, 1])
    with pytest.raises(ValueError, match="determine 4 directions"):
        fit_plda(*two_covariances(3, speakers=40, each=5, dim=4), dim=5)


def test_expectation_maximisation_never_loses_likelihood():
    matrix, speaker = two_covariances(5, speakers=40, each=4, dim=4)
    keep = np.random.default_rng(0).random(len(speaker)) < 0.7  # speakers with different numbers of utterances

    def likelihood(plda):
        rows = plda.transform(matrix[keep])
        total = len(rows) * np.linalg.slogdet(plda.basis)[1] - np.square(rows).sum() / 2
        for name in np.unique(speaker[keep]):
            own = rows[speaker[keep] == name]
            count, between = len(own), plda.between
            shared = between / (1 + count * between) * own.sum(axis=0) ** 2
            total += (shared - np.log(1 + count * between)).sum() / 2
        return total

    found = [likelihood(fit_plda(matrix[keep], speaker[keep], iterations=count)) for count in (1, 2, 5, 10, 50)]
    assert np.all(np.diff(found) > 0)


def test_crops_score_as_the_mean_of_all_their_cosines():
    random = np.random.default_rng(0)
    crops, whole = random.standard_normal((4, 3, 6)), random.standard_normal((4, 6))
    trials = IndexedTrials(list("abcd"), np.array([0, 2]), np.array([1, 3]), np.array([True, False]))

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    for dim in (2, 6):
        grids = [
            np.mean([cosine(a, b) for a in crops[first, :, :dim] for b in crops[second, :, :dim]])
            for first, second in ((0, 1), (2, 3))
        ]
        assert score_crops(crops, trials, (2, 6))[dim] == pytest.approx(grids)
        both = [
            (grid + cosine(whole[a, :dim], whole[b, :dim])) / 2
            for grid, (a, b) in zip(grids, ((0, 1), (2, 3)), strict=True)
        ]
        assert score_crops(crops, trials, (2, 6), whole)[dim] == pytest.approx(both)
