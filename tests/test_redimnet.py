"""ReDimNet gives what the official implementation gives, and behaves as a speaker encoder."""

import dataclasses
from pathlib import Path

import pytest
import torch

import golden_files
from voxnest import create_encoder
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.foreign.redimnet import make_backbone
from voxnest.hub import convert
from voxnest.models.pooling import POOLINGS, create_pooling
from voxnest.models.redimnet import BLOCKS_1D, BLOCKS_2D, ReDimNet, ReDimNetConfig

REFERENCES = ["default", "conv", "b0", "b1", "b2", "b3", "b5", "b6"]


@pytest.mark.parametrize("name", REFERENCES)
def test_embedding_equals_the_official_one(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"redimnet-{name}.json.gz")
    encoder = convert("redimnet", file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder(golden_files.make_input(file))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert sum(p.numel() for p in encoder.parameters()) == file["parameters"]


def test_embedding_is_the_same_in_training_form_and_in_inference_form(golden: Path) -> None:
    # Attention takes another path while training; with frozen batch statistics it must give the same numbers.
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    encoder = convert("redimnet", file["config"], golden_files.make_state_dict(file)).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    with torch.no_grad():
        embedding = encoder(golden_files.make_input(file))
    torch.testing.assert_close(embedding, golden_files.expected(file), atol=1e-4, rtol=0)


# Reported of the files b2-vox2-*.pt and b5-vox2-ft_lm.pt by findit-ai/coremlit, of S and M by their sizes.
@pytest.mark.parametrize(
    ("name", "numbers"), [("redimnet-b2", 5_100_983), ("redimnet-b5", 7_709_351), ("redimnet-s", 3_189_099)]
)
def test_size_is_that_of_the_released_checkpoint(name: str, numbers: int) -> None:
    encoder = create_encoder(name)
    filters = 257 * 72 + 400 + 2  # front-end constants that the official state dict holds and ours computes
    counters = sum(value.numel() for key, value in encoder.state_dict().items() if key.endswith("num_batches_tracked"))
    assert counters
    assert sum(value.numel() for value in encoder.state_dict().values()) + filters == pytest.approx(numbers, abs=4)


@pytest.mark.parametrize("block_1d", BLOCKS_1D)
@pytest.mark.parametrize("block_2d", BLOCKS_2D)
@pytest.mark.parametrize("group_divisor", [None, 4])
def test_every_block_type_learns(block_1d: str, block_2d: str, group_divisor: int | None) -> None:
    encoder = create_encoder(
        "redimnet-tiny",
        block_1d=block_1d,
        block_2d=block_2d,
        group_divisor=group_divisor,
        stages=[(2, 1, 2, 8), (2, 1, 1, None)],
    ).train()
    encoder(torch.randn(2, 8000)).square().sum().backward()
    untouched = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not untouched


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_every_pooling_gives_an_embedding(pooling: str) -> None:
    encoder = create_encoder("redimnet-tiny", pooling=pooling).eval()
    assert encoder(torch.randn(2, 8000)).shape == (2, 64)


def test_a_dimension_the_model_lacks_is_an_error_that_lists_those_it_has() -> None:
    encoder = create_encoder("redimnet-tiny", dims=(24, 48))
    with pytest.raises(ConfigError, match=r"32.*24, 48"):
        encoder(torch.randn(1, 8000), dim=32)


def test_a_waveform_of_the_wrong_shape_is_an_audio_error() -> None:
    encoder = create_encoder("redimnet-tiny").eval()
    with pytest.raises(AudioError, match=r"\[1, 1, 8000\].*\[batch, samples\]"):
        encoder(torch.randn(1, 1, 8000))


def test_bfloat16_autocast_changes_scores_little(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    encoder = convert("redimnet", file["config"], golden_files.make_state_dict(file))
    waveform = golden_files.make_input(file)
    with torch.inference_mode():
        exact = encoder(waveform)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = encoder(waveform)
    assert rounded.dtype == torch.float32
    assert torch.cosine_similarity(exact, rounded).item() > 0.999


def test_unknown_names_and_settings_are_errors_that_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="redimnet-b2"):
        create_encoder("redimnet_b2")
    with pytest.raises(ConfigError, match="hop_length"):
        create_encoder("redimnet-b0", hoplength=160)
    with pytest.raises(ConfigError, match="basic_resnet"):
        create_encoder("redimnet-b0", block_2d="resnet")
    with pytest.raises(ConfigError, match="divisor"):
        create_encoder("redimnet-b0", bins=61, stages=[(2, 1, 1, None)])
    with pytest.raises(ConfigError, match="positive"):
        create_encoder("redimnet-b0", dims=())


def test_a_foreign_checkpoint_that_does_not_fit_is_refused(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    with pytest.raises(CheckpointError, match=r"1 missing key: head\.linear\.bias"):
        convert("redimnet", file["config"], {key: value for key, value in weights.items() if key != "linear.bias"})
    with pytest.raises(CheckpointError, match=r"unexpected key: 'projection\.weight'"):
        convert("redimnet", file["config"], {**weights, "projection.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError, match=r"linear\.weight.*\[192, 7\]"):
        convert("redimnet", file["config"], {**weights, "linear.weight": torch.zeros(192, 7)})
    others = {k: v for k, v in weights.items() if k != "linear.bias"} | {"one": torch.zeros(1), "two": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"2 unexpected keys: 'one', 'two'; 1 missing key: head\.linear\.bias"):
        convert("redimnet", file["config"], others)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("feat_type", "pt_stft"),
        ("spec_params", {"window_size": 400}),
        ("spec_params", {"spec_norm": "none"}),
        ("return_2d_output", True),
    ],
)
def test_arguments_the_official_class_cannot_be_built_with_are_refused(
    golden: Path, argument: str, value: object
) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    with pytest.raises(ConfigError, match=argument):
        convert("redimnet", {**file["config"], argument: value}, golden_files.make_state_dict(file))


def test_a_class_head_is_dropped_and_only_if_the_configuration_has_one(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    with_head = {**weights, "cls_head.2.weight": torch.zeros(7, 192), "cls_head.2.bias": torch.zeros(7)}
    waveform = golden_files.make_input(file)
    with torch.inference_mode():
        embedding = convert("redimnet", {**file["config"], "num_classes": 7}, with_head)(waveform)
    torch.testing.assert_close(embedding, golden_files.expected(file), atol=1e-4, rtol=0)
    with pytest.raises(CheckpointError, match=r"cls_head\.2\.weight"):
        convert("redimnet", file["config"], with_head)


def test_kernels_of_the_layout_for_tensorflow_are_read_with_time_first(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    swapped = {k: v.swapdims(2, 3) if v.ndim == 4 and not k.endswith(".w") else v for k, v in weights.items()}
    waveform = golden_files.make_input(file)
    with torch.inference_mode():
        embedding = convert("redimnet", {**file["config"], "tf_optimized_arch": True}, swapped)(waveform)
    torch.testing.assert_close(embedding, golden_files.expected(file), atol=1e-4, rtol=0)


def test_arguments_of_the_official_front_end_reach_ours(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    params = {"norm_signal": True, "do_preemph": False, "win_length": 320, "spec_norm": "bn", "do_spec_aug": True}
    weights = golden_files.make_state_dict(file)
    learned = {f"spec.spec_norm.{k}": v + 2.0 for k, v in torch.nn.BatchNorm1d(60).state_dict().items()}
    encoder = convert("redimnet", {**file["config"], "spec_params": params}, {**weights, **learned})
    frontend = encoder.frontend
    assert frontend.normalize_signal
    assert frontend.pre_emphasis is None
    assert frontend.window_length == 320
    assert frontend.spec_augment is not None
    torch.testing.assert_close(frontend.batch_norm.weight, torch.full((60,), 3.0))


def test_a_sub_network_goes_on_from_the_maps_of_another_backbone() -> None:
    config = ReDimNetConfig(bins=24, channels=4, stages=[(2, 1, 1, None), (2, 1, 1, None)], group_divisor=4)
    backbone = ReDimNet(config).eval()
    maps = backbone.all_maps(torch.randn(2, 24, 30))
    assert len(maps) == 4
    sub = ReDimNet(dataclasses.replace(config, previous_maps=len(maps))).eval()
    assert sub(maps).shape == (2, 30, 96)
    assert len(sub.all_maps(maps)) == 8
    with pytest.raises(ConfigError, match="previous_maps"):
        create_encoder("redimnet-tiny", previous_maps=4)


def test_an_official_backbone_alone_gives_what_it_gives_inside_its_model(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    keys = ("F", "C", "block_1d_type", "block_2d_type", "stages_setup", "group_divisor")
    config = {k: v for k, v in file["config"].items() if k in keys}
    inner = {k.removeprefix("backbone."): v for k, v in weights.items() if k.startswith("backbone.")}
    encoder = convert("redimnet", file["config"], weights)
    features = torch.randn(1, 60, 40)
    with torch.inference_mode():
        frames = make_backbone({**config, "out_channels": None}, inner)(features)
        torch.testing.assert_close(frames, encoder.backbone(features))


def test_attentive_poolings_with_equal_attention_give_mean_and_deviation() -> None:
    x = torch.randn(2, 50, 16)
    mean, deviation = x.mean(dim=1), x.std(dim=1, correction=0)
    for name, copies, heads in [("MHASTP", 1, 2), ("MQMHASTP", 2, 8)]:
        pooling = create_pooling(name, 16)
        for parameter in pooling.parameters():
            torch.nn.init.zeros_(parameter)
        parts = zip(mean.chunk(heads, dim=1), deviation.chunk(heads, dim=1), strict=True)
        expected = torch.cat([torch.cat(part, dim=1) for part in parts], dim=1).repeat(1, copies)
        torch.testing.assert_close(pooling(x), expected, atol=1e-4, rtol=0)
    with pytest.raises(ConfigError, match="multiple of 8"):
        create_pooling("MQMHASTP", 12)
    torch.testing.assert_close(create_pooling("TMAP", 16)(x), x.amax(dim=1) + mean)
