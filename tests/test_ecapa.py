"""ECAPA-TDNN gives what wespeaker's and SpeechBrain's implementations give."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import golden_files
from voxnest import create_encoder, load_encoder
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.foreign.speechbrain import ARCHITECTURE, read_hyperparameters
from voxnest.frontends.speechbrain import SpeechBrainFbank
from voxnest.hub import convert
from voxnest.models.ecapa import FAMILY, ECAPAConfig
from voxnest.zoo.counting import count_parameters

SMALL: dict[str, Any] = {"bins": 20, "channels": 32, "out_channels": 48, "scale": 4, "se_channels": 8, "dims": (16,)}
SMALL_SPEECHBRAIN: dict[str, Any] = {
    "input_size": 20,
    "channels": [32, 32, 32, 48],
    "kernel_sizes": [5, 3, 3, 1],
    "dilations": [1, 2, 3, 1],
    "res2net_scale": 4,
    "se_channels": 8,
    "attention_channels": 12,
    "lin_neurons": 16,
}
HYPERPARAMETERS = """
n_mels: 20
out_n_neurons: 7205
compute_features: !new:speechbrain.lobes.features.Fbank
    n_mels: !ref <n_mels>
mean_var_norm: !new:speechbrain.processing.features.InputNormalization
    norm_type: sentence
    std_norm: False
embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN
    input_size: !ref <n_mels>
    channels: [32, 32, 32, 48]
    activation: !name:torch.nn.ReLU
label_encoder: !new:speechbrain.dataio.encoder.CategoricalEncoder
modules:
    embedding_model: !ref <embedding_model>
