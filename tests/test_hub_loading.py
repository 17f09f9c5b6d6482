"""Any file of weights becomes an encoder in one safe call; what is none is refused in one line."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import golden_files
from release_server import ReleaseServer, official, serve
from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.cli import app, main
from voxnest.errors import CheckpointError, ConfigError
from voxnest.foreign.reading import recognise
from voxnest.foreign.redimnet_mrl import infer_config
from voxnest.hub import convert, find_release
from voxnest.hub.download import file_digest
from voxnest.hub.releases import RELEASES
from voxnest.models.encoder import SpeakerEncoder

ROOT = Path(__file__).resolve().parents[1]


def agrees(encoder: SpeakerEncoder, golden: Path) -> bool:
    file = golden_files.read(golden)
    with torch.inference_mode():
        output = encoder(golden_files.make_input(file))
    expected = golden_files.expected(file)
    return not encoder.training and bool((output - expected).abs().max() < golden_files.bound(expected))


@pytest.fixture(scope="module")
def b0(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "b0-vox2-ft_lm.pt"
    official(path, golden / "redimnet-b0.json.gz")
    return path


@pytest.fixture
def server(b0: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ReleaseServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    with serve() as running:
        running.files[b0.name] = b0.read_bytes()
        monkeypatch.setenv("VOXNEST_MIRROR", running.address)
        yield running


def mrl_checkpoint(golden: Path, **config: Any) -> dict[str, Any]:
    """As redimnet-mrl's training writes it: an official model without its own head, in a wrapper with another."""
    weights = golden_files.make_state_dict(golden_files.read(golden / "redimnet-default.json.gz"))
    state = {}
    for key, value in weights.items():
        state[f"projection.{key}" if key.startswith(("bn.", "linear.")) else f"backbone.{key}"] = value
    return {
        "epoch": 3,
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999)}]},
        "scheduler_state_dict": None,
        "best_val_loss": float("inf"),
        "best_eer": np.float64(0.038),
        "config": config,
    }


def test_an_official_file_gives_the_official_embedding(b0: Path, golden: Path, tmp_path: Path) -> None:
    encoder = load_encoder(b0)
    assert encoder.name == "redimnet-b0"
    assert agrees(encoder, golden / "redimnet-b0.json.gz")
    save_encoder(encoder, tmp_path / "own.safetensors")
    assert agrees(load_encoder(tmp_path / "own.safetensors"), golden / "redimnet-b0.json.gz")


def test_a_name_downloads_its_weights_once(server: ReleaseServer, golden: Path) -> None:
    assert agrees(load_encoder("redimnet-b0", train_type="ft_lm", dataset="vox2"), golden / "redimnet-b0.json.gz")
    load_encoder("redimnet-b0-vox2-lm.pt")
    assert server.requests == [("b0-vox2-ft_lm.pt", None)]


def test_a_cut_download_is_never_loaded(server: ReleaseServer, golden: Path) -> None:
    whole = server.files["b0-vox2-ft_lm.pt"]
    server.files["b0-vox2-ft_lm.pt"] = whole[:-100]
    with pytest.raises(CheckpointError, match=server.address):
        load_encoder("redimnet-b0")
    server.files["b0-vox2-ft_lm.pt"] = whole
    assert agrees(load_encoder("redimnet-b0"), golden / "redimnet-b0.json.gz")


def test_an_mrl_checkpoint_has_its_dimensions(golden: Path, tmp_path: Path) -> None:
    path = tmp_path / "latest.pt"
    torch.save(mrl_checkpoint(golden, model={"name": "b2", "embed_dim": 192, "mrl_dims": [64, 128, 192]}), path)
    encoder = load_encoder(path)
    assert encoder.dims == (64, 128, 192)
    assert agrees(encoder, golden / "redimnet-default.json.gz")
    save_encoder(encoder, tmp_path / "own" / "best.safetensors")
    assert load_encoder(tmp_path / "own").dims == (64, 128, 192)


