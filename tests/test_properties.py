"""What holds for every input, not only for those that somebody thought of."""

import math
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from voxnest.cli.command import with_json_file
from voxnest.corpora.manifest import Utterance
from voxnest.corpora.trials import Trial, index_trials, read_trials, write_trials
from voxnest.crops.dataset import CropDataset, stratified_order
from voxnest.errors import TrialError, one_of
from voxnest.evaluation.metrics import compute_eer, compute_min_dcf, error_rates, error_rates_at
from voxnest.files import is_stream
from voxnest.matryoshka import discriminative_rotation, pca_rotation, with_dims
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.registry import create_encoder

few = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
RATE = 16000


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores, with ties, and labels of both kinds. The scores are sixteenths, which arithmetic keeps exact."""
    labels = np.array(draw(st.lists(st.booleans(), min_size=2, max_size=30)))
    assume(labels.any() and not labels.all())
    levels = st.integers(-16, 16 if draw(st.booleans()) else -14)
    return np.array(draw(st.lists(levels, min_size=len(labels), max_size=len(labels)))) / 16, labels


@few
@given(scored())
def test_error_rates_do_not_depend_on_the_scale_of_scores_nor_on_their_order(
    trials: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = trials
    eer, cost = compute_eer(scores, labels)[0], compute_min_dcf(scores, labels)
    for monotone in (3 * scores + 7, np.exp(scores), scores**3, np.unique(scores, return_inverse=True)[1]):
        assert compute_eer(monotone, labels)[0] == eer
        assert compute_min_dcf(monotone, labels) == cost
    assert compute_eer(scores[::-1], labels[::-1])[0] == eer
    # Each trial twice is the same list.
    assert compute_eer(np.tile(scores, 2), np.tile(labels, 2))[0] == pytest.approx(eer, abs=1e-12)


@few
@given(scored())
def test_swapping_the_kinds_of_trials_mirrors_the_error_rates(trials: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = trials
    eer, cost = compute_eer(scores, labels)[0], compute_min_dcf(scores, labels, 0.05)
    assert compute_eer(-scores, ~labels)[0] == pytest.approx(eer, abs=1e-12)
    assert compute_eer(-scores, labels)[0] == pytest.approx(1 - eer, abs=1e-12)
    assert compute_min_dcf(-scores, ~labels, 0.95) == pytest.approx(cost, abs=1e-12)


@few
@given(scored(), st.floats(0.001, 0.999))
def test_error_rates_have_their_bounds_and_the_threshold_is_where_they_meet(
    trials: tuple[np.ndarray, np.ndarray], prior: float
) -> None:
    scores, labels = trials
    eer, threshold = compute_eer(scores, labels)
    assert 0 <= eer <= 1
    assert 0 <= compute_min_dcf(scores, labels, prior) <= 1
    thresholds, misses, false_accepts = error_rates(scores, labels)
    assert (np.diff(misses) >= 0).all()
    assert (np.diff(false_accepts) <= 0).all()
    assert (misses[0], false_accepts[0], misses[-1], false_accepts[-1]) == (0, 1, 1, 0)
    for place, each in enumerate(thresholds):
        assert error_rates_at(scores, labels, each) == (misses[place], false_accepts[place])
    # At the threshold and at the next one the rates lie on both sides of the equal error rate.
    at = error_rates_at(scores, labels, threshold)
    after = error_rates_at(scores, labels, min(scores[scores > threshold], default=math.inf))
    before = error_rates_at(scores, labels, max(scores[scores < threshold], default=-math.inf))
    near = [before, at, after]
    assert min(miss for miss, _ in near) - 1e-12 <= eer <= max(miss for miss, _ in near) + 1e-12
    assert min(accept for _, accept in near) - 1e-12 <= eer <= max(accept for _, accept in near) + 1e-12
    by_hand = min(prior * misses + (1 - prior) * false_accepts) / min(prior, 1 - prior)
    assert compute_min_dcf(scores, labels, prior) == pytest.approx(by_hand)


@few
@given(st.lists(st.booleans(), min_size=2, max_size=20))
def test_scores_that_are_all_alike_are_chance(labels: list[bool]) -> None:
    assume(0 < sum(labels) < len(labels))
    assert compute_eer([0.3] * len(labels), labels)[0] == 0.5
    assert compute_min_dcf([0.3] * len(labels), labels) == 1.0


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="\ufeff"), min_size=1
).filter(lambda name: name.split() == [name])
TRIALS = st.lists(st.builds(Trial, st.booleans(), NAMES, NAMES), min_size=1, max_size=20)


@few
@given(TRIALS)
def test_written_trials_are_read_as_they_were(tmp_path: Path, trials: list[Trial]) -> None:
    assume(trials[0].test not in ("target", "nontarget"))  # it would look like Kaldi's format
    write_trials(trials, tmp_path / "trials.txt")
    assert read_trials(tmp_path / "trials.txt") == trials
    indexed = index_trials(trials)
    assert len(set(indexed.names)) == len(indexed.names)
    rows = zip(indexed.labels, indexed.enrollment, indexed.test, strict=True)
    assert [Trial(bool(label), indexed.names[a], indexed.names[b]) for label, a, b in rows] == trials


WORDS = st.sampled_from(["0", "1", "target", "nontarget", "a.wav", "b/c.wav", "\ufeff", "\x1f"])
LINES = st.lists(st.lists(WORDS, max_size=4).map(" ".join), max_size=4).map("\n".join)


@few
@given(st.one_of(st.text(), LINES).map(str.encode) | st.binary())
def test_any_text_is_trials_or_a_trial_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trials.txt"
    path.write_bytes(content)
    try:
        trials = read_trials(path)
    except TrialError as error:
        message = str(error)
    else:
        message = f"{path}: {len(trials)}"
        assert len(trials) == sum(bool(line.split()) for line in content.decode("utf-8-sig").split("\n"))
        assert all(name.split() == [name] for trial in trials for name in trial[1:])
    assert message.startswith(f"{path}:")
    assert len(message.splitlines()) == 1


@pytest.fixture(scope="module")
def ramp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second whose samples say where they are: sample i is i / 32768."""
    path = tmp_path_factory.mktemp("ramp") / "ramp.wav"
    soundfile.write(path, np.arange(RATE, dtype=np.int16), RATE)
    return path