"""


@pytest.mark.parametrize("size", ["512", "1024"])
def test_embedding_equals_that_of_wespeaker(golden: Path, size: str) -> None:
    file = golden_files.read(golden / f"ecapa-tdnn-{size}.json.gz")
    encoder = convert(file["architecture"], file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert isinstance(embedding, Tensor)
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert count_parameters(encoder) == file["parameters"]
    assert encoder.config["channels"] == int(size)


def test_cards_build_the_golden_models(golden: Path) -> None:
    for name in ("ecapa-tdnn-512", "ecapa-tdnn-1024"):
        file = golden_files.read(golden / f"{name}.json.gz")
        assert count_parameters(create_encoder(name)) == file["parameters"]


def test_wespeaker_model_without_context_and_with_normalised_embedding_is_recognised(golden: Path) -> None:
    file = golden_files.read(golden / "ecapa-tdnn-512.json.gz")
    weights = golden_files.make_state_dict(file)
    weights["pool.linear1.weight"] = weights["pool.linear1.weight"][:, :1536]
    weights.update({f"bn2.{leaf}": torch.rand(192) for leaf in ("weight", "bias", "running_mean", "running_var")})
    weights["bn2.num_batches_tracked"] = torch.zeros(())
    encoder = convert("ecapa-tdnn-512", {**file["config"], "emb_bn": True}, weights)
    assert not encoder.config["global_context"]
    assert encoder.config["out_norm"]


def test_wrong_wespeaker_weights_are_listed(golden: Path) -> None:
    file = golden_files.read(golden / "ecapa-tdnn-512.json.gz")
    weights = golden_files.make_state_dict(file)
    with pytest.raises(CheckpointError, match=r"head\.linear\.bias"):
        convert(
            "ecapa-tdnn-512", file["config"], {key: value for key, value in weights.items() if key != "linear.bias"}
        )
    with pytest.raises(CheckpointError, match="'layer5"):
        convert("ecapa-tdnn-512", file["config"], {**weights, "layer5.conv.bias": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="shape"):
        convert("ecapa-tdnn-512", {**file["config"], "channels": 256}, weights)
    with pytest.raises(ConfigError, match="depth"):
        convert("ecapa-tdnn-512", {**file["config"], "depth": 3}, weights)


def test_embedding_equals_that_of_speechbrain() -> None:
    encoder, weights = make_speechbrain()
    features = torch.randn(2, 20, 31)
    with torch.inference_mode():
        embedding = encoder.embed_features(features)
        expected = speechbrain_embedding(weights, features, dilations=[1, 2, 3], scale=4)
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=0)


def test_speechbrain_hyperparameters_are_read_without_running_code() -> None:
    sections = read_hyperparameters(HYPERPARAMETERS)
    assert sections["embedding_model"]["input_size"] == 20
    assert sections["compute_features"] == {"n_mels": 20}
    assert sections["mean_var_norm"] == {"norm_type": "sentence", "std_norm": False}
    with pytest.raises(CheckpointError, match="YAML"):
        read_hyperparameters("channels: [1, 2")


def test_a_speechbrain_directory_loads(tmp_path: Path) -> None:
    encoder, weights = make_speechbrain()
    arguments = "".join(f"    {key}: {value}\n" for key, value in SMALL_SPEECHBRAIN.items())
    model = f"embedding_model: !new:speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN\n{arguments}"
    (tmp_path / "hyperparams.yaml").write_text(f"compute_features:\n    n_mels: 20\n{model}")
    torch.save(weights, tmp_path / "embedding_model.ckpt")
    waveform = torch.randn(1, 8000)
    with torch.inference_mode():
        torch.testing.assert_close(load_encoder(tmp_path)(waveform), encoder(waveform))
    (tmp_path / "hyperparams.yaml").write_text("embedding_model: !new:other.Model\n    depth: 3\n")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        load_encoder(tmp_path)
    torch.save([1], tmp_path / "embedding_model.ckpt")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("section", "argument", "value"),
    [
        ("embedding_model", "activation", "name:torch.nn.LeakyReLU"),
        ("embedding_model", "groups", [1, 2, 1, 1]),
        ("embedding_model", "channels", [32, 64, 32, 48]),
        ("embedding_model", "depth", 3),
        ("compute_features", "deltas", True),
        ("mean_var_norm", "norm_type", "global"),
    ],
)
def test_speechbrain_model_of_another_kind_is_refused(section: str, argument: str, value: Any) -> None:
    sections: dict[str, Any] = {"embedding_model": SMALL_SPEECHBRAIN}
    sections[section] = {**sections.get(section, {}), argument: value}
    with pytest.raises(ConfigError, match=argument):
        convert(ARCHITECTURE, sections, {})


def test_speechbrain_filter_bank_has_its_shape_range_and_zero_mean() -> None:
    waveform = torch.randn(2, 8000) * torch.tensor([[0.1], [0.01]])
    waveform[:, :4000] = 0.0
    features = SpeechBrainFbank(40, normalization=None)(waveform)
    assert features.shape == (2, 40, 51)
    spread = features.amax(dim=(1, 2)) - features.amin(dim=(1, 2))
    torch.testing.assert_close(spread, torch.full((2,), 80.0))
    normalised = SpeechBrainFbank(40)(waveform)
    torch.testing.assert_close(normalised.mean(dim=2), torch.zeros(2, 40), atol=1e-4, rtol=0)


def test_speechbrain_filter_bank_equals_a_plain_computation() -> None:
    waveform = torch.randn(1, 1600, dtype=torch.float64)
    frames = F.pad(waveform, (200, 200)).unfold(1, 400, 160) * torch.hamming_window(400, dtype=torch.float64)
    power = torch.fft.rfft(frames).abs().square()[0]
    corners = 700 * (10 ** (torch.linspace(0, 2840.0230467, 12, dtype=torch.float64) / 2595) - 1)
    expected = torch.zeros(power.shape[0], 10, dtype=torch.float64)
    for index in range(10):
        width = corners[index + 1] - corners[index]
        weights = (1 - (torch.arange(201) * 40 - corners[index + 1]).abs() / width).clamp(min=0)
        expected[:, index] = 10 * (power * weights).sum(dim=1).log10()
    features = SpeechBrainFbank(10, normalization=None)(waveform.float())
    torch.testing.assert_close(features[0].T, expected.float(), atol=1e-3, rtol=0)


def test_a_reflection_needs_more_frames() -> None:
    for padding, shortest in (("zeros", 2), ("reflect", 5)):
        encoder = FAMILY.build({**SMALL, "padding": padding}).eval()
        assert encoder.embed_features(torch.randn(1, 20, shortest)).isfinite().all()
        with pytest.raises(AudioError, match=f"at least {shortest}"):
            encoder.embed_features(torch.randn(1, 20, shortest - 1))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("padding", "none"),
        ("pooling", "mean"),
        ("kernel_sizes", (5, 3)),
        ("kernel_sizes", (5, 4, 3, 3, 1)),
        ("dilations", (1, 2)),
        ("scale", 7),
        ("scale", 1),
    ],
)
def test_bad_settings_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        ECAPAConfig(**{setting: value})


def make_speechbrain() -> tuple[Any, dict[str, Tensor]]:
    """A small encoder from weights with SpeechBrain's names, and those weights."""
    shapes: dict[str, list[int]] = {}

    def add_conv(key: str, *shape: int) -> None:
        shapes.update({f"{key}.conv.weight": list(shape), f"{key}.conv.bias": [shape[0]]})

    def add_norm(key: str, channels: int) -> None:
        shapes.update({f"{key}.norm.{leaf}": [channels] for leaf in ("weight", "bias", "running_mean", "running_var")})

    def add_tdnn(key: str, *shape: int) -> None:
        add_conv(f"{key}.conv", *shape)
        add_norm(f"{key}.norm", shape[0])

    add_tdnn("blocks.0", 32, 20, 5)
    for block in ("blocks.1", "blocks.2"):
        for tdnn in ("tdnn1", "tdnn2"):
            add_tdnn(f"{block}.{tdnn}", 32, 32, 1)
        for part in range(3):
            add_tdnn(f"{block}.res2net_block.blocks.{part}", 8, 8, 3)
        add_conv(f"{block}.se_block.conv1", 8, 32, 1)
        add_conv(f"{block}.se_block.conv2", 32, 8, 1)
    add_tdnn("mfa", 48, 64, 1)
    add_tdnn("asp.tdnn", 12, 144, 1)
    add_conv("asp.conv", 48, 12, 1)
    add_norm("asp_bn", 96)
    add_conv("fc", 16, 96, 1)
    contents = {"keys": [list(item) for item in shapes.items()], "filled": list(shapes)}
    weights = golden_files.make_state_dict(contents)
    for key in list(weights):
        if key.endswith("running_var"):
            weights[key.replace("running_var", "num_batches_tracked")] = torch.zeros((), dtype=torch.long)
    return convert(ARCHITECTURE, {"embedding_model": SMALL_SPEECHBRAIN}, weights), weights


