"""An exported model is one file that gives the same embeddings anywhere, or there is no file."""

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch

import voxnest
from voxnest.errors import CheckpointError, ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.runtimes import export, export_encoder, read_description
from voxnest.runtimes.description import KEY
from voxnest.runtimes.onnx import OnnxEncoder
from voxnest.runtimes.proof import speech
from voxnest.scoring import Calibration
from voxnest.scoring.logistic import LinearLLR

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    made = voxnest.create_encoder("redimnet-tiny", dims=(8, 16), bins=24, stages=[(2, 1, 2, None)]).eval()
    made.thresholds = {8: 0.25, 16: 0.5}
    made.calibration = {16: Calibration(LinearLLR({"score": 2.0}, -1.0, 0.5, 10, 10), ((1, 0.5),))}
    return made


@pytest.fixture(scope="module")
def model(encoder: SpeakerEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    report = export_encoder(encoder, path, card={"task": "tests"})
    assert set(report.cosines) == {"onnx", "openvino"}
    assert min(report.cosines.values()) > 0.99999
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "voice.wav", speech(2.5, 16000), 16000)
    return tmp_path / "voice.wav"


def test_the_file_tells_what_an_encoder_does(model: Path, encoder: SpeakerEncoder) -> None:
    described = read_description(model)
    assert (described.name, described.architecture) == (encoder.name, "redimnet")
    assert (described.sample_rate, described.min_samples) == (16000, encoder.min_samples)
    assert (described.dims, described.thresholds, described.calibration) == ((8, 16), *_known(encoder))
    assert (described.digest, described.card) == (encoder.digest(), {"task": "tests"})


def _known(encoder: SpeakerEncoder) -> tuple[dict[int, float], dict[int, Calibration]]:
    return encoder.thresholds, encoder.calibration