@pytest.mark.parametrize("name", ["b0", "b1", "b2", "b3", "b5", "b6", "conv", "default"])
def test_the_shapes_of_the_weights_tell_the_architecture(golden: Path, name: str) -> None:
    file = golden_files.read(golden / f"redimnet-{name}.json.gz")
    weights = {key: torch.empty(shape, device="meta") for key, shape in file["keys"]}
    found = infer_config(weights)
    for key, value in file["config"].items():
        if key == "stages_setup":
            assert [(*stage[:3], stage[4]) for stage in found[key]] == [(*stage[:3], stage[4]) for stage in value]
        elif key in found and key not in ("hop_length", "pooling_func"):
            assert found[key] == value, key


def test_the_two_families_are_told_apart(shared: Path) -> None:
    for path in (shared / "parity").glob("redimnet*-*.json.gz"):
        file = golden_files.read(path)
        assert recognise(file["config"]) == file["architecture"], path.name


def test_redimnet2_files_load_too(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("voxnest.foreign.redimnet2")
    source = shared / "parity" / "redimnet2-b0.json.gz"
    official(tmp_path / "b0-vox2-lm.pt", source)
    encoder = load_encoder(tmp_path / "b0-vox2-lm.pt")
    assert encoder.name == "redimnet2-b0"
    assert agrees(encoder, source)


def test_weights_that_slow_a_cpu_down_become_zero(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    weights["linear.weight"][0] = 1e-40
    weights["linear.weight"][1] = 1e-30
    linear = convert("redimnet", file["config"], weights).head.linear.weight
    assert (linear[0] == 0).all()
    assert (linear[1] > 0).all()


def test_conversion_takes_constant_buffers_and_lists_wrong_keys(golden: Path) -> None:
    file = golden_files.read(golden / "redimnet-b0.json.gz")
    weights = golden_files.make_state_dict(file)
    assert any(key.startswith("spec.") for key in weights)
    assert agrees(convert("redimnet", file["config"], weights), golden / "redimnet-b0.json.gz")
    with pytest.raises(CheckpointError, match="strange"):
        convert("redimnet", file["config"], {**weights, "strange.weight": torch.zeros(1)})
    del weights["linear.weight"]
    with pytest.raises(CheckpointError, match=r"linear\.weight"):
        convert("redimnet", file["config"], weights)
    with pytest.raises(ConfigError, match="one of redimnet"):
        convert("resnet", {}, {})


@pytest.mark.parametrize(
    ("golden_name", "name"),
    [
        ("redimnet-b3", "redimnet-b3"),  # the settings of that card
        ("redimnet-b2", "redimnet"),  # of no card: its architecture
        ("next-tdnn-light-c128-b3", "next-tdnn-light-128-b3"),
    ],
)
def test_an_encoder_is_called_as_the_card_with_its_settings(golden: Path, golden_name: str, name: str) -> None:
    file = golden_files.read(golden / f"{golden_name}.json.gz")
    weights = golden_files.make_state_dict(file)
    assert convert(file["architecture"], file["config"], weights).name == name
    assert convert(file["architecture"], file["config"], weights, name="mine").name == "mine"


@pytest.mark.parametrize("argument", ["group_divisors", "feat_types"])
def test_an_unknown_argument_is_refused_with_the_nearest_there_is(argument: str) -> None:
    with pytest.raises(ConfigError, match=f"'{argument[:-1]}'"):
        convert("redimnet", {argument: 1}, {})


class Exploit:
    """What a pickle may do to its reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("the file has run code",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "b2-vox2-ptn.pt"
    torch.save({"model_config": {}, "state_dict": {}, "extra": Exploit()}, path)
    with pytest.raises(CheckpointError, match="refused: reading it would run code") as error:
        load_encoder(path)
    assert "print" in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [b"", b"junk" * 100, b"PK\x03\x04" + b"junk" * 100, b"\x80\x02}q\x00X"])
def test_garbage_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or cut") as error:
        load_encoder(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_cut_official_file_is_one_line(b0: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.pt"
    path.write_bytes(b0.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        ([1, 2], "holds a list"),
        ({"weights": torch.zeros(2)}, "weights of another model"),
        ({}, "holds nothing"),
        ({"model_state_dict": {"fc.weight": torch.zeros(2)}}, "no weight"),
        ({"model_config": {"no_such_option": 7}, "state_dict": {}}, "no_such_option"),
        ({"model_config": {}, "state_dict": {}}, "missing"),
    ],
)
def test_a_file_of_something_else_says_what_it_holds(tmp_path: Path, contents: Any, says: str) -> None:
    path = tmp_path / "other.pt"
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=says) as error:
        load_encoder(path)
    assert str(path) in str(error.value)


def test_a_directory_means_its_best_checkpoint(b0: Path, tmp_path: Path) -> None:
    encoder = create_encoder("redimnet-tiny")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_encoder(tmp_path)
    save_encoder(encoder, tmp_path / "one.safetensors")
    assert load_encoder(tmp_path).name == "redimnet-tiny"
    (tmp_path / b0.name).write_bytes(b0.read_bytes())
    with pytest.raises(CheckpointError, match="b0-vox2"):
        load_encoder(tmp_path)
    save_encoder(encoder, tmp_path / "best.safetensors")
    assert load_encoder(str(tmp_path)).name == "redimnet-tiny"


def test_a_digest_pins_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_encoder(create_encoder("redimnet-tiny"), path)
    load_encoder(path, sha256=file_digest(path))
    with pytest.raises(CheckpointError, match="SHA-256"):
        load_encoder(path, sha256="0" * 64)


def test_weights_that_are_not_published_are_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ft_lm on vox2, ptn on vox2"):
        load_encoder("redimnet-b2", train_type="ft_mix")
    with pytest.raises(ConfigError, match="ft_mix on vb2"):
        load_encoder("redimnet-m", dataset="vox2")
    with pytest.raises(CheckpointError, match="no published weights"):
        load_encoder("redimnet-tiny")
    with pytest.raises(ConfigError, match="redimnet-b2"):
        load_encoder("redimnet-b22", train_type="ptn")
    save_encoder(create_encoder("redimnet-tiny"), tmp_path / "own.safetensors")
    with pytest.raises(ConfigError, match="given with the file"):
        load_encoder(tmp_path / "own.safetensors", train_type="ptn")


def test_the_table_is_of_what_the_sources_list() -> None:
    addresses = [release.address for release in RELEASES]
    assert len(set(addresses)) == len(addresses) == 18 + 21
    release = find_release("redimnet-M")
    assert release.address.endswith("IDRnD/ReDimNet/releases/download/latest/M-vb2+vox2+cnc-ft_mix.pt")
    assert find_release("redimnet2-b6", train_type="lm", dataset="vb2+vox2").file == "b6-vb2+vox2_v0-lm.pt"
    assert find_release("redimnet2-b0").file == "b0-vox2-lm.pt"
    assert find_release("redimnet2-b0", train_type="ft_lm") is find_release("redimnet2-b0", train_type="lm")


def test_torch_hub_knows_the_entries_of_the_originals(
    server: ReleaseServer, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(entry: str, **kwargs: Any) -> Any:
        return torch.hub.load(str(ROOT), entry, source="local", **kwargs)

    source = golden / "redimnet-b0.json.gz"
    assert agrees(load("ReDimNet", model_name="b0", train_type="ft_lm", dataset="vox2"), source)
    assert agrees(load("b0"), source)
    assert not agrees(load("b0", finetuned=False), source)
    server.files["b0-vox2-ptn.pt"] = server.files["b0-vox2-ft_lm.pt"]
    assert agrees(load("b0", pretrained=True, finetuned=False), source)
    monkeypatch.syspath_prepend(ROOT)
    entries = {name for name, value in vars(import_module("hubconf")).items() if callable(value)}
    assert {"ReDimNet", "redimnet2", *(f"b{size}" for size in range(7))} <= entries


def test_the_command_downloads_and_lists_weights(
    server: ReleaseServer, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = main.run(lambda: app.app(arguments, standalone_mode=False))
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    status, out, _ = run("download", "redimnet-b0")
    assert status == 0
    assert Path(out.strip()) == tmp_path / "home" / "weights" / "redimnet" / "b0-vox2-ft_lm.pt"
    status, _, err = run("download", "redimnet-b1")
    assert status == 2
    assert "404" in err
    assert "b1-vox2-ft_lm.pt" in err
    status, out, _ = run("models", "weights")
    assert status == 0
    assert "redimnet2-b6" in out
    assert out.count("yes") == 1