@st.composite
def corpora(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """Speaker, offset and duration of each utterance, within a second."""
    offset = st.floats(0, 0.8)
    many = draw(st.lists(st.tuples(st.sampled_from("abc"), offset, st.floats(0.0001, 1)), min_size=1, max_size=6))
    return [(speaker, start, min(length, 0.99 - start)) for speaker, start, length in many]


@few
@given(corpora(), st.floats(0.01, 0.5), st.floats(0, 1), st.integers(0, 5), st.booleans())
def test_crops_lie_inside_their_utterance_and_their_number_makes_them(
    ramp: Path, corpus: list[tuple[str, float, float]], seconds: float, balance: float, epoch: int, cached: bool
) -> None:
    utterances = [Utterance(str(n), who, "", ramp, length, start) for n, (who, start, length) in enumerate(corpus)]
    options = {"duration": seconds, "balance": balance, "crops_per_epoch": 7}
    dataset = CropDataset(utterances, cache_gb=float(cached), **options)  # type: ignore[arg-type]
    again = CropDataset(utterances, cache_gb=1.0, **options)  # type: ignore[arg-type]
    dataset.set_epoch(epoch)
    again.set_epoch(epoch)
    for number in range(len(dataset)):
        crop = dataset[number]
        utterance = utterances[crop.utterance]
        assert crop.waveform.shape == (round(seconds * RATE),)
        assert dataset.speakers[crop.label] == utterance.speaker
        places = np.rint(crop.waveform * 32768).astype(int)
        first = round(utterance.offset * RATE)
        last = first + max(1, round(utterance.duration * RATE))
        assert first <= places.min()
        assert places.max() < last
        steps = np.diff(places)
        assert ((steps == 1) | (places[1:] == places[0])).all()  # on, or from the start again where it is short
    for number in reversed(range(len(dataset))):
        np.testing.assert_array_equal(again[number].waveform, dataset[number].waveform)


@few
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=20), st.integers(1, 200), st.integers(0, 9))
def test_each_class_has_its_share_of_an_epoch_up_to_one(weights: list[float], count: int, seed: int) -> None:
    shares = np.array(weights)
    drawn = np.bincount(stratified_order(shares, count, np.random.default_rng(seed)), minlength=len(shares))
    assert drawn.sum() == count
    assert (np.abs(drawn - count * shares / shares.sum()) < 1 + 1e-5).all()


