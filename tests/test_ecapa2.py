"""ECAPA2 has the published size and behaves as a speaker encoder."""

from typing import Any

import pytest
import torch
from torch import Tensor

from voxnest import create_encoder
from voxnest.errors import AudioError, ConfigError
from voxnest.models.ecapa2 import ECAPA2, ECAPA2Config, LocalBlock, build
from voxnest.zoo.cards.ecapa import CARDS
from voxnest.zoo.counting import count_parameters

SMALL: dict[str, Any] = {
    "bins": 16,
    "local_channels": ((4, 4), (4, 6), (6,)),
    "local_se_channels": 4,
    "channels": 16,
    "out_channels": 24,
    "scale": 4,
    "se_channels": 8,
    "attention_channels": 8,
    "frontend": "fbank",
    "frontend_options": {},
    "dims": (8, 16),
}


def test_size_is_within_two_percent_of_the_published_one() -> None:
    card = CARDS["ecapa2"]
    encoder = create_encoder("ecapa2")
    assert count_parameters(encoder) / 1e6 == pytest.approx(card.published.parameters, rel=0.02)
    assert card.published.note
    assert encoder.frontend(torch.randn(1, 3200)).shape[1] == encoder.config["bins"]


def test_frequencies_are_halved_stage_by_stage() -> None:
    backbone = ECAPA2(ECAPA2Config(**SMALL))
    x = torch.randn(2, 9, 16, 1)
    shapes = []
    for block in backbone.local:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(9, 16, 4), (9, 16, 4), (9, 8, 4), (9, 8, 6), (9, 4, 6)]


def test_block_adds_its_input_unless_channels_change_without_a_stride() -> None:
    for in_channels, out_channels, stride, expected in ((4, 4, 1, True), (4, 6, 2, True), (4, 6, 1, False)):
        block = LocalBlock(in_channels, out_channels, 8 // stride, se_channels=4, stride=stride).eval()
        last = block.convs[-1].norm
        torch.nn.init.zeros_(last.weight)
        assert bool(block(torch.randn(1, 5, 8, in_channels)).any()) is expected


def test_every_weight_learns() -> None:
    torch.manual_seed(0)  # by chance, all units of a small hidden layer can be off
    encoder = build("small", SMALL).train()
    embedding = encoder.embed_features(torch.randn(3, 16, 25))
    assert isinstance(embedding, Tensor)
    (embedding * torch.randn_like(embedding)).sum().backward()
    untouched = [name for name, value in encoder.named_parameters() if value.grad is None or not value.grad.any()]
    assert not untouched


def test_short_and_odd_lengths_work_and_too_short_ones_are_refused() -> None:
    encoder = build("small", SMALL).eval()
    for frames in (3, 4, 37):
        embedding = encoder.embed_features(torch.randn(2, 16, frames), dim=8)
        assert isinstance(embedding, Tensor)
        assert embedding.shape == (2, 8)
        assert embedding.isfinite().all()
    with pytest.raises(AudioError, match="at least 3"):
        encoder.embed_features(torch.randn(1, 16, 2))
    assert encoder(torch.randn(1, encoder.min_samples)).isfinite().all()


@pytest.mark.parametrize(
    ("setting", "value"), [("bins", 18), ("local_channels", ()), ("local_channels", ((4,), ())), ("scale", 5)]
)
def test_bad_settings_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        build("small", {**SMALL, setting: value})