def speechbrain_embedding(weights: dict[str, Tensor], x: Tensor, *, dilations: list[int], scale: int) -> Tensor:
    """What SpeechBrain's network computes of features `[batch, bins, frames]`, written down step by step."""

    def conv(key: str, x: Tensor, dilation: int = 1) -> Tensor:
        weight = weights[f"{key}.conv.weight"]
        reach = weight.shape[2] // 2 * dilation
        padded = F.pad(x, (reach, reach), mode="reflect") if reach else x
        return F.conv1d(padded, weight, weights[f"{key}.conv.bias"], dilation=dilation)

    def norm(key: str, x: Tensor) -> Tensor:
        values = [weights[f"{key}.norm.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values)

    def tdnn(key: str, x: Tensor, dilation: int = 1) -> Tensor:
        return norm(f"{key}.norm", conv(f"{key}.conv", x, dilation).relu())

    x = tdnn("blocks.0", x, dilations[0])
    outputs = []
    for index, dilation in enumerate(dilations[1:], start=1):
        first, *rest = tdnn(f"blocks.{index}.tdnn1", x).chunk(scale, dim=1)
        parts, last = [first], torch.zeros(())
        for number, part in enumerate(rest):
            last = tdnn(f"blocks.{index}.res2net_block.blocks.{number}", part + last, dilation)
            parts.append(last)
        y = tdnn(f"blocks.{index}.tdnn2", torch.cat(parts, dim=1))
        hidden = conv(f"blocks.{index}.se_block.conv1", y.mean(dim=2, keepdim=True)).relu()
        x = x + y * conv(f"blocks.{index}.se_block.conv2", hidden).sigmoid()
        outputs.append(x)
    x = tdnn("mfa", torch.cat(outputs, dim=1))
    deviation, mean = torch.std_mean(x, dim=2, keepdim=True, correction=0)
    context = torch.cat([x, mean.expand_as(x), deviation.expand_as(x)], dim=1)
    attention = conv("asp.conv", tdnn("asp.tdnn", context).tanh()).softmax(dim=2)
    mean = (attention * x).sum(dim=2, keepdim=True)
    deviation = (attention * (x - mean).square()).sum(dim=2, keepdim=True).sqrt()
    return conv("fc", norm("asp_bn", torch.cat([mean, deviation], dim=1))).squeeze(2)


def test_reference_computation_of_these_tests_normalises_as_torch_does() -> None:
    layer = nn.BatchNorm1d(4).eval()
    nn.init.normal_(layer.weight)
    x = torch.randn(2, 4, 5)
    running = layer.running_mean, layer.running_var
    torch.testing.assert_close(F.batch_norm(x, *running, layer.weight, layer.bias), layer(x))
