"""The calibration that a model carries: fitted, kept in its file, used by verify and evaluate."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import voxnest
from voxnest.corpora.trials import IndexedTrials
from voxnest.errors import CheckpointError, ConfigError
from voxnest.evaluation import compute_cllr, compute_min_cllr
from voxnest.evaluation.calibrating import calibrate
from voxnest.inference import verify
from voxnest.scoring import (
    Calibration,
    FalseAcceptThreshold,
    TooFewTrials,
    false_accept_threshold,
    fit_calibration,
    score_indexed,
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def speech():
    """Embeddings of noisy and clean recordings, their durations, and all trials of them."""
    random = np.random.default_rng(0)
    speaker = np.repeat(np.arange(40), 5)
    seconds = random.uniform(1, 16, len(speaker))
    noise = random.standard_normal((len(speaker), 32)) * (4 / np.sqrt(seconds))[:, None]
    matrix = random.standard_normal((40, 32))[speaker] + noise
    first, second = np.triu_indices(len(speaker), k=1)
    names = [str(n) for n in range(len(speaker))]
    return matrix, seconds, IndexedTrials(names, first, second, speaker[first] == speaker[second])


def test_it_is_the_regression_on_scores_and_measures(speech):
    matrix, seconds, trials = speech
    scores = score_indexed(matrix, trials, (32,))[32]
    plain = Calibration.fit(scores, trials, matrix, seconds)
    assert plain.llr == fit_calibration(scores, trials.labels)
    assert plain.measures == ()
    rich = Calibration.fit(scores, trials, matrix, seconds, ["duration", "norm", "cohort"], cohort=matrix[:50])
    assert rich.measures == ("duration", "norm", "cohort")
    costs = [compute_cllr(found.llrs(scores, trials, matrix, seconds), trials.labels) for found in (plain, rich)]
    assert costs[1] < 0.97 * costs[0]  # short recordings are noisy here
    assert costs[0] < 1.1 * compute_min_cllr(scores, trials.labels)


def test_a_measure_beyond_what_was_seen_counts_as_the_nearest_seen(speech):
    matrix, seconds, trials = speech
    scores = score_indexed(matrix, trials, (32,))[32]
    found = Calibration.fit(scores, trials, matrix, seconds, ["duration"])
    low, high = (math.exp(end) for end in found.ranges["duration_low"])
    assert 1 <= low < 2
    assert 13 < high <= 16
    for beyond, nearest in ((3600.0, high), (0.01, low)):
        far, near = (found.llrs(scores, trials, matrix, np.full(len(matrix), value)) for value in (beyond, nearest))
        np.testing.assert_allclose(far, near, atol=0.5)  # the other of the two durations has a range of its own
    hour, day = (found.llrs(scores, trials, matrix, np.full(len(matrix), value)) for value in (3600.0, 86400.0))
    np.testing.assert_array_equal(hour, day)


def test_a_wanted_false_accept_rate_is_kept_to_whatever_it_is(speech):
    matrix, seconds, trials = speech
    scores = score_indexed(matrix, trials, (32,))[32]
    found = Calibration.fit(scores, trials, matrix, seconds)
    llrs = found.llrs(scores, trials, matrix, seconds)[~trials.labels]
    for rate in (0.3, 0.01, 0.0013, 1.01 / len(llrs)):
        exact, kept = false_accept_threshold(llrs, rate), found.false_accepts(rate)
        assert isinstance(exact, FalseAcceptThreshold)
        assert isinstance(kept, FalseAcceptThreshold)
        assert kept.nontargets == len(llrs)
        assert exact.threshold <= kept.threshold
        accepted = np.count_nonzero(llrs >= kept.threshold)
        assert 0.96 * exact.accepted - 2 <= accepted <= rate * (len(llrs) + 1)
        assert accepted <= kept.accepted <= exact.accepted
    assert isinstance(found.false_accepts(0.5 / len(llrs)), TooFewTrials)
    assert len(found.highest) < 500  # of 19,500


def test_what_is_no_calibration_is_refused(speech):
    matrix, seconds, trials = speech
    scores = score_indexed(matrix, trials, (32,))[32]
    good = Calibration.fit(scores, trials, matrix, seconds, ["cohort"], cohort=matrix).to_dict()
    assert Calibration.from_dict(json.loads(json.dumps(good)), 32).to_dict() == good
    for change in (
        {"highest": [[2, 1.0]]},
        {"highest": [[1, float("nan")]]},
        {"highest": [[1, 1.0], [1, 0.5]]},
        {"highest": 3},
        {"ranges": {}},
        {"ranges": {"cohort_low": [0.1], "cohort_high": [0.1, 0.2]}},
        {"centre": [1.0]},
        {"centre": None},
        {"llr": {}},
        {"more": 1},
    ):
        with pytest.raises(CheckpointError):
            Calibration.from_dict({**good, **change}, 32)
    with pytest.raises(ConfigError, match=r"measures: 'loudness' \(expected some of duration, norm, cohort\)"):
        Calibration.fit(scores, trials, matrix, seconds, ["loudness"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, four recordings of noise, and trials of them."""
    import soundfile
    import torch

    folder = tmp_path_factory.mktemp("calibrated")
    torch.manual_seed(0)
    voxnest.save_encoder(voxnest.create_encoder("redimnet-tiny"), folder / "model.safetensors", {"told": 1})
    random = np.random.default_rng(0)
    for number in range(6):
        colour = np.cumsum if number % 2 else np.asarray
        noise = colour(random.standard_normal(16000 + 800 * number))
        soundfile.write(folder / f"{number}.wav", 0.2 * noise / np.abs(noise).max(), 16000)
    lines = [f"{int(a % 2 == b % 2)} {a}.wav {b}.wav\n" for a in range(6) for b in range(a + 1, 6)]
    (folder / "trials.txt").write_text("".join(lines))
    return folder


