"""Checkpoints as AutoSpeech's training scripts write them are read, and what they lack is said in one line."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import golden_files
from voxnest import load_encoder, save_encoder
from voxnest.errors import CheckpointError, ConfigError
from voxnest.hub import convert
from voxnest.models.autospeech import PAPER
from voxnest.models.encoder import SpeakerEncoder

WRITER = """
import sys, torch, numpy
from collections import namedtuple, OrderedDict
utils = type(sys)("utils")
utils.Genotype = Genotype = namedtuple("Genotype", "normal normal_concat reduce reduce_concat")
Genotype.__module__ = "utils"
sys.modules["utils"] = utils
contents = torch.load(sys.argv[1], weights_only=True)
contents["genotype"] = eval(contents["genotype"])
contents["best_eer"] = numpy.float64(0.0895)
torch.save(contents, sys.argv[2])
"""
"""As `train_verification.py` does it: with a named tuple of a module that is not here."""


def official(golden: Path, name: str) -> dict[str, Tensor]:
    """Weights of a network of the original with a sixteenth of the channels."""
    file = golden_files.read(golden / f"autospeech-{name}.json.gz")
    smaller = [(key, [size // 16 if size >= 16 else size for size in shape]) for key, shape in file["keys"]]
    return OrderedDict(golden_files.make_state_dict({**file, "keys": smaller}))


def written(state: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    return {
        "epoch": 291,
        "state_dict": state,
        "best_acc1": torch.tensor([87.66]),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.001, "betas": (0.9, 0.999), "params": [0]}]},
        "path_helper": {"ckpt_path": "logs_scratch/scratch_veri/Model"},
        **more,
    }


def agrees(path: Path, state: dict[str, Tensor], config: dict[str, Any]) -> SpeakerEncoder:
    """The encoder of a file, which gives what `convert` gives; `test_autospeech` compares that with the original."""
    encoder, features = load_encoder(path), torch.randn(2, 257, 50)
    size = "autospeech" if config else "autospeech-resnet34" if "layer1.2.bn1.bias" in state else "autospeech-resnet18"
    with torch.inference_mode():
        expected = convert(size, config, state).embed_features(features)
        torch.testing.assert_close(encoder.embed_features(features), expected)
    return encoder


def test_a_searched_network_with_its_named_tuple_is_read_and_kept(golden: Path, tmp_path: Path) -> None:
    state = official(golden, "c128")
    torch.save(written(state, genotype=PAPER), tmp_path / "plain")
    path = tmp_path / "checkpoint_best.pth"
    subprocess.run([sys.executable, "-c", WRITER, tmp_path / "plain", path], check=True)
    encoder = agrees(path, state, {"C": 8, "num_classes": 1251, "layers": 8, "genotype": PAPER})
    assert (encoder.architecture, encoder.config["genotype"]) == ("autospeech", PAPER)
    assert [encoder.config[key] for key in ("channels", "layers", "dims")] == [8, 8, ()]
    save_encoder(encoder, tmp_path / "own.safetensors")
    agrees(tmp_path / "own.safetensors", state, {"genotype": PAPER})


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_baseline_is_read(golden: Path, tmp_path: Path, name: str, prefix: str) -> None:
    state = official(golden, name)
    torch.save(written({prefix + key: value for key, value in state.items()}), tmp_path / "checkpoint.pth")
    encoder = agrees(tmp_path / "checkpoint.pth", state, {})
    assert (encoder.name, encoder.config["channels"]) == (f"autospeech-{name}", 4)


def test_mean_and_deviation_that_lie_beside_a_checkpoint_are_taken(golden: Path, tmp_path: Path) -> None:
    torch.save(written(official(golden, "resnet18")), tmp_path / "checkpoint.pth")
    waveform = 0.1 * torch.randn(1, 16000)
    without = load_encoder(tmp_path / "checkpoint.pth")
    assert without.frontend.wants_statistics
    mean, deviation = np.linspace(1, 2, 257, dtype=np.float32), np.linspace(3, 4, 257, dtype=np.float32)
    np.save(tmp_path / "mean.npy", mean)
    np.save(tmp_path / "std.npy", deviation)
    encoder = load_encoder(tmp_path / "checkpoint.pth")
    assert not encoder.frontend.wants_statistics
    expected = (without.frontend(waveform) - torch.from_numpy(mean)[:, None]) / torch.from_numpy(deviation)[:, None]
    torch.testing.assert_close(encoder.frontend(waveform), expected)
    (tmp_path / "std.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(CheckpointError, match=r"std\.npy: damaged"):
        load_encoder(tmp_path / "checkpoint.pth")
    np.save(tmp_path / "std.npy", deviation[:80])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth: .*'frontend\.deviation' of shape \[80\]"):
        load_encoder(tmp_path / "checkpoint.pth")


def refused(path: Path, contents: object) -> str:
    torch.save(contents, path)
    with pytest.raises(CheckpointError) as caught:
        load_encoder(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


def test_without_its_genotype_it_is_said_what_the_weights_show_and_how_to_give_it(golden: Path, tmp_path: Path) -> None:
    state = official(golden, "c128")
    line = refused(tmp_path / "iden.pth", {"state_dict": state})
    shown = "normal: dil_conv_5x5, dil_conv_3x3, dil_conv_5x5, sep_conv_3x3, sep_conv_3x3, sep_conv_3x3, dil_conv_3x3; "
    assert f"{shown}reduce: ?, ?, dil_conv_5x5, ?, dil_conv_5x5, dil_conv_3x3" in line
    assert "voxnest.hub.convert('autospeech', {'genotype': 'Genotype(...)'}, state_dict)" in line
    given = convert("autospeech", {"genotype": PAPER}, state)
    assert (given.config["channels"], given.config["layers"]) == (8, 8)
    with pytest.raises(ConfigError, match="genotype: not given; the weights show normal: dil_conv_5x5"):
        convert("autospeech", {"C": 8, "layers": 8}, state)
    torch.save({"state_dict": state, "genotype": PAPER}, tmp_path / "iden.pth")
    agrees(tmp_path / "iden.pth", state, {"genotype": PAPER})


def test_weights_of_another_genotype_are_refused_by_their_keys(golden: Path, tmp_path: Path) -> None:
    state, path = official(golden, "c128"), tmp_path / "model.pth"
    other = PAPER.replace("'sep_conv_3x3', 1", "'max_pool_3x3', 1", 1)
    assert "unexpected keys: 'cells.0._ops.3.op." in refused(path, written(state, genotype=other))
    other = PAPER.replace("'max_pool_3x3', 1", "'dil_conv_3x3', 1", 1)
    assert "missing keys: backbone.cells.0.edges.7.1.weight" in refused(path, written(state, genotype=other))
    other = PAPER.replace("dil_conv_5x5", "dil_conv_3x3")
    assert "of shape [8, 1, 5, 5] rather than [8, 1, 3, 3]" in refused(path, written(state, genotype=other))


@pytest.mark.parametrize("genotype", ["nothing", 5, [1], PAPER.replace("sep", "set")])
def test_a_genotype_that_is_none_is_named(golden: Path, tmp_path: Path, genotype: object) -> None:
    state = official(golden, "c128")
    assert ": genotype: " in refused(tmp_path / "model.pth", written(state, genotype=genotype))


def test_a_supernet_and_odd_contents_are_refused(golden: Path, tmp_path: Path) -> None:
    state, path = official(golden, "c128"), tmp_path / "model.pth"
    assert "the supernet of a search" in refused(path, written({**state, "alphas_normal": torch.zeros(14, 8)}))
    assert "'stem1.1.weight' is a list (expected a tensor" in refused(path, written({**state, "stem1.1.weight": [1]}))
    baseline = official(golden, "resnet18")
    assert "1 unexpected key: 'fc.weight'" in refused(path, written({**baseline, "fc.weight": torch.zeros(1)}))
    assert "'layer9.0.bn1.bias'" in refused(path, written({**baseline, "layer9.0.bn1.bias": torch.zeros(1)}))
    del state["cells.1.preprocess0.op.1.weight"]
    assert "backbone.cells.1.inputs.0.1.weight" in refused(path, written(state, genotype=PAPER))
