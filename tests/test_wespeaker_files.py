"""Model directories of wespeaker are read as they are published, and refused with a reason when they do not fit."""

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import golden_files
from voxnest.errors import CheckpointError
from voxnest.foreign.encoders import TRANSLATIONS, make_encoder
from voxnest.foreign.kinds import is_wespeaker
from voxnest.foreign.wespeaker import CLASSES, read_wespeaker
from voxnest.zoo.cards import df_resnet, resnet

RESNET = {"feat_dim": 80, "embed_dim": 256, "pooling_func": "TSTP", "two_emb_layer": False}


def write(directory: Path, model: str, arguments: dict[str, Any], weights: object, **dataset: object) -> Path:
    # What a recipe's training leaves there, as published with wespeaker's models.
    settings = {
        "data_type": "shard",
        "dataset_args": {
            "fbank_args": {"dither": 1.0, "frame_length": 25, "frame_shift": 10, "num_mel_bins": 80},
            "resample_rate": 16000,
            "spec_aug": False,
            **dataset,
        },
        "gpus": [0, 1],
        "model": model,
        "model_args": arguments,
        "model_init": None,
        "projection_args": {"embed_dim": 256, "num_class": 17982, "project_type": "arc_margin", "scale": 32.0},
    }
    (directory / "config.yaml").write_text(yaml.dump(settings))
    torch.save(weights, directory / "avg_model.pt")
    return directory


@pytest.mark.parametrize(("name", "model"), [("resnet18", "ResNet18"), ("gemini-dfresnet60", "Gemini_DF_ResNet60")])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_directory_gives_the_embedding_of_wespeaker(
    golden: Path, tmp_path: Path, name: str, model: str, wrapped: bool
) -> None:
    file = golden_files.read(golden / f"{name}.json.gz")
    weights = {**golden_files.make_state_dict(file), "projection.weight": torch.zeros(17982, 2)}
    directory = write(tmp_path, model, file["config"], {"state_dict": weights} if wrapped else weights)
    assert is_wespeaker(directory)
    found = read_wespeaker(directory)
    assert found.architecture == name
    encoder = make_encoder(found)
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file).transpose(1, 2))
    assert (embedding - expected).abs().max() <= golden_files.bound(expected)


def test_arguments_left_out_of_the_configuration_are_the_class_s_own(tmp_path: Path) -> None:
    # As in the SimAM-ResNets trained on VoxBlink2.
    found = read_wespeaker(write(tmp_path, "SimAM_ResNet34_ASP", {"embed_dim": 256}, {}))
    assert found.architecture == "simam-resnet34"
    settings = TRANSLATIONS[found.architecture].settings(found)
    assert settings == {"block": "simam", "channels": 64, "pooling": "ASP", "dims": (256,)}


def test_every_class_of_a_family_here_has_its_own_architecture() -> None:
    published = {name for name in (*resnet.SIZES, *df_resnet.SIZES) if not name.startswith("df-")}
    assert published <= set(CLASSES.values())
    assert CLASSES["ECAPA_TDNN_GLOB_c512"] == CLASSES["ECAPA_TDNN_c512"] == "ecapa-tdnn-512"


def test_wespeaker_s_own_redimnet_is_read_as_the_official_one(golden: Path, tmp_path: Path) -> None:
    file = golden_files.read(golden / "redimnet-b1.json.gz")
    official = {k: v for k, v in golden_files.make_state_dict(file).items() if not k.startswith("spec.")}
    without_norm = {k: v for k, v in official.items() if not k.startswith("bn.")}
    last = f"inputs_weights.{len(file['config']['stages_setup'])}"
    theirs: dict[str, Tensor] = {}
    for key, value in without_norm.items():
        key = re.sub(r"stage(\d+)\.0\.w$", r"inputs_weights.\1", key).replace("fin_wght1d.w", last)
        key = re.sub(r"(stage\d+)\.(\d+)", lambda match: f"{match[1]}.{int(match[2]) - 2}", key)
        theirs[key.replace("linear.", "seg_1.") if key.startswith("linear.") else key] = value
    arguments = {"feat_dim": 72, "embed_dim": 192, "pooling_func": "ASTP", "two_emb_layer": False}
    directory = write(tmp_path, "ReDimNetB1", arguments, theirs, fbank_args={"num_mel_bins": 72})
    found = read_wespeaker(directory)
    assert found.architecture == "redimnet"
    assert {key: value for key, value in found.state.items() if not key.startswith("bn.")}.keys() == without_norm.keys()
    encoder = make_encoder(found)
    assert type(encoder.frontend).__name__ == "KaldiFbank"
    features = torch.randn(1, 72, 30)
    with torch.inference_mode():
        pooled = encoder.pooling(encoder.backbone(features))
        projected = encoder.head.linear(pooled)
        torch.testing.assert_close(encoder.embed_features(features), projected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "stages", "arguments"),
    [
        ("ReDimNetB0", (1, 2, 1, 30), {"F": 60, "C": 10, "block_2d_type": "basic_resnet", "group_divisor": 1}),
        ("ReDimNetB2", (1, 2, 1, 12), {"group_divisor": 4, "block_1d_type": "conv+att"}),
        ("ReDimNetB6", (1, 4, 4, 32), {"F": 72, "C": 32, "global_context_att": True}),
        ("ReDimNet2B0", ((1, 1), 2, 2, 36), {"C": 12, "out_channels": 64, "return_2d_output": False}),
        ("ReDimNet2B3", ((1, 1), 2, 2, 36), {"C": 24, "out_channels": 64, "return_2d_output": False}),
        ("ReDimNet2B5", ((1, 1), 2, 4, 48), {"C": 48, "out_channels": 256, "return_2d_output": False}),
        ("ReDimNet2B6", ((1, 1), 3, 3, 64), {"C": 64, "out_channels": 224, "return_2d_output": True}),
    ],
)
def test_sizes_of_redimnet_are_those_of_wespeaker_s_functions(
    tmp_path: Path, model: str, stages: tuple[Any, ...], arguments: dict[str, Any]
) -> None:
    given = {"feat_dim": arguments.get("F", 72), "embed_dim": 192}
    found = read_wespeaker(write(tmp_path, model, given, {}, fbank_args={"num_mel_bins": given["feat_dim"]})).config
    first = found["stages_setup"][0]
    assert (*first[:3], first[4]) == stages
    assert {"return_2d_output": False, **found, **arguments} == {"return_2d_output": False, **found}
    assert "hop_length" not in found  # the filter bank's is 10 ms
    if model == "ReDimNetB2":
        assert [stage[0] for stage in found["stages_setup"]] == [1, 2, 1, 2, 1, 2]