@pytest.fixture(scope="module")
def calibrated(folder: Path) -> Path:
    encoder = voxnest.load_encoder(folder / "model.safetensors")
    encoder.calibration = calibrate(encoder, folder / "trials.txt", measures=["duration"])
    path = folder / "ready.safetensors"
    voxnest.save_encoder(encoder, path)
    return path


def test_a_file_keeps_it_and_older_files_have_none(folder: Path, calibrated: Path) -> None:
    loaded = voxnest.load_encoder(calibrated)
    assert set(loaded.calibration) == set(loaded.dims)
    again = calibrate(voxnest.load_encoder(folder / "model.safetensors"), folder / "trials.txt", measures=["duration"])
    assert {dim: found.llr for dim, found in loaded.calibration.items()} == {
        dim: found.llr for dim, found in again.items()
    }
    assert voxnest.load_encoder(folder / "model.safetensors").calibration == {}


def test_several_lists_are_learnt_from_as_one(folder: Path, run: Run, tmp_path: Path) -> None:
    lines = (folder / "trials.txt").read_text().splitlines(keepends=True)
    targets = [line for line in lines if line.startswith("1")]
    others = [line for line in lines if line.startswith("0")]
    for number in range(2):
        (folder / f"part{number}.txt").write_text("".join(targets[number::2] + others[number::2]))
    words = ["calibrate", folder / "model.safetensors", "--measures", "duration", "--no-cache"]
    parts = [word for number in (1, 0) for word in ("--trials", folder / f"part{number}.txt")]
    for name, lists in {"whole": ["--trials", folder / "trials.txt"], "parts": parts}.items():
        status, output, errors = run(*words, *lists, "-o", tmp_path / f"{name}.safetensors")
        assert (status, errors) == (0, "")
        assert f"fitted on {len(targets)} target and {len(others)} non-target trials" in output
    found = [voxnest.load_encoder(tmp_path / f"{name}.safetensors").calibration for name in ("whole", "parts")]
    for dim, whole in found[0].items():
        assert whole.highest == found[1][dim].highest
        assert whole.llr.weights == pytest.approx(found[1][dim].llr.weights)


