"""`evaluate`: from recordings and trials to a report and a picture."""

import json
import resource
from typing import ClassVar

import numpy as np
import pytest
import torch

from tones import DIMS, ToneEncoder, make_corpus
from voxnest.errors import AudioError, CheckpointError, ConfigError, TrialError, VoxnestError
from voxnest.evaluation import Trial, compute_eer, compute_min_dcf, error_rates_at, evaluate, plot_det, read_trials
from voxnest.inference import DEFAULT_THRESHOLD, Embeddings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("tones"))


@pytest.fixture(scope="module")
def encoder():
    return ToneEncoder().eval()


@pytest.fixture(scope="module")
def report(corpus, encoder):
    return evaluate(encoder, corpus / "trials.txt", corpus)


def test_every_dimension_gets_its_own_error_rate(report):
    assert list(report.dims) == list(DIMS)
    assert report.dims[16].eer == 0
    assert report.dims[16].min_dcf == {0.01: 0, 0.05: 0}
    assert report.dims[2].eer > 0.2  # half of the speakers are silent in the first two bands
    for dim, result in report.dims.items():
        assert (result.eer, result.threshold) == compute_eer(report.scores[dim], report.labels)
        assert result.min_dcf[0.05] == compute_min_dcf(report.scores[dim], report.labels, 0.05)


def test_the_facts_of_an_evaluation_are_in_the_report(report, corpus):
    assert (report.targets, report.nontargets, report.recordings) == (8 * 3, 28 * 9, 24)
    assert report.audio_seconds == pytest.approx(24, abs=1e-3)
    assert report.real_time_factor == pytest.approx(report.embedding_seconds / 24, rel=1e-3)
    assert (report.model, report.trials) == ("tones", str(corpus / "trials.txt"))


def test_each_recording_is_embedded_once_however_it_is_written(corpus):
    encoder = ToneEncoder().eval()
    trials = [
        Trial(True, "s0/0.wav", "s0/1.wav"),
        Trial(True, "./s0/0.wav", "s0/2.wav"),
        Trial(False, "s1/0.wav", "s0/0.wav"),
        Trial(False, "s1/0.wav", str(corpus / "s0" / ".." / "s0" / "1.wav")),
    ]
    report = evaluate(encoder, trials[:3], corpus)
    assert len(encoder.heard) == report.recordings == 4
    assert report.trials is None
    assert evaluate(encoder, trials, corpus).dims[16].eer == 0


def test_the_root_is_found_where_the_list_lies(corpus, encoder, report):
    assert evaluate(encoder, str(corpus / "trials.txt")).dims == report.dims


def test_dimensions_can_be_chosen(corpus, encoder, report):
    chosen = evaluate(encoder, corpus / "trials.txt", corpus, dims=[16, 2, 16])
    assert list(chosen.dims) == [2, 16]
    assert chosen.dims[2] == report.dims[2]
    with pytest.raises(ConfigError, match=r"tones: has no embedding of dimension 4 \(expected one of 2, 8, 16\)"):
        evaluate(encoder, corpus / "trials.txt", corpus, dims=[16, 4])


def test_json_holds_fractions_by_dimension_and_prior(report, tmp_path):
    path = tmp_path / "new" / "report.json"
    report.save_json(path)
    data = json.loads(path.read_text())
    assert data == report.to_dict()
    assert list(data["dims"]) == ["2", "8", "16"]
    assert data["dims"]["8"] == {
        "eer": report.dims[8].eer,
        "threshold": report.dims[8].threshold,
        "min_dcf": {"0.01": report.dims[8].min_dcf[0.01], "0.05": report.dims[8].min_dcf[0.05]},
        "verify": {
            "threshold": 0.5,
            "calibrated": False,
            "false_accept_rate": report.dims[8].verify.false_accept_rate,
            "false_reject_rate": report.dims[8].verify.false_reject_rate,
        },
    }
    assert data["warnings"] == report.warnings
    assert (data["targets"], data["nontargets"]) == (24, 252)


def test_nothing_is_embedded_when_a_recording_is_missing(corpus, tmp_path):
    encoder = ToneEncoder().eval()
    path = tmp_path / "trials.txt"
    path.write_text("1 s0/0.wav s0/1.wav\n0 s0/0.wav s9/0.wav\n")
    with pytest.raises(TrialError, match=r"trials.txt:2: .*s9/0.wav is not there"):
        evaluate(encoder, path, corpus)
    assert not encoder.heard


