"""Nonsense in a configuration: one line before training starts, never a traceback, whatever the key and the value."""

import os
from pathlib import Path

import pytest
import yaml

from voxnest.errors import ConfigError, VoxnestError
from voxnest.training.run import train
from voxnest.training.settings import known_keys, load_config, locate

HUGE = 10**12
NONSENSE = [
    None, "", "wide", "\0", "a" * 300, "é😀", -1, 0, 1, 2, -0.5, 0.5, 1e-9, 1e9, HUGE, 10**400, 1e308, float("nan"),
    float("inf"), -float("inf"), True, [], [1], [1, 2, 3], ["a", None], [[1]], [-1, 1], [5, 1], {}, {"a": 1}, {1: 2},
    {"files": 0}, {"files": float("nan")}, {"channels": "wide"},
]  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def write(content: dict) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=True))
        return path

    return write


def refused(path) -> str | None:
    try:
        load_config(path)
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("key", list(known_keys()))
def test_any_value_of_any_key_is_a_configuration_or_one_line(write, key):
    accepted = 0
    for value in NONSENSE:
        content: dict = {"data": {"train": "corpus"}}
        *sections, last = key.split(".")
        inner = content
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
        error = refused(write(content))
        if error is None:
            accepted += 1
            continue
        assert "\n" not in error
        assert len(error) < 1000
        assert last in error or last in ("trials", "root"), (value, error)
    assert accepted < len(NONSENSE), "some of it is nonsense for every key"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("crops.duration=1e9", "crops.duration is 1000000000.0 (expected less than or equal to 600)"),
        ("crops.batch_size=1000000000000", "less than or equal to 65536"),
        ("optimizer.lr=.inf", "optimizer.lr is inf (expected a finite number)"),
        ("optimizer.betas=[0.9, 1]", "less than 1"),
        ("crops.speeds=[1e-9]", "crops.speeds is 1e-09 (expected greater than or equal to 0.25)"),
        ("crops.speeds=[1, 1]", "different speeds"),
        ("loss.dim_weights=[0, 0]", "one above 0"),
        ("augmentation.noise_kinds={files: 1}", "recordings as noise"),
        ("model.overrides={dims: [3]}", "expected it as model.dims"),
        ("trian.max_steps=3", "unknown key 'trian.max_steps' (expected 'trainer.max_steps')"),
        ("=3", "not an override (expected key=value"),
        ("a..b=3", "not an override"),
        ("a=b=c", "unknown key 'a'"),
        ("größe=3", "unknown key 'größe'"),
        ("seed=" + "[" * 5000, "is not a YAML value"),
        ("seed=2020-13-45", "is not a YAML value"),
        ("seed={[1]: 2}", "is not a YAML value"),
        ("seed=" + "9" * 5000, "seed"),
        ("other.yaml", "a second configuration (expected one file, then key=value)"),
    ],
)
def test_a_wrong_override_is_one_line_that_names_it(write, override, expected):
    with pytest.raises(ConfigError) as caught:
        load_config(write({"data": {"train": "corpus"}}), [override])
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(override[:60])


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "seed: 2020-13-45\n", "seed: " + "[" * 5000, "seed: " + "9" * 5000])
def test_what_yaml_cannot_take_is_one_line(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text("data: {train: corpus}\n" + text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("model.overrides={channels: 7}", "model.overrides.channels: "),
        ("model.overrides.channels=wide", "model.overrides.channels: 'wide'"),
        ("model.overrides.chanels=8", "model.overrides.chanels: unknown setting (expected 'channels'"),
        ("model.name=redimnet-b9", "model.name: "),
        ("crops.duration=0.1", "crops.duration: 0.1 s (expected 0.175 s or more, which xvector needs)"),
        ("trainer.precision=16-mixed", "trainer.precision: 16-mixed on a CPU"),
        ("trainer.devices=999", f"trainer.devices: 999 processes on {os.cpu_count()} cores"),
        ("trainer.num_nodes=3", "trainer.num_nodes: 3, and MASTER_ADDR is not set"),
        ("trainer.strategy=nonsense", "trainer: "),
        ("trainer.devices=0", "trainer: "),
        ("init_from=nowhere.safetensors", "nowhere.safetensors: "),
        ("augmentation.noise=[nowhere]", "augmentation.noise: nowhere is not there"),
        ("data.validation.trials=nowhere.txt", "data.validation.trials: nowhere.txt is not there"),
    ],
)
def test_what_would_fail_later_is_one_line_before_training_that_names_key_and_place(
    write, tmp_path, monkeypatch, override, found
):
    for name in ("MASTER_ADDR", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    content = {
        "output": str(tmp_path / "run"),
        "data": {"train": str(tmp_path)},
        "model": {"name": "redimnet-b0"},
        "trainer": {"accelerator": "cpu", "max_steps": 1},
    }
    if override.startswith("crops.duration"):
        content["model"]["name"] = "xvector"
    path = write(content)
    with pytest.raises(VoxnestError) as caught:
        train(load_config(path, [override]))
    error = caught.value
    if isinstance(error, ConfigError):
        error = locate(error, path, [override])
        assert str(error).startswith(f"{override}: ")
    assert found in str(error)
    assert "\n" not in str(error)
    if override.startswith("model.overrides="):  # the same in the file
        content["model"]["overrides"] = {"channels": 7}
        with pytest.raises(ConfigError) as caught:
            train(load_config(write(content)))
        assert str(locate(caught.value, path)).startswith(f"{path}: model.overrides.channels: ")
