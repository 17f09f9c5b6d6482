"""A name is a name, a path is a path, a slip is met with what may have been meant; a device is there or refused."""

from pathlib import Path

import pytest
import torch

from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import CheckpointError, ConfigError
from voxnest.hub.checkpoint import DEFAULT
from voxnest.mrl import ReDimNetMRL


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder in which files are called as models are, and a download fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("VOXNEST_MIRROR", "http://127.0.0.1:9/")
    for name in ("redimnet-b2", DEFAULT, "runs/mine"):
        (tmp_path / "runs").mkdir(exist_ok=True)
        save_encoder(create_encoder("redimnet-tiny", dims=(24,)), tmp_path / f"{name}.safetensors")
        (tmp_path / f"{name}.safetensors").rename(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", ["redimnet-b2", DEFAULT])
def test_a_path_is_never_the_name_of_a_model(here: Path, name: str) -> None:
    for source in (f"./{name}", Path(f"./{name}"), Path(name), here / name, str(here / name)):
        assert load_encoder(source).dims == (24,)


def test_a_bare_name_is_the_model_s_whatever_lies_there(here: Path) -> None:
    assert load_encoder(DEFAULT).embedding_dim == 256
    with pytest.raises(CheckpointError, match="b2-vox2"):
        load_encoder("redimnet-b2")


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("redimnet-b22", "'redimnet-b2'?"),
        ("Redimnet2_b3", "'redimnet2-b3'?"),
        ("defualt", "'default'?"),
        ("runs/mnie", "'runs/mine'?"),
        (Path("runs/mnie"), "'runs/mine'?"),
        (Path("redimnet-b22"), "'redimnet-b2'?"),  # the file that lies there
        ("runs/nothing-like-it", "a checkpoint such as"),
        ("nowhere/model.pt", "a checkpoint such as"),
        (Path("defualt/x"), "a checkpoint such as"),
    ],
)
def test_a_misspelt_source_is_met_with_the_nearest(here: Path, source: str | Path, meant: str) -> None:
    (here / "runs" / "mine").rename(here / "runs" / "file")
    (here / "runs" / "mine").mkdir()  # a run's folder
    (here / "redimnet-b2").rename(here / "file")
    (here / "redimnet-b2").mkdir()
    with pytest.raises(CheckpointError) as error:
        load_encoder(source)
    assert f"{Path(source)}: no such file (expected {meant}" in str(error.value)


def test_a_published_name_as_a_path_says_that_it_is_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load_encoder(tmp_path / "redimnet-b2")


@pytest.mark.parametrize("device", ["cpu", "auto", torch.device("cpu")])
def test_an_encoder_comes_on_the_device_that_is_asked_for(device: str | torch.device) -> None:
    expected = "cuda" if device == "auto" and torch.cuda.is_available() else "cpu"
    encoder = load_encoder(device=device)
    assert {value.device.type for value in (*encoder.parameters(), *encoder.buffers())} == {expected}


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("gpu", "device: 'gpu' .*one of auto, cpu, cuda, mps"),
        ("cud", "'cuda'"),
        ("cuda:x", "'cuda:x'"),
        ("cpu:1", "'cpu:1'"),
        ("meta", "'meta'"),
        ("", "''"),
        (0, "'0'"),
    ],
)
def test_an_unknown_device_is_refused_before_anything_is_read(device: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_encoder("nowhere.pt", device=device)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no CUDA device, or a PyTorch built without CUDA .expected cpu"):
        load_encoder(device="cuda")
    assert load_encoder(device="auto").head.linear.weight.device.type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="2 CUDA devices"):
        load_encoder(device="cuda:2")


@pytest.mark.parametrize(
    "arguments",
    [{}, {"embed_dim": 256, "mrl_dims": [64, 128, 192, 256], "F": 72, "C": 12, "out_channels": 512}],
)
def test_redimnet_mrl_begins_as_its_docstring_says(arguments: dict[str, object]) -> None:
    model = ReDimNetMRL(**arguments)
    for mode in (True, False):
        embedding = model.train(mode)(torch.randn(2, 1, 48000), target_dim=64)
        assert embedding.shape == (2, 64)
        assert embedding.requires_grad
    assert model.dims == (64, 128, 192, 256)
    assert model.frontend.level is None  # as the original hears it
    assert model(torch.randn(2, 1, 48000), lengths=[8000, 48000]).shape == (2, 256)