@pytest.mark.parametrize("label", [True, False])
def test_trials_of_one_kind_are_refused_before_embedding(corpus, label):
    encoder = ToneEncoder().eval()
    for trials in ([Trial(label, "s0/0.wav", "s0/1.wav")], []):
        with pytest.raises(TrialError, match="expected at least one of each kind"):
            evaluate(encoder, trials, corpus)
    assert not encoder.heard


def test_a_recording_that_is_not_audio_is_named(corpus, encoder, tmp_path):
    (tmp_path / "noise.wav").write_bytes(b"no audio here" * 100)
    trials = [Trial(True, "s0/0.wav", "s0/1.wav"), Trial(False, "s0/0.wav", str(tmp_path / "noise.wav"))]
    with pytest.raises(AudioError, match=r"noise\.wav"):
        evaluate(encoder, trials, corpus)


def test_a_diverged_model_is_named(corpus):
    encoder = ToneEncoder().eval()
    with torch.no_grad():
        encoder.scale.fill_(float("nan"))
    with pytest.raises(CheckpointError, match=r"^tones: .*NaN or infinite"):
        evaluate(encoder, corpus / "trials.txt", corpus)


def test_errors_are_counted_at_the_threshold_that_verify_uses(corpus):
    encoder = ToneEncoder().eval()
    encoder.thresholds = {2: 0.999, 16: 0.25}
    report = evaluate(encoder, corpus / "trials.txt", corpus)
    for dim, threshold, calibrated in ((2, 0.999, True), (8, DEFAULT_THRESHOLD, False), (16, 0.25, True)):
        found = report.dims[dim].verify
        assert (found.threshold, found.calibrated) == (threshold, calibrated)
        answers = [verify_as_it_does(report.scores[dim][n], threshold) for n in range(len(report.labels))]
        kinds = list(zip(answers, report.labels, strict=True))
        assert found.false_accept_rate == sum(same and not label for same, label in kinds) / 252
        assert found.false_reject_rate == sum(not same and label for same, label in kinds) / 24
    assert report.dims[2].verify.false_accept_rate > 0.1  # the model is not so sure as its threshold


def verify_as_it_does(score, threshold):
    return float(score) >= threshold


def test_a_score_that_is_the_threshold_is_accepted_as_by_verify():
    assert error_rates_at([0.1, 0.5, 0.5, 0.9], [False, False, True, True], 0.5) == (0, 0.5)


def test_each_recording_is_opened_once(corpus, encoder, monkeypatch):
    """Its length comes with the embeddings."""

    class Measured(Embeddings):
        seconds: ClassVar = {}

    def embed(encoder, spans, *arguments, **options):
        found = Measured()
        found.update({path: np.eye(16, dtype=np.float32)[int(path[-7])] for path in spans})
        found.seconds = dict.fromkeys(found, 2.5)
        return found

    monkeypatch.setattr("voxnest.evaluation.trial_sets.embed_kept", embed)
    monkeypatch.setattr("voxnest.evaluation.trial_sets.audio_info", None, raising=False)
    assert evaluate(encoder, corpus / "trials.txt", corpus).audio_seconds == 24 * 2.5


@pytest.mark.parametrize("name", ["report.json", "det.png", "det.svg", "det.pdf"])
def test_a_disk_that_takes_no_more_is_named_with_the_file(report, tmp_path, name):
    """A limit on the size of files fails as a full disk does: some of the bytes are written, then there is an error."""
    path = tmp_path / name
    path.write_text("old")
    write = report.save_json if name.endswith(".json") else lambda path: plot_det(report, path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(VoxnestError) as caught:
            write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{path}: cannot be written: File too large"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_an_untrained_model_is_evaluated_on_real_speech(voices):
    from voxnest import create_encoder

    torch.manual_seed(0)
    encoder = create_encoder("redimnet-tiny").eval()
    trials = read_trials(voices / "trials.txt")
    speakers = ("libri-1688", "libri-1998")
    some = [trial for trial in trials if all(name.startswith(speakers) for name in trial[1:])]
    report = evaluate(encoder, some, voices / "test")
    assert (report.targets, report.nontargets, report.recordings) == (2 * 45, 100, 20)
    assert list(report.dims) == list(encoder.dims)
    assert all(0 < result.eer < 0.6 for result in report.dims.values())