def test_verify_answers_with_evidence(folder: Path, calibrated: Path) -> None:
    encoder = voxnest.load_encoder(calibrated)
    a, b, c = (folder / f"{number}.wav" for number in (0, 2, 1))
    same, other = verify(encoder, a, b), verify(encoder, a, c)
    assert same.llr is not None
    assert other.llr is not None
    assert same.same == (same.llr >= 0) == (same.score >= same.threshold)
    assert same.probability == pytest.approx(1 / (1 + np.exp(-same.llr)))
    rare = verify(encoder, a, b, prior=0.001)
    assert rare.llr_threshold == pytest.approx(np.log(999))
    assert rare.probability == pytest.approx(1 / (1 + 999 * np.exp(-same.llr)))
    assert verify(encoder, a, b, costs=(1, 1e9)).same is False
    assert verify(encoder, a, b, costs=(1e9, 1)).same is True
    often = verify(encoder, a, b, far=0.5)
    assert often.false_accepts is not None
    assert often.false_accepts.nontargets == 9
    assert often.llr_threshold == often.false_accepts.threshold
    given = verify(encoder, a, b, threshold=0.2)
    assert (given.threshold, given.llr_threshold, given.llr) == (0.2, None, same.llr)
    for arguments, message in [
        ({"far": 0.001}, "9 non-target trials are too few for a false-accept rate of 0.001: it takes 999"),
        ({"far": 0.5, "threshold": 0.1}, "a threshold and a false-accept rate"),
        ({"prior": 2}, "p_target is 2"),
        ({"far": 0}, "rate of false accepts is 0"),
        ({"costs": (0, 1)}, "costs are 0 and 1"),
    ]:
        with pytest.raises(ConfigError, match=message):
            verify(encoder, a, b, **arguments)
    with pytest.raises(ConfigError, match="no calibration, which far needs"):
        verify(voxnest.load_encoder(folder / "model.safetensors"), a, b, far=0.1)


def test_the_commands_make_and_use_it(run, folder: Path, tmp_path: Path) -> None:
    model, trials = folder / "model.safetensors", folder / "trials.txt"
    a, b = folder / "0.wav", folder / "2.wav"
    errors = run("verify", a, b, "--model", model)[2]
    assert "the score is not calibrated, and the threshold 0.5 is generic" in errors
    status, text, errors = run("calibrate", model, "--trials", trials)
    assert (status, errors) == (0, "")
    assert "fitted on 6 target and 9 non-target trials" in text
    made = folder / "model-calibrated.safetensors"
    assert voxnest.hub.checkpoint.read_metadata(made)["metadata"]["told"] == 1  # what was there stays
    before = made.read_bytes()
    status, _, errors = run("calibrate", model, "--trials", trials)
    assert status == 2
    assert "is there already" in errors
    assert made.read_bytes() == before
    status, _, errors = run("calibrate", "default", "--trials", trials)
    assert status == 2
    assert "--output: nothing" in errors
    status, text, errors = run("verify", a, b, "--model", made, "--prior", "0.01")
    assert "log-likelihood ratio" in text
    assert "if it was 0.01 before" in text
    assert errors == ""
    answer = json.loads(run("verify", a, b, "--model", made, "--far", "0.5", "--json")[1])
    assert answer["false_accepts"]["nontargets"] == 9
    assert status == (0 if answer["llr"] >= np.log(99) else 1)
    status, _, errors = run("verify", a, b, "--model", made, "--far", "0.01")
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert "too few" in errors
    status, text, _ = run("evaluate", made, "--trials", trials, "--json", tmp_path / "r.json")
    assert status == 0
    assert "Cllr" in text
    found = json.loads((tmp_path / "r.json").read_text())["dims"]["64"]
    assert found["calibration"]["cllr"] >= found["calibration"]["min_cllr"]
    assert found["verify"]["calibrated"] is True


def test_a_damaged_calibration_is_one_line(calibrated: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    header = voxnest.hub.checkpoint.read_metadata(calibrated)
    for change, message in [
        ({"5": {}}, "a calibration for '5' numbers"),
        ({"64": {}}, "a calibration that does not fit"),
    ]:
        path = tmp_path / "bad.safetensors"
        save_file(load_file(calibrated), path, metadata={"voxnest": json.dumps({**header, "calibration": change})})
        with pytest.raises(CheckpointError, match=message):
            voxnest.load_encoder(path)
