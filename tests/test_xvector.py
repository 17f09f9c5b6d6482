"""The x-vector network gives what wespeaker's gives."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import golden_files
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.hub import convert
from voxnest.models.xvector import CONTEXTS, FAMILY

SMALL: dict[str, Any] = {"bins": 20, "channels": 16, "out_channels": 24, "dims": (12,)}
ARGUMENTS = {"feat_dim": 20, "hid_dim": 16, "stats_dim": 24, "embed_dim": 12, "pooling_func": "TSTP"}


def make_weights() -> dict[str, Tensor]:
    """Weights with the names of wespeaker's `XVEC(**ARGUMENTS)`."""
    shapes: dict[str, list[int]] = {"seg_1.weight": [12, 48], "seg_1.bias": [12]}
    channels = [20, 16, 16, 16, 16, 24]
    for index, (size, _) in enumerate(CONTEXTS):
        shapes[f"frame_{index + 1}.conv_1d.weight"] = [channels[index + 1], channels[index], size]
        shapes[f"frame_{index + 1}.conv_1d.bias"] = [channels[index + 1]]
    shapes.update({"seg_2.weight": [12, 12], "seg_2.bias": [12]})
    for key, width in [*((f"frame_{n + 1}.bn", channels[n + 1]) for n in range(5)), ("seg_bn_1", 12)]:
        shapes.update({f"{key}.running_mean": [width], f"{key}.running_var": [width], f"{key}.num_batches_tracked": []})
    filled = [key for key in shapes if not key.endswith("tracked")]
    return golden_files.make_state_dict({"keys": [list(item) for item in shapes.items()], "filled": filled})


def test_embedding_equals_that_of_wespeaker() -> None:
    weights, features = make_weights(), torch.randn(2, 20, 33)
    encoder = convert("xvector", ARGUMENTS, weights)
    x = features
    for index, (_, dilation) in enumerate(CONTEXTS):
        key = f"frame_{index + 1}"
        x = F.conv1d(x, weights[f"{key}.conv_1d.weight"], weights[f"{key}.conv_1d.bias"], dilation=dilation).relu()
        x = F.batch_norm(x, weights[f"{key}.bn.running_mean"], weights[f"{key}.bn.running_var"])
    x = torch.cat([x.mean(dim=2), (x.var(dim=2) + 1e-7).sqrt()], dim=1)
    x = F.linear(x, weights["seg_1.weight"], weights["seg_1.bias"]).relu()
    x = F.batch_norm(x, weights["seg_bn_1.running_mean"], weights["seg_bn_1.running_var"])
    expected = F.linear(x, weights["seg_2.weight"], weights["seg_2.bias"])
    with torch.inference_mode():
        torch.testing.assert_close(encoder.embed_features(features), expected, atol=1e-5, rtol=0)


def test_attentive_pooling_has_the_weights_of_the_checkpoint() -> None:
    pooling = {
        "linear1.weight": [128, 24, 1],
        "linear1.bias": [128],
        "linear2.weight": [24, 128, 1],
        "linear2.bias": [24],
    }
    weights = make_weights() | {f"pool.{key}": torch.randn(shape) for key, shape in pooling.items()}
    loaded = convert("xvector", {**ARGUMENTS, "pooling_func": "ASTP"}, weights).pooling.state_dict()
    assert torch.equal(loaded["pooling.attend.weight"], weights["pool.linear1.weight"][..., 0])
    assert torch.equal(loaded["pooling.score.weight"], weights["pool.linear2.weight"][..., 0])
    assert torch.equal(loaded["linear.weight"], weights["seg_1.weight"])


def test_wrong_weights_and_arguments_are_named() -> None:
    weights = make_weights()
    with pytest.raises(CheckpointError, match=r"head\.linear\.bias"):
        convert("xvector", ARGUMENTS, {key: value for key, value in weights.items() if key != "seg_2.bias"})
    with pytest.raises(ConfigError, match="depth"):
        convert("xvector", {**ARGUMENTS, "depth": 3}, weights)


def test_sixteen_frames_are_enough_and_fewer_are_refused() -> None:
    encoder = FAMILY.build(SMALL).eval()
    embedding = encoder.embed_features(torch.randn(1, 20, 16))
    assert isinstance(embedding, Tensor)
    assert embedding.isfinite().all()
    with pytest.raises(AudioError, match="at least 16"):
        encoder.embed_features(torch.randn(1, 20, 15))


def test_unknown_embedding_is_refused() -> None:
    with pytest.raises(ConfigError, match="'a' or 'b'"):
        FAMILY.build({**SMALL, "embedding": "c"})
