"""ECAPA2 has the published size and behaves as a speaker encoder."""

from typing import Any

import pytest
import torch

from voxnest import create_encoder
from voxnest.errors import ConfigError
from voxnest.models.ecapa2 import ECAPA2, FAMILY, ECAPA2Config, LocalBlock

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


def test_front_end_of_the_card_gives_as_many_bins_as_the_network_takes() -> None:
    encoder = create_encoder("ecapa2")
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


@pytest.mark.parametrize(
    ("setting", "value"), [("bins", 18), ("local_channels", ()), ("local_channels", ((4,), ())), ("scale", 5)]
)
def test_bad_settings_are_refused(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError):
        FAMILY.build({**SMALL, setting: value})
