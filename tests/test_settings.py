"""Whatever a setting is, the answer is an encoder or one line that names the setting, at once and without memory."""

import dataclasses
import math
import resource
from typing import Any

import pytest
import torch

from voxnest.errors import ConfigError
from voxnest.frontends import FRONTENDS, create_frontend, options
from voxnest.zoo.cards import CARDS
from voxnest.zoo.registry import create_encoder

ODD: tuple[Any, ...] = (0, -1, 7, 10**9, "wide", None, [], {}, [[7]])


@pytest.mark.parametrize("name", CARDS)
def test_any_single_override_gives_an_encoder_or_a_config_error(name: str) -> None:
    names = [field.name for field in dataclasses.fields(CARDS[name].network.config_type)] + ["level"]
    # Every value for one model of each family; for the others, which have the same settings, a value of every tenth.
    whole = name == min(other for other, card in CARDS.items() if card.family == CARDS[name].family)
    position = list(CARDS).index(name)
    with torch.device("meta"):
        for number, setting in list(enumerate(names))[:: 1 if whole else 10]:
            for value in ODD if whole else ODD[(number + position) % len(ODD) :][:1]:
                said = refusal(name, {setting: value})
                assert setting in said, (setting, value, said)
                assert "\n" not in said


@pytest.mark.parametrize("name", CARDS)
def test_a_value_that_is_taken_as_it_is_would_not_be_changed(name: str) -> None:
    """Plain values go past pydantic, whose import takes long; it must have said the same of them."""
    takes, hints = CARDS[name].network.config_type, options._hints(CARDS[name].network.config_type)
    values = [(key, value) for key in hints for value in (*ODD, 0.5, -25.0, math.nan, True, "ASP", (1, 2))]
    taken = [(key, value) for key, value in values if options._is_plainly(value, hints[key])]
    assert len(taken) > len(hints) / 2
    for key, value in taken:
        said = options._brought(name, key, value, takes)
        assert (type(said), said) == (type(value), value), key


def refusal(name: str, overrides: dict[str, Any]) -> str:
    """What the error says; the setting if there is none."""
    try:
        create_encoder(name, **overrides)
    except ConfigError as error:
        return str(error)
    return str(overrides)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"channels": 7}, "redimnet-b0: channels=7: .*multiple of 4"),
        ({"channels": "wide"}, "redimnet-b0: channels: 'wide' .expected a valid integer"),
        ({"stages": 3}, "redimnet-b0: stages: 3 .expected a list"),
        ({"stages": [[1, 2, 1, "x"]]}, r"redimnet-b0: stages\[0\]\[3\]: 'x' .expected a valid integer"),
        ({"stages": [[1, 200_000, 1, None]]}, "too large .expected at most 268,435,456 numbers"),
        ({"bins": 0}, "bins=0: .*at least 1"),
        ({"dims": []}, "dims: .* positive numbers"),
        ({"dims": [64, 0]}, "dims: .* positive numbers"),
        ({"dropout": -1}, "dropout: unknown setting"),
        ({"aggregation_dropout": -1}, "aggregation_dropout=-1: .*between 0 and 1"),
        ({"frontend_options": {"nonsense": 1}}, "nonsense: unknown setting .expected one of"),
        ({"frontend_options": {"n_fft": 2**17}}, "n_fft: 131072 .expected at least 2, at most 8192"),
        ({"channels": 10**9}, "channels: 1000000000 .expected at most 262,144"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        create_encoder("redimnet-b0", **overrides)


def test_a_network_that_is_too_large_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, overrides in (("resnet34", {"channels": 20_000}), ("eres2net-base", {"scale": 2**17})):
        with pytest.raises(ConfigError, match="too large"):
            create_encoder(name, **overrides)
    with pytest.raises(ConfigError, match="n_fft"):
        create_frontend("tf_spectrogram", 128, n_fft=200_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_settings_are_brought_to_their_types_as_in_a_configuration_file() -> None:
    encoder = create_encoder("redimnet-tiny", channels="8", stages=[[1, 1, 1, None], [2, 2, 1, None]], dims=[16])
    assert encoder.config["channels"] == 8
    assert encoder.config["stages"] == [(1, 1, 1, None), (2, 2, 1, None)]


def test_a_seed_gives_the_weights_it_gave_before_settings_were_checked() -> None:
    torch.manual_seed(7)
    weight = create_encoder("redimnet-tiny").backbone.stem.weight
    torch.manual_seed(7)
    torch.testing.assert_close(weight, torch.nn.Conv2d(1, 8, 3).weight)  # the first weight that is drawn


@pytest.mark.parametrize("name", FRONTENDS)
def test_options_of_front_ends_are_checked(name: str) -> None:
    for option, value in (
        ("hop_length", 0),
        ("hop_length", "long"),
        ("n_fft", 1),
        ("n_fft", 10**9),
        ("window_length", 513),
        ("window_length", -1),
        ("min_frames", 0),
        ("pad_right", -1),
        ("pad_right", 10**9),
        ("floor", "none"),
        ("sample_rate", 0),
        ("nonsense", 1),
    ):
        with pytest.raises(ConfigError, match=option if option != "sample_rate" else "sample"):
            create_frontend(name, 40, **{option: value})