@few
@given(st.integers(2, 24), st.integers(4, 40), st.integers(0, 99), st.sampled_from(["pca", "discriminative"]))
def test_rotations_keep_full_cosines_and_order_what_prefixes_hold(size: int, count: int, seed: int, kind: str) -> None:
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(count, size, generator=random) + torch.randn(size, generator=random)
    speakers = torch.arange(count) % max(2, count // 3)
    rotation = pca_rotation(embeddings) if kind == "pca" else discriminative_rotation(embeddings, speakers)
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(size), atol=1e-5, rtol=0)
    unit, turned = F.normalize(embeddings), F.normalize(embeddings @ rotation.T)
    torch.testing.assert_close(turned @ turned.T, unit @ unit.T, atol=1e-5, rtol=0)
    if kind == "pca":
        variances = (unit.double() @ rotation.T.double()).var(dim=0)
        assert (variances.diff() <= 1e-6).all()


@cache
def tiny(out_norm: bool) -> SpeakerEncoder:
    encoder = create_encoder("redimnet-tiny", dims=(16,), stages=[(2, 1, 1, None)], out_norm=out_norm).eval()
    encoder.head.load_state_dict({k: v + 0.1 * torch.rand(v.shape) for k, v in encoder.head.state_dict().items()})
    return encoder


@few
@given(st.sets(st.integers(1, 40), min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_sizes_of_a_turned_encoder_are_nested_and_the_full_one_scores_as_before(
    dims: set[int], seed: int, out_norm: bool
) -> None:
    encoder, random = tiny(out_norm), torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=random))[0]
    pooled = torch.randn(5, encoder.head.linear.in_features, generator=random)
    with torch.no_grad():
        before, after = encoder.head(pooled), with_dims(encoder, dims, rotation).head(pooled)
        whole = with_dims(encoder, [16, *dims], rotation).head(pooled)
    assert after.shape == (5, max(dims))
    torch.testing.assert_close(after, whole[:, : max(dims)])
    torch.testing.assert_close(whole[:, :16], before @ rotation.T, atol=1e-5, rtol=0)
    assert (whole[:, 16:] == 0).all()
    old, new = F.normalize(before), F.normalize(whole)
    torch.testing.assert_close(new @ new.T, old @ old.T, atol=1e-5, rtol=0)


@few
@given(st.text(max_size=12), st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20, unique_by=str.lower))
def test_an_unknown_name_is_answered_with_one_there_is(name: str, names: list[str]) -> None:
    said = one_of(name, names)
    every = "one of " + ", ".join(names)
    assert said == every or any(said.startswith(f"{known!r}?") for known in names)
    if len(names) <= 12:
        assert said.endswith(every)
    for known in names:
        assert one_of(known, names).startswith(f"{known!r}?")
        assert one_of(known, names, few=len(names)).endswith(every)
        assert one_of(known, names, few=len(names) - 1) == f"{known!r}?"


WORD = st.sampled_from(["--json", "--", "-", "a.wav", "out.json", "OUT.JSON", "--dim", "", "/dev/null", "8"])


@few
@given(st.lists(WORD, max_size=8))
def test_every_json_option_gets_a_file_and_no_recording_is_one(words: list[str]) -> None:
    result = with_json_file(words)
    assert with_json_file(result) == result
    left = iter(result)
    assert all(word in left for word in words)  # all are there, in their order
    assert set(result) <= {*words, "-"}
    options = result[: result.index("--")] if "--" in result else result
    given = words[: words.index("--")] if "--" in words else words
    assert result[len(options) :] == words[len(given) :]
    for word, file in pairwise([*options, ""]):
        assert word != "--json" or file.lower().endswith(".json") or is_stream(file)
    assert len(options) - len(given) <= given.count("--json")
