"""Identification: training that keeps its classifier, evaluation in a closed set, features that are kept."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from typer.testing import CliRunner

from test_training import make_corpus
from voxnest.cli.app import app
from voxnest.corpora.manifest import Utterance, read_manifest
from voxnest.corpora.prepare import prepare
from voxnest.crops import features as features_module
from voxnest.crops.features import FeatureCache, FeatureCrops
from voxnest.crops.loading import make_loader
from voxnest.errors import CheckpointError, ConfigError, CorpusError
from voxnest.evaluation.identification import identify, wilson_interval
from voxnest.frontends import AutoSpeechSpectrogram, create_frontend
from voxnest.hub.checkpoint import load_classifier, load_encoder, save_encoder
from voxnest.losses import AAMSoftmax, LinearSoftmax, SubCenterAAMSoftmax
from voxnest.models.classifier import SpeakerClassifier
from voxnest.models.embedding import window_embeddings
from voxnest.training.held_out import split_recordings
from voxnest.training.run import train
from voxnest.training.settings import load_config
from voxnest.zoo.registry import create_encoder


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tones")
    prepare(make_corpus(folder / "corpus", speakers=4, utterances=4), folder / "manifest")
    return folder / "manifest"


def settings(manifest: Path, output: Path, **sections: object) -> Path:
    content = {
        "task": "identification",
        "data": {"train": str(manifest), "validation": {"held_out_recordings": 0.25}},
        "crops": {"duration": 1.0, "batch_size": 8, "balance": 0.0},
        "augmentation": {"noise_probability": 0, "reverberation_probability": 0, "volume_db": [0, 0]},
        "model": {
            "name": "xvector",
            "dims": [16, 32],
            "overrides": {
                "frontend": "autospeech_spectrogram",
                "bins": 257,
                "channels": 24,
                "out_channels": 32,
                "level": None,
                "frontend_options": {},
            },
        },
        "loss": {"kind": "softmax", "label_smoothing": 0.1},
        "optimizer": {"name": "adam", "lr": 0.01, "weight_decay": 0.0, "betas": [0.9, 0.999]},
        "schedule": {"warmup": 0.0, "final_lr": 0.1},
        "trainer": {"max_steps": 30, "val_every_steps": 15, "log_every_steps": 5, "accelerator": "cpu"},
        "output": str(output),
    }
    for name, section in sections.items():
        content[name] = {**content[name], **section}  # type: ignore[dict-item]
    path = output.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def run(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "iden"
    train(load_config(settings(manifest, folder)))
    return folder


def test_a_run_learns_to_name_its_speakers_and_keeps_who_they_are(run: Path, manifest: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert result["best"]["32"] < 0.5  # chance is 0.75
    with (run / "metrics.csv").open() as file:
        assert "top1_error/32" in next(csv.reader(file))
    encoder, classifier = load_encoder(run), load_classifier(run)
    assert classifier.speakers == tuple(f"speaker{number}" for number in range(4))
    assert not encoder.frontend.wants_statistics
    held_out = split_recordings(read_manifest(manifest), load_config(run / "config.yaml"))[1]
    report = identify(encoder, classifier, held_out)
    for dim in (16, 32):
        assert 1 - report.top1[dim].value == pytest.approx(result["best"][str(dim)])
    assert report.top5[32].value == 1.0


def test_the_command_names_speakers_and_a_model_for_verification_still_loads(
    run: Path, manifest: Path, tmp_path: Path
) -> None:
    options = ["--task", "identification", "--utterances", str(manifest), "--json", str(tmp_path / "r.json")]
    result = CliRunner().invoke(app, ["evaluate", str(run), *options])
    assert result.exit_code == 0, result.output
    assert "16 recordings of 4 known speakers; windows of 3 s, averaged" in result.output
    found = json.loads((tmp_path / "r.json").read_text())["dims"]["32"]["top1"]
    low, high = found["interval"]
    assert 0 <= low < found["value"] <= high <= 1
    with pytest.raises(CheckpointError, match="without a classifier"):
        load_classifier("default")
    trials = tmp_path / "trials.txt"
    paths = [item.path for item in read_manifest(manifest)][:6]
    trials.write_text("".join(f"{int(a.parts[-3] == b.parts[-3])} {a} {b}\n" for a in paths for b in paths if a != b))
    for window in ("0", "1"):
        result = CliRunner().invoke(app, ["evaluate", str(run), "--trials", str(trials), "--window", window])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--task", "identification"], "nothing to evaluate on"),
        (["--task", "identification", "--trials", "t.txt"], "identification: --trials (expected"),
        (["--task", "identification", "--utterances", "M", "--interval"], "--interval"),
        (["--utterances", "M"], "--task verification"),
        (["--trials", "t.txt", "--window", "nan"], "--window"),
    ],
)
def test_options_that_do_not_belong_together_are_one_line(options: list[str], told: str) -> None:
    result = CliRunner().invoke(app, ["evaluate", *options])
    assert isinstance(result.exception, ConfigError)
    assert told in str(result.exception)


def test_speakers_that_the_model_does_not_know_are_an_error(run: Path, manifest: Path, tmp_path: Path) -> None:
    stranger = [Utterance("x", "somebody", "s", read_manifest(manifest)[0].path, 1.0)]
    with pytest.raises(CorpusError, match="1 speakers that the model does not know, such as 'somebody'"):
        identify(load_encoder(run), load_classifier(run), stranger)
    other = SpeakerClassifier(["a"], torch.zeros(1, 8))
    with pytest.raises(CheckpointError, match="a classifier of 8 numbers"):
        identify(load_encoder(run), other, stranger)


@pytest.mark.parametrize("loss", [AAMSoftmax(8, 3), SubCenterAAMSoftmax(8, 3, sub_centers=2), LinearSoftmax(8, 3)])
def test_a_kept_classifier_says_what_the_loss_says(loss: AAMSoftmax, tmp_path: Path) -> None:
    if isinstance(loss, LinearSoftmax):
        loss.bias.data.normal_()
    encoder = create_encoder("redimnet-tiny", dims=(4, 8))
    kept = SpeakerClassifier(["a", "b", "c"], loss.weight, getattr(loss, "bias", None), scale=loss.scale)
    save_encoder(encoder, tmp_path / "model.safetensors", classifier=kept)
    load_encoder(tmp_path / "model.safetensors")
    loaded, embedding = load_classifier(tmp_path / "model.safetensors"), torch.randn(5, 8)
    for dim in (4, 8):
        torch.testing.assert_close(loaded(embedding[:, :dim]), loss.classify(embedding[:, :dim]))


def test_softmax_is_cross_entropy_with_smoothed_labels() -> None:
    loss, embedding, label = LinearSoftmax(8, 5, label_smoothing=0.1), torch.randn(6, 8), torch.arange(6) % 5
    target = torch.full((6, 5), 0.02).scatter(1, label[:, None], 0.92)
    expected = -(target * (embedding @ loss.weight.T + loss.bias).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss(embedding, label), expected)


def test_windows_are_cut_from_the_features_and_slide_by_half() -> None:
    encoder = create_encoder("xvector", frontend="autospeech_spectrogram", bins=257, channels=16, dims=(8,)).eval()
    waveform = torch.randn(1, 16000 * 7)
    raw = encoder.frontend.raw_features(waveform)  # 701 frames: windows at 0, 150, 300
    expected = torch.cat([encoder.embed_features(raw[..., start : start + 300]) for start in (0, 150, 300)])
    torch.testing.assert_close(window_embeddings(encoder, waveform, 3.0)[:3], expected, atol=1e-4, rtol=1e-4)
    assert len(window_embeddings(encoder, waveform, 3.0)) == 3
    assert len(window_embeddings(encoder, waveform[:, :16000], 3.0)) == 1


def test_an_interval_of_a_share_is_wilson_s() -> None:
    low, high = wilson_interval(90, 100)
    assert (low, high) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert wilson_interval(10, 10)[1] == pytest.approx(1.0)
    assert 0.6 < wilson_interval(10, 10)[0] < 1


# Features that are kept


@pytest.fixture
def kept(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureCache:
    monkeypatch.setattr(features_module, "_SHARD", 6)
    cache = FeatureCache(tmp_path / "features", AutoSpeechSpectrogram(), read_manifest(manifest))
    cache.build(jobs=2)
    return cache


def test_kept_features_are_those_of_the_recordings(kept: FeatureCache, manifest: Path) -> None:
    for number, utterance in enumerate(read_manifest(manifest)):
        waveform = torch.from_numpy(soundfile.read(utterance.path, dtype="float32")[0])[None]
        expected = AutoSpeechSpectrogram().raw_features(waveform)[0].numpy()
        np.testing.assert_allclose(kept.read(number, 0, 1000), expected, rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(kept.read(number, 20, 30), kept.read(number, 0, 1000)[:, 20:50])


@pytest.mark.parametrize("damage", ["cut", "bytes", "json", "audio"])
def test_only_a_damaged_shard_or_one_of_changed_audio_is_made_again(
    kept: FeatureCache, manifest: Path, damage: str, tmp_path: Path
) -> None:
    data = sorted(kept.folder.glob("*.features"))
    assert len(data) == 3
    utterances, before = read_manifest(manifest), [path.stat().st_mtime_ns for path in data]
    content = data[1].read_bytes()
    if damage == "cut":
        data[1].write_bytes(content[:-100])
    elif damage == "bytes":
        data[1].write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    elif damage == "json":
        data[1].with_suffix(".json").write_text("{")
    else:
        os.utime(utterances[7].path, ns=(1, 1))
    again = FeatureCache(tmp_path / "features", AutoSpeechSpectrogram(), utterances)
    again.build(jobs=1)
    after = [path.stat().st_mtime_ns for path in data]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    assert data[1].read_bytes() == content


def test_another_front_end_has_a_folder_of_its_own_and_unbuilt_features_are_an_error(
    kept: FeatureCache, manifest: Path
) -> None:
    other = FeatureCache(kept.folder.parent, create_frontend("fbank", 40), read_manifest(manifest))
    assert other.folder != kept.folder
    with pytest.raises(CorpusError, match="finished `build`"):
        other.read(0, 0, 10)


def test_crops_of_kept_features_are_the_same_for_any_number_of_workers(kept: FeatureCache, manifest: Path) -> None:
    crops = FeatureCrops(kept, read_manifest(manifest), duration=1.0, reverse_probability=0.5, crops_per_epoch=8)
    batches = [next(iter(make_loader(crops, batch_size=8, workers=workers))) for workers in (0, 2)]
    assert batches[0]["features"].shape == (8, 257, 101)
    assert torch.equal(batches[0]["features"], batches[1]["features"])
    crops.duration = 3.0  # longer than any recording
    assert crops.read(next(iter(make_loader(crops, batch_size=8).sampler)))["features"].shape == (8, 257, 301)


def test_a_run_on_kept_features_learns_and_refuses_augmentation(manifest: Path, tmp_path: Path) -> None:
    data = {"features": str(tmp_path / "features"), "train": str(manifest), "validation": {}}
    path = settings(manifest, tmp_path / "kept", data=data, trainer={"max_steps": 30, "max_epochs": None})
    assert train(load_config(path)).best["32"] < 0.5
    with pytest.raises(ConfigError, match=r"augmentation.noise_probability 0.5; .*cannot be augmented|cannot be augm"):
        load_config(path, ["augmentation.noise_probability=0.5"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.validation.trials=t.txt", "data.validation.trials with task: identification"),
        ("data.validation.utterances=m", "has both utterances and held_out_recordings"),
        ("task=verification", "data.validation.held_out_recordings with task: verification"),
    ],
)
def test_validation_data_of_the_other_task_is_refused(manifest: Path, tmp_path: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config(settings(manifest, tmp_path / "run"), [override])


# The configurations of AutoSpeech

FOLDER = Path(__file__).parents[1] / "configs" / "autospeech"
CONFIGS = sorted(path for task in ("iden", "veri") for path in FOLDER.glob(f"*_{task}.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_configuration_of_autospeech_is_of_its_network_and_of_300_frames(path: Path) -> None:
    config = load_config(path)
    with torch.device("meta"):
        encoder = create_encoder(config.model.name, **config.model.overrides)
    frontend = encoder.frontend
    assert frontend.wants_statistics
    assert frontend.level is None
    assert frontend.raw_features(torch.zeros(1, round(config.crops.duration * 16000))).shape == (1, 257, 300)
    assert ("iden" in path.stem) == (config.task == "identification")
    assert len(CONFIGS) == 6
