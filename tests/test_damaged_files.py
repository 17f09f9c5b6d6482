"""Whatever a weights file holds, the answer is an encoder or one line that names the file, without gigabytes."""

import json
import re
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file

import golden_files
from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import CheckpointError
from voxnest.hub import read_metadata


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "model.safetensors"
    encoder = create_encoder("redimnet-tiny", dims=(16, 64))
    encoder.thresholds = {16: 0.4, 64: 0.3}
    save_encoder(encoder, path)
    return path


@pytest.fixture(scope="module")
def official(golden: Path) -> dict[str, Any]:
    description = golden_files.read(golden / "redimnet-b0.json.gz")
    return {"model_config": description["config"], "state_dict": golden_files.make_state_dict(description)}


def refusal(path: Path) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as error:
        load_encoder(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < 2000
    return text


def description(**changes: Any) -> Callable[[dict[str, Any]], str]:
    """Metadata in which keys are replaced, or (None) left out."""

    def change(header: dict[str, Any]) -> str:
        return json.dumps({key: value for key, value in {**header, **changes}.items() if value is not None})

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda header: "{broken", "not JSON"),
        (lambda header: "", "not JSON"),
        (lambda header: "[" * 100_000, "not JSON"),
        (lambda header: "[1]", r"that is \[1\]"),
        (lambda header: "null", "that is None"),
        (lambda header: "7", "that is 7"),
        (lambda header: '"text"', "that is 'text'"),
        (lambda header: "{}", "format None .expected format 1"),
        (description(format="1"), "format 1"),
        (description(name=None), "no name"),
        (description(name=7), "name 7"),
        (description(architecture="redimnett"), "'redimnett' .expected 'redimnet'"),
        (description(architecture=7), "architecture 7"),
        (description(architecture=None, name="redimnet-b77"), "'redimnet-b77' .expected 'redimnet-b"),
        (description(config=None), "no config"),
        (description(config=[1]), r"config \[1\]"),
        (description(config={"nonsense": 1}), "nonsense: unknown setting"),
        (description(config={"name": "x"}), "cannot be built"),
        (description(config={"channels": 10**9}), "at most 262,144"),
        (description(config={"channels": 2**17}), "too large"),
        (description(config={"dims": 5}), "dims: 5 .expected a list"),
        (description(config={"dims": [10**5]}), "wrong shape"),
        (description(config={"level": "loud"}), "level: 'loud'"),
        (description(thresholds=[0.4]), r"thresholds \[0.4\]"),
        (description(thresholds={"16": "low"}), "threshold 'low' for '16'"),
        (description(thresholds={"16": True}), "threshold True for '16'"),
        (description(thresholds={"16": float("nan")}), "threshold nan for '16'"),
        (description(thresholds={"16": float("inf")}), "threshold inf for '16'"),
        (description(thresholds={"sixteen": 0.4}), "threshold 0.4 for 'sixteen'"),
        (description(thresholds={"32": 0.4}), "threshold for '32' numbers .expected one of 16, 64"),
        (description(metadata=[1]), r"metadata \[1\]"),
    ],
)
def test_a_wrong_description_of_the_model_is_said(
    whole: Path, tmp_path: Path, change: Callable[[dict[str, Any]], str], says: str
) -> None:
    path = tmp_path / "changed.safetensors"
    save_file(load_file(whole), path, metadata={"voxnest": change(read_metadata(whole))})
    text = refusal(path)
    with pytest.raises(CheckpointError, match=says):
        load_encoder(path)
    said = text.removeprefix(str(path))
    if any(word in said for word in ("JSON", "description", "format", "for 'sixteen'")):  # seen without the weights
        with pytest.raises(CheckpointError, match=re.escape(text)):
            read_metadata(path)


