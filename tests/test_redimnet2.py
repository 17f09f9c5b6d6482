"""ReDimNet2 gives what the official implementation gives, whatever its blocks are."""

from pathlib import Path
from typing import Any

import pytest
import torch

import golden_files
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.foreign.redimnet2 import ARGUMENTS, make_backbone
from voxnest.hub import convert
from voxnest.models.blocks_1d import ACTIVATIONS
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.redimnet2 import BLOCKS_1D, FAMILY, ReDimNet2, ReDimNet2Config
from voxnest.models.redimnet_blocks import BLOCKS_2D, GroupNorm

SMALL: dict[str, Any] = {
    "bins": 24,
    "channels": 8,
    "stages": [((1, 1), 1, 2, [(3, 3)], 4), ((2, 2), 1, 1, [(3, 5)], 8), ((1, 2), 1, 0.5, [(5, 3)], None)],
    "dims": (32,),
}


def small(**settings: Any) -> SpeakerEncoder:
    return FAMILY.build({**SMALL, **settings})


@pytest.mark.parametrize(
    "name", ["b0", "b1", "b2", "b3", *(pytest.param(n, marks=pytest.mark.slow) for n in ("b4", "b6", "b6-dual"))]
)
def test_embedding_equals_the_official_one(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"redimnet2-{name}.json.gz")
    encoder = convert("redimnet2", file["config"], golden_files.make_state_dict(file))
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder(golden_files.make_input(file))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)
    assert sum(p.numel() for p in encoder.parameters()) == file["parameters"]


