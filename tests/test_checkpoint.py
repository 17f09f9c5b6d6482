"""A saved encoder comes back as it was; a damaged or foreign file is refused in one line."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from voxnest import create_encoder, load_encoder, save_encoder
from voxnest.errors import CheckpointError
from voxnest.hub import checkpoint


def test_a_saved_encoder_embeds_as_before(tmp_path: Path) -> None:
    encoder = create_encoder("redimnet-tiny", dims=(16, 48), block_2d="basic_resnet").eval()
    encoder.thresholds = {16: 0.41, 48: 0.37}
    save_encoder(encoder, tmp_path / "model.safetensors", {"eer": 0.02})
    loaded = load_encoder(tmp_path / "model.safetensors")
    waveform = torch.randn(2, 8000)
    torch.testing.assert_close(loaded(waveform), encoder(waveform))
    assert loaded.dims == (16, 48)
    assert loaded.thresholds == encoder.thresholds
    assert not loaded.training
    assert checkpoint.read_metadata(tmp_path / "model.safetensors")["metadata"] == {"eer": 0.02}


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "no such file"), (b"", "not readable"), (b"RIFF" * 100, "not readable")],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as error:
        load_encoder(path)
    assert str(path) in str(error.value)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_encoder(create_encoder("redimnet-tiny"), path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not readable"):
        load_encoder(path)


def test_safetensors_of_something_else_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="without voxnest's description"):
        load_encoder(tmp_path / "other.safetensors")


def test_a_full_disk_leaves_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    save_encoder(create_encoder("redimnet-tiny"), path)
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_encoder(create_encoder("redimnet-tiny"), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