def test_thresholds_and_metadata_may_be_missing(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    text = description(thresholds=None, metadata=None)(read_metadata(whole))
    save_file(load_file(whole), path, metadata={"voxnest": text})
    assert load_encoder(path).thresholds == {}
    assert read_metadata(path)["metadata"] == {}


KEY = "head.linear.weight"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda w: w.pop(KEY), f"1 missing key: {KEY}"),
        (lambda w: w.update(extra=torch.zeros(2)), "1 unexpected key: 'extra'"),
        (lambda w: w.update({KEY: w[KEY].T.contiguous()}), "1 wrong shape: 'head.linear.weight' of shape"),
        (lambda w: w.update({KEY: w[KEY][None].clone()}), "1 wrong shape"),
        (lambda w: w.update({KEY: w[KEY].to(torch.int8)}), "'head.linear.weight' of torch.int8 rather than"),
        (lambda w: w.update({KEY: w[KEY].to(torch.complex64)}), "of torch.complex64"),
        (lambda w: w[KEY][3, 5].fill_(float("nan")), "'head.linear.weight' with NaN or infinite numbers"),
        (lambda w: w.update({KEY: w[KEY].double().fill_(1e300)}), "with NaN or infinite numbers"),
        (lambda w: w.clear(), "missing keys: "),
    ],
)
def test_wrong_weights_are_named(whole: Path, tmp_path: Path, change: Callable[[Any], Any], says: str) -> None:
    weights, path = load_file(whole), tmp_path / "changed.safetensors"
    change(weights)
    save_file(weights, path, metadata={"voxnest": json.dumps(read_metadata(whole))})
    assert says in refusal(path)


def test_weights_of_half_precision_are_weights(whole: Path, tmp_path: Path) -> None:
    weights, path = load_file(whole), tmp_path / "half.safetensors"
    halved = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halved, path, metadata={"voxnest": json.dumps(read_metadata(whole))})
    assert load_encoder(path).head.linear.weight.dtype == torch.float32


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: struct.pack("<Q", 2**62) + data[8:],
        lambda data: struct.pack("<Q", 10**8) + data[8:],
        lambda data: struct.pack("<Q", 0) + data[8:],
        lambda data: data[:9] + b"\xff\xfe" + data[11:],
        lambda data: data.replace(b'"F32"', b'"F99"', 1),
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_file_is_refused(whole: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(damage(whole.read_bytes()))
    refusal(path)
    with pytest.raises(CheckpointError):
        read_metadata(path)


def test_a_directory_is_not_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "model.safetensors"
    folder.mkdir()
    assert "a directory with no checkpoint" in refusal(folder)
    with pytest.raises(CheckpointError, match="a directory"):
        read_metadata(folder)


def cyclic() -> dict[str, Any]:
    contents: dict[str, Any] = {"model_config": {}, "state_dict": {}}
    contents["state_dict"]["again"] = contents
    return contents


def huge(*shape: int) -> torch.Tensor:
    """One number that claims to be many."""
    return torch.zeros(1).expand(*shape)


FOREIGN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda o: [1, [2, [3]]],
    "a tensor": lambda o: torch.zeros(3),
    "a number": lambda o: 7,
    "nothing": lambda o: {},
    "integer keys": lambda o: {1: torch.zeros(2), 2: torch.zeros(2)},
    "integer keys in a state dict": lambda o: {**o, "state_dict": {1: torch.zeros(2)}},
    "lists for weights": lambda o: {**o, "state_dict": {key: [[1.0]] for key in o["state_dict"]}},
    "text for weights": lambda o: {**o, "state_dict": dict.fromkeys(o["state_dict"], "weight")},
    "weights of no axes": lambda o: {**o, "state_dict": {key: torch.tensor(1.0) for key in o["state_dict"]}},
    "empty weights": lambda o: {**o, "state_dict": {key: torch.zeros(0) for key in o["state_dict"]}},
    "whole numbers": lambda o: {**o, "state_dict": {key: value.long() for key, value in o["state_dict"].items()}},
    "NaN": lambda o: {**o, "state_dict": {**o["state_dict"], "linear.bias": torch.full((192,), float("nan"))}},
    "claims": lambda o: {**o, "state_dict": {**o["state_dict"], "linear.weight": huge(10**6, 10**6)}},
    "sparse": lambda o: {**o, "state_dict": {"linear.weight": torch.zeros(2, 2).to_sparse()}},
    "a cycle": lambda o: cyclic(),
    "mrl of integers": lambda o: {"model_state_dict": {1: 2}},
    "mrl of no axes": lambda o: {"model_state_dict": {"backbone.backbone.stem.0.weight": torch.tensor(1.0)}},
    "mrl with a strange config": lambda o: {"model_state_dict": {"a": torch.zeros(1)}, "config": 3},
    "mrl that claims": lambda o: {
        "model_state_dict": {
            "backbone.stem.0.weight": huge(10**5, 1, 3, 3),
            "backbone.fin_wght1d.w": huge(1, 2, 10**7, 1),
            "linear.weight": huge(10**6, 10**6),
            "pool.linear1.weight": huge(128, 3, 1),
        }
    },
    "next-tdnn of no axes": lambda o: {"state_dict": {"speaker_net.model.MFA.0.weight": torch.tensor(1.0)}},
    "3d-speaker of no axes": lambda o: {"xvector.dense.linear.weight": torch.tensor(1.0)},
    "eres2net of nothing": lambda o: {"layer3_ds.weight": torch.zeros(0)},
    **{
        f"{key}={value!r}": lambda o, key=key, value=value: {**o, "model_config": {**o["model_config"], key: value}}
        for key, values in {
            "F": ("sixty", -1, 0, 61, 10**9, 2**17, None, [60]),
            "C": ("ten", -10, 0, 7, 10**9, 100_000, None, 1e9),
            "embed_dim": ("192", 10**9, -1, None, [192]),
            "stages_setup": (3, [3], [], "stages", [[1]], [[1, 10**9, 1, [(3, 3)], 30]], {}),
            "group_divisor": (0, "x", -1),
            "spec_params": ("x", 7, {"n_mels": 3, "n_fft": 10**9}, {"hop_length": -1}, {"f_min": "low"}),
            "feat_type": ("noise", [], 3),
            "nonsense": (1,),
            7: (1,),
        }.items()
        for value in values
    },
}


