"""Code written for redimnet-mrl runs on voxnest, with the import changed."""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.nn import functional as F

import golden_files
import voxnest
from release_server import official, serve
from voxnest import load_encoder, mrl, save_encoder
from voxnest.errors import AudioError, CheckpointError, ConfigError, TrialError, VoxnestError
from voxnest.evaluation import evaluate
from voxnest.hub import convert
from voxnest.inference import embed_files
from voxnest.models.encoder import SpeakerEncoder
from voxnest.mrl import create_mrl_from_pretrained, evaluate_mrl_eer, load_audio, load_pretrained_redimnet

SMALL = {"F": 40, "C": 8, "stages_setup": [(1, 1, 1, [(3, 3)], 8), (2, 1, 1, [(3, 3)], None)], "out_channels": 64}
DIMS = [64, 128, 192, 256]
SERVED = ("b0-vox2-ft_lm.pt", "b2-vox2-ft_lm.pt", "b2-vox2-ptn.pt", "b6-vox2-ft_lm.pt", "M-vb2+vox2+cnc-ft_mix.pt")


@pytest.fixture(scope="module", autouse=True)
def releases(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All sizes are published as b0 here: the names are what is tested, and it is small."""
    folder = tmp_path_factory.mktemp("releases")
    content = official(folder / "b0.pt", golden / "redimnet-b0.json.gz")
    with pytest.MonkeyPatch.context() as patch, serve() as server:
        server.files = dict.fromkeys(SERVED, content)
        patch.setenv("no_proxy", "127.0.0.1")
        patch.setenv("VOXNEST_HOME", str(folder / "home"))
        patch.setenv("VOXNEST_MIRROR", server.address)
        yield


@pytest.fixture(scope="module")
def model(releases: None) -> mrl.ReDimNetMRL:
    return create_mrl_from_pretrained("b2", "ft_lm", embed_dim=256, mrl_dims=DIMS)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two speakers, of noise of different colours, with three recordings of half a second each; and all pairs."""
    root = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(0)
    names = []
    for speaker, taps in (("low", (1, 1, 1, 1)), ("high", (1, -1, 1, -1))):
        for number in range(3):
            noise = 0.05 * np.convolve(random.standard_normal(8003), taps, mode="valid")
            names.append(f"{speaker}-{number}.wav")
            soundfile.write(root / names[-1], noise, 16000)
    pairs = [(a, b) for position, a in enumerate(names) for b in names[position + 1 :]]
    lines = [f"{int(a.split('-')[0] == b.split('-')[0])} {a} {b}\n" for a, b in pairs]
    (root / "voxceleb1_test_pairs.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def trained(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as redimnet-mrl's training writes it: an official model in a wrapper, with a head of its own."""
    weights = golden_files.make_state_dict(golden_files.read(golden / "redimnet-b0.json.gz"))
    weights["linear.weight"] = 0.1 * torch.randn(256, weights["linear.weight"].shape[1])
    weights["linear.bias"] = 0.1 * torch.randn(256)
    state = {}
    for key, value in weights.items():
        state[f"projection.{key}" if key.startswith(("bn.", "linear.")) else f"backbone.{key}"] = value
    path = tmp_path_factory.mktemp("run") / "checkpoints" / "best.pt"
    path.parent.mkdir()
    torch.save({"epoch": 3, "model_state_dict": state, "config": {"model": {"mrl_dims": DIMS}}}, path)
    return path


def embed(model: SpeakerEncoder, waveform: Tensor, **options: Any) -> Any:
    with torch.inference_mode():
        return model(waveform, **options)


def cosines(embeddings: Tensor) -> Tensor:
    unit = F.normalize(embeddings)
    return unit @ unit.T


# The README of redimnet-mrl. What each of its examples holds, and why some cannot be run by anybody.
PSEUDO_CODE = {
    "loss += AAMSoftmax(emb_dim, labels)": "sketches the training loss; AAMSoftmax is a class there too",
    "train_mrl(": "train_mrl and is_noisy are defined nowhere",
}
EXAMPLES = 14


def readme_examples(shared: Path) -> list[str]:
    text = (shared / "references" / "MRL-ReDimNet.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in blocks]


def with_our_import(code: str) -> str:
    return re.sub(r"^from mrl(\.\w+)? import", "from voxnest.mrl import", code, flags=re.MULTILINE)


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_readme_examples_run(
    number: int,
    shared: Path,
    corpus: Path,
    trained: Path,
    model: mrl.ReDimNetMRL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = readme_examples(shared)
    assert len(examples) == EXAMPLES
    code = with_our_import(examples[number])
    for mark, reason in PSEUDO_CODE.items():
        if mark in code:
            pytest.skip(f"pseudo-code: {reason}")

    monkeypatch.chdir(tmp_path)
    for file in corpus.iterdir():
        (tmp_path / file.name).symlink_to(file)
    for name in ("speaker.wav", "test.wav"):
        (tmp_path / name).symlink_to(corpus / "low-0.wav")
    (tmp_path / "checkpoints").symlink_to(trained.parent)
    audio = torch.randn(1, 1, 16000)
    # What an example takes from those before it, or presupposes.
    given = {name: getattr(mrl, name) for name in ("load_audio", "load_trained_mrl", "load_pretrained_redimnet")}
    given |= {"torch": torch, "F": F, "model": model, "mrl_model": model, "emb": embed(model, audio)}
    given |= {"audio": audio, "audio1": audio, "audio2": torch.randn(1, 1, 12000)}
    given |= {"files": ["low-0.wav", "high-0.wav"], "audio_batch": torch.randn(2, 1, 16000)}
    with torch.no_grad():
        exec(compile(code, f"example {number}", "exec"), given)

    for name, dim in {"emb_64d": 64, "emb_256d": 256, "emb_fast": 64, "emb1": 128, "emb_accurate": 256}.items():
        if f"{name} =" in code:
            assert given[name].shape == (1, dim), name
    if "emb_dict =" in code:
        assert {dim: part.shape for dim, part in given["emb_dict"].items()} == {dim: (1, dim) for dim in DIMS}
    if "Extract 192D" in code:
        assert given["embedding"].shape == (1, 192)
    if "torch.stack" in code:
        assert given["embeddings"].shape == (2, 128)
    if "eer_dict =" in code:
        assert [(dim, set(result)) for dim, result in given["eer_dict"].items()] == [
            (dim, {"eer", "threshold"}) for dim in DIMS
        ]
    if "ensemble =" in code:
        for mode in ("fast", "accurate"):
            assert embed(given["ensemble"].fast, audio).equal(given["ensemble"].forward(audio, mode).detach())


def test_the_names_of_the_original_are_there() -> None:
    """Those of its __init__.py, and those that its README uses besides."""
    names = "ReDimNetMRL MatryoshkaProjection MatryoshkaLoss AAMSoftmax load_pretrained_redimnet get_model_info"
    more = "create_mrl_from_pretrained unfreeze_backbone load_trained_mrl load_audio evaluate_mrl_eer"
    assert all(callable(getattr(mrl, name)) for name in f"{names} {more}".split())
    assert issubclass(mrl.ReDimNetMRL, voxnest.SpeakerEncoder)
    assert issubclass(mrl.AAMSoftmax, voxnest.AAMSoftmax)


def test_audio_of_one_channel_may_have_a_channel_dimension(model: mrl.ReDimNetMRL) -> None:
    audio = torch.randn(2, 1, 16000)
    full = embed(model, audio)
    assert full.shape == (2, 256)
    assert embed(model, audio[:, 0]).equal(full)
    assert embed(model, audio, target_dim=64).equal(full[:, :64])
    assert embed(model, audio, dim=64).equal(full[:, :64])
    for options in ({"return_all_dims": True}, {"all_dims": True}):
        prefixes = embed(model, audio, **options)
        assert list(prefixes) == DIMS
        assert all(prefixes[dim].equal(full[:, :dim]) for dim in DIMS)
    with pytest.raises(AudioError, match=r"\[2, 2, 16000\].*one channel"):
        model(audio.expand(2, 2, -1))
    with pytest.raises(ConfigError, match="64, 128, 192, 256"):
        model(audio, target_dim=100)


def test_before_training_it_scores_as_its_backbone_does(model: mrl.ReDimNetMRL) -> None:
    backbone = load_pretrained_redimnet("b2", "ft_lm", "vox2")
    assert (backbone.embed_dim, backbone.mrl_dims, backbone.name) == (192, [192], "redimnet-b2")
    audio = torch.randn(4, 1, 16000)
    expected = embed(backbone, audio)
    torch.testing.assert_close(embed(load_encoder("redimnet-b2"), audio[:, 0]), expected)
    assert not model.training
    torch.testing.assert_close(cosines(embed(model, audio)), cosines(expected), atol=1e-5, rtol=0)


def test_recordings_turn_the_space_so_that_prefixes_hold_what_differs(model: mrl.ReDimNetMRL, corpus: Path) -> None:
    paths = sorted(corpus.glob("*.wav"))
    turned = create_mrl_from_pretrained("b2", "ft_lm", recordings=paths)
    audio = torch.cat([load_audio(path) for path in paths])
    before, after = F.normalize(embed(model, audio)), F.normalize(embed(turned, audio))
    torch.testing.assert_close(after @ after.T, before @ before.T, atol=1e-5, rtol=0)
    # Six recordings differ in five directions, and these come first.
    differences = torch.pdist(before)
    torch.testing.assert_close(torch.pdist(after[:, :64]), differences, atol=1e-4, rtol=0)
    assert (torch.pdist(before[:, :64]) < 0.9 * differences).all()


def test_a_smaller_model_keeps_the_first_numbers() -> None:
    audio = torch.randn(2, 16000)
    small = create_mrl_from_pretrained("b2", "ft_lm", embed_dim=96)
    assert small.mrl_dims == [64, 96]
    torch.testing.assert_close(embed(small, audio), embed(load_pretrained_redimnet("b2", "ft_lm"), audio)[:, :96])


def test_two_stages_train_the_head_and_then_everything(golden: Path) -> None:
    model = create_mrl_from_pretrained("b2", "ft_lm", freeze_backbone=True).train()
    trainable = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trainable == {f"head.{name}" for name, _ in model.projection.named_parameters()}
    assert model.projection.training
    statistics = {name: value.clone() for name, value in model.backbone.named_buffers()}
    audio = torch.randn(2, 1, 16000)
    criterion = mrl.MatryoshkaLoss(mrl.AAMSoftmax(256, 4), DIMS)
    loss, _ = criterion(model(audio, return_all_dims=True), torch.tensor([0, 1]))
    loss.backward()
    assert all(value.equal(statistics[name]) for name, value in model.backbone.named_buffers())
    assert model.projection.linear.weight.grad[192:].abs().max() > 0  # what was added to the backbone's head grows
    assert all(weight.grad is None for weight in model.backbone.parameters())

    mrl.unfreeze_backbone(model)
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(module.training for module in model.modules())


def test_model_info_is_printed_and_given_back(capsys: pytest.CaptureFixture[str]) -> None:
    model = create_mrl_from_pretrained("b2", "ft_lm", freeze_backbone=True)
    info = mrl.get_model_info(model)
    head = sum(weight.numel() for weight in model.projection.parameters())
    total = sum(weight.numel() for weight in model.parameters())
    assert info == {
        "type": "ReDimNetMRL",
        "total_parameters": total,
        "trainable_parameters": head,
        "frozen_parameters": total - head,
        "embed_dim": 256,
        "mrl_dims": DIMS,
        "F": 60,
        "C": 10,
        "stages": 5,
    }
    shown = capsys.readouterr().out
    assert f"frozen parameters: {total - head:,}\n" in shown
    assert "mrl dims: [64, 128, 192, 256]\n" in shown
    mrl.unfreeze_backbone(model)
    assert mrl.get_model_info(model)["trainable_parameters"] == total


def test_a_model_is_built_from_the_official_arguments() -> None:
    model = mrl.ReDimNetMRL(128, [16, 64], **SMALL, pooling_func="ASTP", feat_type="pt", emb_bn=True)
    assert (model.embed_dim, model.mrl_dims, model.head.out_norm) == (128, [16, 64, 128], None)
    assert model.training
    assert model(torch.randn(2, 1, 8000), return_all_dims=True)[16].shape == (2, 16)
    assert mrl.ReDimNetMRL(**SMALL).mrl_dims == DIMS
    with pytest.raises(ConfigError, match="no_such_argument"):
        mrl.ReDimNetMRL(no_such_argument=3)
    with pytest.raises(ConfigError, match="256"):
        mrl.ReDimNetMRL(128, DIMS, **SMALL)


@pytest.mark.parametrize("make", [lambda: create_mrl_from_pretrained("b0", "ft_lm"), lambda: mrl.ReDimNetMRL(**SMALL)])
def test_a_file_of_voxnest_gives_the_same_model(make: Callable[[], mrl.ReDimNetMRL], tmp_path: Path) -> None:
    model = make().eval()
    model.thresholds = {64: 0.25}
    save_encoder(model, tmp_path / "model.safetensors")
    audio = torch.randn(2, 8000)
    plain = load_encoder(tmp_path / "model.safetensors")
    assert embed(plain, audio, dim=64).equal(embed(model, audio, dim=64))
    again = mrl.load_trained_mrl(tmp_path / "model.safetensors")
    assert embed(again, audio[:, None]).equal(embed(model, audio))
    assert (again.mrl_dims, again.thresholds, again.training) == (DIMS, {64: 0.25}, False)


def test_a_checkpoint_of_the_original_is_loaded(trained: Path, golden: Path) -> None:
    model = mrl.load_trained_mrl(trained)
    assert (model.mrl_dims, model.training) == (DIMS, False)
    state = torch.load(trained)["model_state_dict"]
    weights = {key.split(".", 1)[1]: value for key, value in state.items() if key.startswith("backbone.")}
    weights |= {key.removeprefix("projection."): value for key, value in state.items() if key.startswith("proj")}
    config = {**golden_files.read(golden / "redimnet-b0.json.gz")["config"], "hop_length": 160, "embed_dim": 256}
    audio = torch.randn(2, 1, 16000)
    expected = embed(convert("redimnet", config, weights), audio[:, 0])
    torch.testing.assert_close(embed(model, audio), expected)

    # As the original's own README does it: the weights are put into a model made from the backbone.
    made = create_mrl_from_pretrained("b2", "ptn")
    made.load_state_dict(state)
    torch.testing.assert_close(embed(made, audio), expected)
    assert made.config["hop_length"] == 160
    made.load_state_dict(made.state_dict())  # ours as ever
    with pytest.raises(RuntimeError, match="size mismatch"):
        create_mrl_from_pretrained("b2", embed_dim=128).load_state_dict(state)


def test_everything_else_takes_the_model(model: mrl.ReDimNetMRL, corpus: Path) -> None:
    path = corpus / "low-0.wav"
    expected = embed(model, load_audio(path))
    torch.testing.assert_close(torch.from_numpy(embed_files(model, [path])[str(path)])[None], expected)
    torch.testing.assert_close(model.extract_embedding(path), expected)
    torch.testing.assert_close(model.extract_embedding(str(path), target_dim=64, device="cpu"), expected[:, :64])
    assert voxnest.matryoshka.with_dims(model, (32, 256)).dims == (32, 256)


def test_audio_is_mono_at_the_rate_of_the_models(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", np.tile([[0.25, 0.75]], (4410, 1)), 44100)
    audio = load_audio(tmp_path / "stereo.wav")
    assert (audio.shape, audio.dtype) == ((1, 1600), torch.float32)
    torch.testing.assert_close(audio[0, 400:1200], torch.full((800,), 0.5), atol=1e-3, rtol=0)
    assert load_audio(tmp_path / "stereo.wav", sample_rate=8000).shape == (1, 800)


def test_error_rates_are_those_of_the_evaluation(model: mrl.ReDimNetMRL, corpus: Path) -> None:
    trials = corpus / "voxceleb1_test_pairs.txt"
    report = evaluate(model, trials)
    expected = {dim: {"eer": result.eer, "threshold": result.threshold} for dim, result in report.dims.items()}
    assert list(expected) == DIMS
    assert evaluate_mrl_eer(model, trials, DIMS) == expected
    assert evaluate_mrl_eer(model, str(trials), [64], data_root=corpus) == {64: expected[64]}
    pairs = [line.split() for line in trials.read_text().splitlines()]
    theirs = [(str(corpus / first), str(corpus / second), int(label)) for label, first, second in pairs]
    assert evaluate_mrl_eer(model, theirs) == expected
    with pytest.raises(TrialError, match=r"gone\.wav"):
        evaluate_mrl_eer(model, [*theirs, ("gone.wav", theirs[0][1], 0)])
    with pytest.raises(TrialError, match="label 1"):
        evaluate_mrl_eer(model, [(1, theirs[0][0], theirs[0][1])])
    with pytest.raises(ConfigError, match="dimension 32"):
        evaluate_mrl_eer(model, trials, [32])


def test_losses_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    base = mrl.AAMSoftmax(embed_dim=32, num_classes=5, margin=0.3, scale=20.0)
    criterion = mrl.MatryoshkaLoss(base_loss=base, mrl_dims=[8, 32], mrl_weights=[3.0, 1.0])
    embedding, labels = torch.randn(6, 32), torch.tensor([0, 1, 2, 3, 4, 0])
    embedding[5] = -base.weight[0].detach()  # so far from its class that the margin would bring it nearer
    expected = {}
    for dim in (8, 32):
        cosine = F.cosine_similarity(embedding[:, None, :dim], base.weight[None, :, :dim], dim=2)
        logits = cosine.clone()
        for row, label in enumerate(labels):
            own = cosine[row, label]
            beyond = own <= math.cos(math.pi - 0.3)
            logits[row, label] = own - 0.3 * math.sin(0.3) if beyond else torch.cos(torch.acos(own) + 0.3)
        expected[dim] = F.cross_entropy(20.0 * logits, labels).item()
    total, logged = criterion({8: embedding[:, :8], 32: embedding}, labels)
    mean = (3 * expected[8] + expected[32]) / 4
    assert total.item() == pytest.approx(mean, rel=1e-5)
    assert logged == pytest.approx(
        {
            "loss_8d": expected[8],
            "loss_32d": expected[32],
            "weight_8d": 3.0,
            "weight_32d": 1.0,
            "loss_total": mean,
            "total_weight": 4.0,
        },
        rel=1e-5,
    )
    assert (criterion.base_loss, criterion.mrl_dims, base.embed_dim) == (base, [8, 32], 32)
    assert [name for name, _ in criterion.named_parameters()] == ["loss.base_loss.weight"]
    with pytest.raises(ConfigError, match="one for each"):
        mrl.MatryoshkaLoss(base, [8, 32], [1.0])


def test_prefixes_are_normalised_before_the_base_loss_unless_told_not_to() -> None:
    def length(embedding: Tensor, labels: Tensor) -> Tensor:
        return embedding.norm(dim=1).mean()

    class Length(torch.nn.Module):
        forward = staticmethod(length)

    embeddings, labels = {4: torch.full((2, 4), 3.0)}, torch.zeros(2)
    assert mrl.MatryoshkaLoss(Length(), [4])(embeddings, labels)[0].item() == pytest.approx(1)
    assert mrl.MatryoshkaLoss(Length(), [4], None, False)(embeddings, labels)[0].item() == pytest.approx(6)


def test_the_projection_takes_the_arguments_of_the_original() -> None:
    projection = mrl.MatryoshkaProjection(48, 32, [8, 32])
    pooled = torch.randn(4, 48)
    full = projection(pooled)
    assert full.shape == (4, 32)
    assert projection(pooled, target_dim=8).equal(full[:, :8])
    assert {dim: part.shape[1] for dim, part in projection(pooled, return_all_dims=True).items()} == {8: 8, 32: 32}
    assert (projection.input_dim, projection.max_embed_dim, projection.mrl_dims) == (48, 32, [8, 32])
    with pytest.raises(ConfigError, match="8, 32"):
        projection(pooled, target_dim=16)
    with pytest.raises(ConfigError, match="64"):
        mrl.MatryoshkaProjection(48, 32, [8, 64])


def test_a_path_is_taken_for_a_name(tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official(tmp_path / "b6-vox2-ft_lm.pt", golden / "redimnet-b0.json.gz")
    monkeypatch.setenv("VOXNEST_MIRROR", "http://127.0.0.1:9/none/")
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    audio = torch.randn(1, 1, 8000)
    expected = embed(load_pretrained_redimnet("b6-vox2-ft_lm.pt"), audio)
    assert embed(load_pretrained_redimnet(tmp_path / "b6-vox2-ft_lm.pt"), audio).equal(expected)
    made = create_mrl_from_pretrained(str(tmp_path / "b6-vox2-ft_lm.pt"))
    torch.testing.assert_close(embed(made, audio)[:, :192], expected)


@pytest.mark.parametrize(
    ("load", "error", "says"),
    [
        (lambda: load_pretrained_redimnet("b2", "ft_mix"), ConfigError, "ft_lm on vox2, ptn on vox2"),
        (lambda: load_pretrained_redimnet("M"), ConfigError, "ft_mix on vb2"),
        (lambda: load_pretrained_redimnet("b22"), ConfigError, "redimnet-b2"),
        (lambda: load_pretrained_redimnet("b1", "ptn"), CheckpointError, "404"),
        (lambda: load_pretrained_redimnet("gone.pt"), CheckpointError, "no such file"),
        (lambda: create_mrl_from_pretrained("b1", "ptn"), CheckpointError, "404"),
        (lambda: create_mrl_from_pretrained("b0", "ft_lm", embed_dim=100, mrl_dims=[64, 128]), ConfigError, "128"),
        (lambda: create_mrl_from_pretrained("b0", "ft_lm", recordings=["gone.wav"]), AudioError, "gone.wav"),
        (lambda: create_mrl_from_pretrained("b0", "ft_lm", recordings=[]), ConfigError, "embeddings"),
        (lambda: mrl.load_trained_mrl("gone.pt"), CheckpointError, "no such file"),
        (lambda: load_audio("gone.wav"), AudioError, "no such file"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_and_not_a_random_model(
    load: Callable[[], object], error: type[VoxnestError], says: str
) -> None:
    with pytest.raises(error, match=says):
        load()


def test_size_m_is_there_under_its_own_data() -> None:
    assert load_pretrained_redimnet("M", "ft_mix", "vb2+vox2+cnc").name == "redimnet-m"