def test_a_prefix_is_exported_with_what_belongs_to_it(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    export_encoder(encoder, tmp_path / "short.onnx", dim=8)
    short = OnnxEncoder(tmp_path / "short.onnx")
    assert (short.dims, short.thresholds, short.calibration) == ((8,), {8: 0.25}, {})
    waveform = speech(1.5, 16000)
    np.testing.assert_allclose(short.encode(waveform), encoder.encode(waveform, dim=8), atol=1e-4)
    with pytest.raises(ConfigError, match=r"dim: 5 .expected one the model was trained for: 8, 16"):
        export_encoder(encoder, tmp_path / "five.onnx", dim=5)


def test_a_graph_that_differs_leaves_no_file(
    encoder: SpeakerEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Worse(export.Graph):
        def forward(self, waveform: torch.Tensor) -> torch.Tensor:
            return super().forward(waveform) + 0.3 * waveform[:, :16]

    monkeypatch.setattr(export, "Graph", Worse)
    with pytest.raises(CheckpointError, match=r"cosine to those of PyTorch is .+ .expected at least 0.99999"):
        export_encoder(encoder, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_recordings_of_the_user_are_what_is_compared(
    encoder: SpeakerEncoder, recording: Path, tmp_path: Path, run: Run
) -> None:
    voxnest.save_encoder(encoder, tmp_path / "model.safetensors")
    words = ("export", tmp_path / "model.safetensors", "-o", tmp_path / "model.onnx", "--check", recording)
    status, output, errors = run(*words)
    assert (status, errors) == (0, "")
    assert "onnx: cosine 1.00000000 or more to PyTorch, on 1 waveforms" in output
    assert str(tmp_path / "model_run.py") in output
    status, _, errors = run(*words[:-1], tmp_path / "no.wav")
    assert status == 2
    assert "no.wav" in errors


def test_torch_reads_a_pt2_file_without_voxnest(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    export_encoder(encoder, tmp_path / "model.pt2")
    code = (
        "import sys, torch; sys.modules['voxnest'] = None; graph = torch.export.load('model.pt2').module(); "
        "print(*graph(torch.load('waveform.pt')).flatten().tolist())"
    )
    waveform = torch.from_numpy(speech(4.123, 16000))[None]
    torch.save(waveform, tmp_path / "waveform.pt")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    found = np.array(list(map(float, done.stdout.split())))
    np.testing.assert_allclose(found, encoder.encode(waveform[0])[0], atol=1e-4)


def test_the_script_beside_a_model_runs_it_without_torch_and_voxnest(
    model: Path, encoder: SpeakerEncoder, recording: Path, tmp_path: Path
) -> None:
    # An environment of its own, with three packages out of this one's, and what they need.
    venv.create(tmp_path / "env", symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    site = next((tmp_path / "env" / "lib").glob("python*")) / "site-packages"
    packages = Path(np.__file__).parents[1]
    wanted = ("numpy*", "*soundfile*", "onnxruntime*", "*cffi*", "typing_extensions.py", "flatbuffers", "google")
    for item in {item for pattern in wanted for item in packages.glob(pattern)}:
        (site / item.name).symlink_to(item)
    for name in ("model.onnx", "model_run.py"):
        shutil.copy(model.with_name(name), tmp_path)
    without = subprocess.run([python, "-c", "import torch"], capture_output=True, text=True)
    assert "No module named 'torch'" in without.stderr
    done = subprocess.run([python, "model_run.py", recording], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    name, *numbers = done.stdout.split()
    expected = encoder.encode(recording)[0]
    assert name == str(recording)
    np.testing.assert_allclose(np.array(numbers, float), expected / np.linalg.norm(expected), atol=2e-5)
    assert len((tmp_path / "model_run.py").read_text().split('"""')[2].strip().splitlines()) <= 14


def test_int8_is_learnt_from_recordings_and_its_cost_told(
    encoder: SpeakerEncoder, recording: Path, tmp_path: Path, run: Run
) -> None:
    soundfile.write(tmp_path / "other.wav", speech(2.5, 16000, 5), 16000)
    soundfile.write(tmp_path / "again.wav", 0.5 * speech(2.5, 16000)[4000:], 16000)
    (tmp_path / "trials.txt").write_text("1 voice.wav again.wav\n0 voice.wav other.wav\n")
    voxnest.save_encoder(encoder, tmp_path / "model.safetensors")
    words = ["export", tmp_path / "model.safetensors", "-o", tmp_path / "small.onnx", "--precision", "int8"]
    status, output, errors = run(*words, "--calibrate", recording, "--trials", tmp_path / "trials.txt")
    assert status == 0, errors
    assert "EER of 16 numbers: " in output
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    with pytest.raises(ConfigError, match=r"precision: float32, of a file in int8"):
        OnnxEncoder(tmp_path / "small.onnx")
    status, _, errors = run(*words)
    assert status == 2
    assert "calibrate: int8, without recordings" in errors


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("model.tflite", {}, "ends in .tflite .expected a name that ends in .onnx or .pt2"),
        ("model.onnx", {"precision": "bfloat16"}, "precision: 'bfloat16', of a .onnx file .expected float32 or int8"),
        ("model.pt2", {"precision": "int4"}, "precision: 'int4', of a .pt2 file .expected float32"),
        ("model.onnx", {"calibrate": ["a.wav"]}, "calibrate: recordings, without int8"),
    ],
)
def test_what_cannot_be_exported_is_said_at_once(
    encoder: SpeakerEncoder, tmp_path: Path, name: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        export_encoder(encoder, tmp_path / name, **options)


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, 0.999])
def test_a_damaged_file_is_a_checkpoint_error(model: Path, tmp_path: Path, kept: float) -> None:
    data = model.read_bytes()
    path = tmp_path / "damaged.onnx"
    path.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    with pytest.raises(CheckpointError, match=r"damaged.onnx: damaged, or no ONNX file"):
        OnnxEncoder(path)


def test_a_file_of_others_or_of_a_newer_voxnest_is_a_checkpoint_error(model: Path, tmp_path: Path) -> None:
    graph = onnx.load(model)
    text = {item.key: item.value for item in graph.metadata_props}[KEY]
    for change, said in (
        ({"format": 2}, "format 2 .expected format 1; use a newer voxnest"),
        ({"dims": "many"}, "a description that does not fit"),
        ({"sample_rate": 0}, "a description with"),
        ({"colour": "red"}, "a description that does not fit"),
    ):
        onnx.helper.set_model_props(graph, {KEY: json.dumps({**json.loads(text), **change})})
        onnx.save(graph, tmp_path / "changed.onnx")
        with pytest.raises(CheckpointError, match=f"changed.onnx: {said}"):
            read_description(tmp_path / "changed.onnx")
    onnx.helper.set_model_props(graph, {"other": "text"})
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(CheckpointError, match=r"other.onnx: ONNX without voxnest's description"):
        read_description(tmp_path / "other.onnx")