def test_an_official_backbone_alone_gives_what_it_gives_inside_its_model(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet2-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    inner = {key.removeprefix("backbone."): value for key, value in weights.items() if key.startswith("backbone.")}
    others = ("embed_dim", "hop_length", "pooling_func", "global_context_att", "emb_bn", "feat_type", "spec_params")
    config = {key: value for key, value in file["config"].items() if key not in others}
    features = torch.randn(1, 72, 40)
    with torch.inference_mode():
        expected = convert("redimnet2", file["config"], weights).backbone(features)
        torch.testing.assert_close(make_backbone(config, inner)(features), expected)


@pytest.mark.parametrize("kind", BLOCKS_1D)
def test_every_1d_block_learns(kind: str) -> None:
    # "sdwm_" takes the last number of a stage as channels, and rotary positions need eight.
    stages = (((1, 1), 1, 2, ((3, 3),), 8), ((2, 2), 1, 1, ((3, 3),), 8))
    _assert_learns(small(block_1d=kind, stages=stages))


@pytest.mark.parametrize("kind", BLOCKS_2D)
@pytest.mark.parametrize("group_divisor", [None, 4])
def test_every_2d_block_learns(kind: str, group_divisor: int | None) -> None:
    _assert_learns(small(block_2d=kind, group_divisor=group_divisor))


@pytest.mark.parametrize("mix_2d", [False, True])
@pytest.mark.parametrize("out_channels", [None, 10])
def test_every_way_of_aggregation_learns(mix_2d: bool, out_channels: int | None) -> None:
    _assert_learns(small(dual=True, norm_groups=8, frequency_encoding=True, mix_2d=mix_2d, out_channels=out_channels))


def _assert_learns(encoder: SpeakerEncoder) -> None:
    encoder.train()
    encoder(torch.randn(2, 8000)).square().sum().backward()
    assert not [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_every_activation_gives_an_embedding(name: str) -> None:
    assert small(attention={"activation": name}).eval()(torch.randn(1, 8000)).isfinite().all()


@pytest.mark.parametrize("kind", ["conv+att", "v2_att", "stable_att"])
def test_attention_is_the_same_in_training_form_and_in_inference_form(kind: str) -> None:
    encoder = small(block_1d=kind, attention={"attention_dropout": 0.0}).eval()
    waveform = torch.randn(2, 8000)
    with torch.no_grad():
        expected = encoder(waveform)
        for module in encoder.train().modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()
        torch.testing.assert_close(encoder(waveform), expected, atol=1e-5, rtol=0)


def test_rotary_positions_tell_frames_apart() -> None:
    # Attention without positions gives every order of the same frames the same result, in that order.
    backbone = ReDimNet2(ReDimNet2Config(**{**SMALL, "block_1d": "att-rope", "block_2d": "convnext_like"})).eval()
    block = backbone.stages[0].context
    frames = torch.randn(1, 12, 192)
    with torch.no_grad():
        assert not torch.allclose(block(frames).flip(1), block(frames.flip(1)), atol=1e-4)


def test_group_norm_is_torch_s_with_the_channels_last() -> None:
    norm, reference = GroupNorm(4, 24), torch.nn.GroupNorm(4, 24)
    torch.nn.init.normal_(norm.weight)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(2, 30, 24)
    torch.testing.assert_close(norm(x), reference(x.transpose(1, 2)).transpose(1, 2))


def test_frames_that_do_not_fill_the_time_stride_are_left_out() -> None:
    backbone = ReDimNet2(ReDimNet2Config(**SMALL)).eval()
    features = torch.randn(1, 24, 19)
    with torch.no_grad():
        frames = backbone(features)
        assert frames.shape == (1, 16, 192)
        torch.testing.assert_close(frames, backbone(features[..., :16]))
    with pytest.raises(AudioError, match=r"3 frames.*at least 4"):
        backbone(features[..., :3])


@pytest.mark.parametrize("settings", [{"skip_frames": 5}, {"pad_right": 400}, {"frontend": "tf_mel"}])
def test_the_shortest_waveform_gives_an_embedding(settings: dict[str, Any]) -> None:
    encoder = small(**settings).eval()
    assert encoder(torch.randn(2, encoder.min_samples)).isfinite().all()
    with pytest.raises(AudioError, match=f"at least {encoder.min_samples}"):
        encoder(torch.randn(2, encoder.min_samples - 1))


def test_a_sub_network_goes_on_from_the_maps_of_another_backbone() -> None:
    settings = {**SMALL, "dual": True, "norm_groups": 8}
    maps = ReDimNet2(ReDimNet2Config(**settings)).eval().all_maps(torch.randn(2, 24, 16))
    assert len(maps) == 7  # stem, two of each of the two stages with a 1-D block, one, and their sum
    sub = ReDimNet2(ReDimNet2Config(**settings, previous_maps=len(maps))).eval()
    assert sub(maps).shape == (2, 16, 192)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"block_1d": "conv+att-causal"}, "block_1d"),
        ({"block_2d": "resnet"}, "block_2d"),
        ({"norm_groups": 7}, "divisor of bins"),
        ({"attention": {"activation": "mish"}}, "activation"),
        ({"attention": {"dropout": 0.1}}, "dropout"),
        ({"stages": [((5, 1), 1, 1, [(3, 3)], 4)]}, "stride 5 at 24 bins"),
        ({"stages": [(1, 1, 1, 4)]}, r"stages\[0\]"),
        ({"stages": [((1, 1), 1, 1, [(3, 3)], 7)]}, "multiple of 4"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**settings)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("causal", "full"),
        ("feat_type", "pt_stft"),
        ("spec_in_channels", 2),
        ("fm_weigthing_type", "N"),
        ("att_dos", {"heads": 2}),
        ("strides", 3),
    ],
)
def test_arguments_the_official_class_cannot_be_built_with_are_refused(argument: str, value: object) -> None:
    with pytest.raises(ConfigError, match=argument):
        ARGUMENTS.translate({argument: value})


def test_arguments_of_the_official_class_are_translated() -> None:
    translated = ARGUMENTS.translate(
        {
            "C": 16,
            "agg_gnorm": True,
            "att_dos": {"att_do": 0.1, "rope_max_seq_len": 100},
            "pad_right_samples": None,
            "before_pool_offset": 3,
            "spec_params": {"do_preemph": False},
            "return_all_outputs": True,
        }
    )
    assert translated == {
        "channels": 16,
        "norm_groups": 16,
        "attention": {"attention_dropout": 0.1},
        "pad_right": 0,
        "skip_frames": 3,
        "frontend_options": {"pre_emphasis": None},
    }


def test_a_foreign_checkpoint_that_does_not_fit_is_refused(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet2-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    for key in ("backbone.stage9.0.w", "backbone.stage0_pre.0.w", "backbone.stage0.9.unknown", "backbone.stage0.w"):
        with pytest.raises(CheckpointError, match=f"unexpected key: {key!r}"):
            convert("redimnet2", file["config"], {**weights, key: torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"1 missing key: head\.linear\.bias"):
        convert("redimnet2", file["config"], {key: value for key, value in weights.items() if key != "linear.bias"})