@pytest.mark.parametrize("kind", [kind for kind in FOREIGN if kind != "embed_dim='192'"])
def test_an_absurd_file_of_others_is_refused(kind: str, official: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "b0-vox2-ptn.pt"
    torch.save(FOREIGN[kind](official), path)
    refusal(path)


@pytest.mark.parametrize(("kind", "says"), [("claims", "that holds fewer numbers"), ("sparse", "of an unusual kind")])
def test_a_tensor_that_is_not_plain_numbers_is_refused_where_it_is_read(
    kind: str, says: str, official: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "b0-vox2-ptn.pt"
    torch.save(FOREIGN[kind](official), path)
    assert says in refusal(path)


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        ({"model": ["x"]}, {}),
        ({"model": "ReDimNetB0", "model_args": {"feat_dim": "sixty"}}, {"a": torch.zeros(1)}),
        ({"model": "ReDimNetB0"}, {"seg_1.weight": torch.zeros(1)}),
        ({"model": "ReDimNetB0"}, {"seg_1.weight": huge(2, 10**10)}),
        ({"model": "ECAPA_TDNN_c512", "model_args": {"embed_dim": 10**9}}, {"a": torch.zeros(1)}),
        ({"model": "ECAPA_TDNN_c512"}, {1: torch.zeros(1)}),
        ({"model": "ResNet34", "model_args": {"in_planes": -1}}, {"a": torch.zeros(1)}),
    ],
)
def test_an_absurd_directory_of_wespeaker_is_refused(config: Any, weights: Any, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(weights, tmp_path / "avg_model.pt")
    with pytest.raises(CheckpointError) as error:
        load_encoder(tmp_path)
    assert str(error.value).startswith(str(tmp_path))
    assert "\n" not in str(error.value)


def test_the_unchanged_file_loads_and_so_does_one_with_text_for_a_number(
    official: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "b0-vox2-ptn.pt"
    torch.save(FOREIGN["embed_dim='192'"](official), path)
    assert load_encoder(path).dims == (192,)


@pytest.mark.parametrize("kind", ["C=100000", "integer keys in a state dict", "claims", "NaN"])
def test_the_command_line_says_it_in_one_line(kind: str, official: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "b0-vox2-ptn.pt"
    torch.save(FOREIGN[kind](official), path)
    soundfile.write(tmp_path / "x.wav", np.zeros(16000), 16000)
    command = [sys.executable, "-m", "voxnest", "embed", "-m", str(path), str(tmp_path / "x.wav"), "-o"]
    done = subprocess.run(
        [*command, str(tmp_path / "y.npz")],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30)),
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(path) in done.stderr
