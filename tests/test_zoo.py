"""The picture of all models, and the page that is generated: they show what the registry holds."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from voxnest.models.families import FAMILIES
from voxnest.zoo import picture
from voxnest.zoo.card import VOX1
from voxnest.zoo.counting import KEPT, count_macs, count_model, count_parameters
from voxnest.zoo.registry import CARDS, create_encoder, list_models

PAGE = Path(__file__).parent.parent / "docs" / "zoo.md"


def test_every_family_is_found_by_its_name_and_every_card_is_of_one() -> None:
    assert {name: family.architecture for name, family in FAMILIES.items()} == {name: name for name in FAMILIES}
    assert {card.architecture for card in CARDS.values()} == set(FAMILIES)


def test_picture_holds_every_model_with_rates_on_all_three_lists(tmp_path: Path) -> None:
    drawn = {point.name: point for point in picture.plot_models(tmp_path / "new" / "zoo.png")}
    published = {
        name
        for name, card in CARDS.items()
        if any(set(VOX1) <= set(eer) for eer in (card.published.eer, card.published.eer_as_norm))
    }
    assert published - set(drawn) == {"xvector"}  # above the picture
    assert drawn["redimnet-b2"].eer == pytest.approx((0.57 + 0.76 + 1.32) / 3)
    assert drawn["ecapa-tdnn-512"].normalised
    assert not drawn["redimnet-b2"].normalised


def test_picture_is_a_png_with_colours(tmp_path: Path) -> None:
    picture.plot_models(tmp_path / "zoo.png")
    drawn = imread(tmp_path / "zoo.png")
    assert drawn.shape[:2] == (1120, 1600)
    reds = (drawn[..., 0] > 0.6) & (drawn[..., 1] < 0.3)
    assert reds.sum() > 500


@pytest.mark.parametrize("name", ["file/zoo.png", "zoo.gif"])
def test_command_names_the_file_that_it_cannot_write(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    command = [sys.executable, "-m", "voxnest", "models", "plot", str(tmp_path / name)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 2
    assert shown.stderr.startswith(f"error: {tmp_path / name}: ")
    assert len(shown.stderr.splitlines()) == 1


def test_page_lists_every_model_with_the_parameters_it_has_now() -> None:
    listed = dict(re.findall(r"^\| `([^`]+)` \| ([\d.]+) ", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert list(listed) == [name for name in list_models() if name != "redimnet-tiny"]
    for name, parameters in listed.items():
        with torch.device("meta"):
            encoder = create_encoder(name)
        assert parameters == f"{count_parameters(encoder) / 1e6:.2f}", f"{name}: run tools/zoo.py again"


def test_counting_leaves_every_part_in_its_mode() -> None:
    encoder = create_encoder("redimnet-tiny").train()
    encoder.backbone.eval()
    modes = {name: module.training for name, module in encoder.named_modules()}
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    training = count_macs(encoder)
    assert {name: module.training for name, module in encoder.named_modules()} == modes
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert training == count_macs(encoder.eval())


@pytest.mark.slow
def test_the_counts_that_are_kept_are_those_of_the_models() -> None:
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    assert kept == {name: list(count_model(name)) for name in list_models()}, "run python tools/zoo.py --counts"