def test_redimnet2_takes_its_own_front_end_along(tmp_path: Path) -> None:
    tfmel = {"n_mels": 72, "hop_length": 160, "win_length": 400, "norm_signal": True}
    arguments = {"feat_dim": 72, "embed_dim": 192, "pooling_func": "ASTP"}
    weights = {"bn.weight": torch.zeros(1), "frontend.window": torch.zeros(1)}
    dataset = {"frontend": "tfmel", "tfmel_args": tfmel, "cmvn": False}
    found = read_wespeaker(write(tmp_path, "ReDimNet2B6", arguments, weights, **dataset))
    config = found.config
    assert found.architecture == "redimnet2"
    assert (config["F"], config["C"], config["out_channels"], config["return_2d_output"]) == (72, 64, 224, True)
    assert (config["feat_type"], config["spec_params"]) == ("tf", tfmel)
    assert list(found.state) == ["bn.weight"]


def test_an_unknown_class_is_refused_with_a_list_of_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yaml: model 'REPVGG_TINY_A0'.*ECAPA_TDNN_c512.*XVEC"):
        read_wespeaker(write(tmp_path, "REPVGG_TINY_A0", {}, {}))


@pytest.mark.parametrize(
    ("dataset", "named"),
    [
        ({"frontend": "s3prl"}, r"frontend: 's3prl'.*'fbank'"),
        ({"frontend": "tfmel"}, r"frontend: 'tfmel'.*'fbank'"),
        ({"resample_rate": 8000}, r"resample_rate: 8000.*16000"),
        ({"fbank_args": {"num_mel_bins": 40}}, r"num_mel_bins: 40.*80"),
        ({"fbank_args": {"frame_shift": 20}}, r"frame_shift: 20.*10"),
        ({"fbank_args": [80]}, r"fbank_args: \[80\].*mapping"),
        ({"cmvn": False}, r"cmvn: False.*True"),
        ({"cmvn_args": {"norm_var": True}}, r"norm_var: True.*False"),
    ],
)
def test_features_that_cannot_be_made_here_are_refused(tmp_path: Path, dataset: dict[str, Any], named: str) -> None:
    with pytest.raises(CheckpointError, match=named):
        read_wespeaker(write(tmp_path, "ResNet34", RESNET, {}, **dataset))


@pytest.mark.parametrize("text", ["[1, 2]", "model: {", "!!python/object/apply:os.getcwd []", "\xff"])
def test_a_configuration_that_is_not_one_is_refused(tmp_path: Path, text: str) -> None:
    write(tmp_path, "ResNet34", RESNET, {})
    (tmp_path / "config.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"config\.yaml.*config\.yaml of wespeaker"):
        read_wespeaker(tmp_path)


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    assert not is_wespeaker(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.yaml: cannot be read"):
        read_wespeaker(tmp_path)
    write(tmp_path, "ResNet34", RESNET, {})
    (tmp_path / "avg_model.pt").unlink()
    with pytest.raises(CheckpointError, match=r"avg_model\.pt: cannot be read"):
        read_wespeaker(tmp_path)


def test_weights_that_would_run_code_are_refused_and_do_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"

    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str, str]]:
            return open, (str(marker), "w")

    directory = write(tmp_path, "ResNet34", RESNET, {})
    (directory / "avg_model.pt").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match=r"avg_model\.pt"):
        read_wespeaker(directory)
    assert not marker.exists()


@pytest.mark.parametrize("contents", [[1, 2], {"state_dict": 3}, {"epoch": 4}])
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, contents: object) -> None:
    with pytest.raises(CheckpointError, match=r"avg_model\.pt: no state dict"):
        read_wespeaker(write(tmp_path, "ResNet34", RESNET, contents))
