"""An exported model is one file that gives the same embeddings anywhere, or there is no file."""

import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch

import voxnest
from voxnest import evaluation
from voxnest.errors import CheckpointError, ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.runtimes import export, export_encoder, quantization, read_description
from voxnest.runtimes.description import KEY
from voxnest.runtimes.onnx import OnnxEncoder
from voxnest.runtimes.proof import speech
from voxnest.runtimes.timing import time_each
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


@pytest.fixture
def int8(encoder: SpeakerEncoder, recording: Path, tmp_path: Path) -> list[object]:
    """Words of a command that exports int8, and a trial list."""
    soundfile.write(tmp_path / "other.wav", speech(2.5, 16000, 5), 16000)
    soundfile.write(tmp_path / "again.wav", 0.5 * speech(2.5, 16000)[4000:], 16000)
    (tmp_path / "trials.txt").write_text("1 voice.wav again.wav\n0 voice.wav other.wav\n")
    voxnest.save_encoder(encoder, tmp_path / "model.safetensors")
    words = ["export", tmp_path / "model.safetensors", "-o", tmp_path / "small.onnx", "--precision", "int8"]
    return [*words, "--calibrate", recording]


def takes(monkeypatch: pytest.MonkeyPatch, int8: float, others: float) -> None:
    """Let graphs in 8 bits take so many seconds, and all others so many."""

    def time_each(engines: dict[str, Any], waveform: np.ndarray) -> dict[str, float]:
        assert waveform.shape == (1, 40000)
        assert {"int8 (onnx)", "int8 (openvino)", "float32 (onnx)", "float32 (openvino)"} <= engines.keys()
        assert all(engine.embed(waveform).shape == (1, 16) for engine in engines.values())
        return {name: int8 if engine.description.precision == "int8" else others for name, engine in engines.items()}

    monkeypatch.setattr(quantization, "time_each", time_each)


def errs(monkeypatch: pytest.MonkeyPatch, float32: float, int8: float) -> None:
    """Let evaluations find these equal error rates, in this order."""
    rates = iter((float32, int8))

    def evaluate(embedder: Any, _: object, dims: tuple[int, ...], **__: object) -> SimpleNamespace:
        assert embedder.encode(speech(1.0, 16000)).shape == (1, 16)
        eer = next(rates)
        return SimpleNamespace(dims={8: SimpleNamespace(eer=0.2), 16: SimpleNamespace(eer=eer)})

    monkeypatch.setattr(evaluation, "evaluate", evaluate)


def test_int8_that_is_faster_is_written_with_what_it_costs(
    int8: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    takes(monkeypatch, 0.0101, 0.02)
    status, output, errors = run(*int8, "--trials", tmp_path / "trials.txt")
    assert (status, caplog.records) == (0, []), errors
    assert "EER of 16 numbers: " in output
    assert f"int8 (onnx): 10.1 ms a recording, of the first 3 s of {tmp_path / 'voice.wav'}" in output
    kinds = {node.op_type for node in onnx.load(tmp_path / "small.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert OnnxEncoder(tmp_path / "small.onnx", "int8").description.precision == "int8"
    with pytest.raises(ConfigError, match=r"precision: float32, of a file in int8"):
        OnnxEncoder(tmp_path / "small.onnx")
    status, _, errors = run(*int8[:-2])
    assert status == 2
    assert "calibrate: int8, without recordings" in errors


def test_int8_that_is_not_faster_is_refused_but_for_its_size(
    int8: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    takes(monkeypatch, 0.0201, 0.02)
    status, output, errors = run(*int8)
    assert (status, output, len(errors.splitlines())) == (2, "", 1)
    assert "small.onnx: not written: int8 (onnx) takes 20.1 ms a recording, float32 (onnx) 20.0 ms" in errors
    assert "(expected int8 to be faster; --for-size to have it all the same, for its size)" in errors
    assert not list(tmp_path.glob("*small*"))
    status, output, errors = run(*int8, "--for-size")
    assert status == 0, errors
    assert "int8 (onnx): 20.1 ms" in output
    assert (tmp_path / "small.onnx").exists()


def test_int8_whose_errors_are_more_is_refused_but_for_its_size(
    int8: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    takes(monkeypatch, 0.01, 0.02)
    errs(monkeypatch, 0.1, 0.1031)
    words = [*int8, "--trials", tmp_path / "trials.txt"]
    status, output, errors = run(*words)
    assert status == 2
    assert "EER of 16 numbers: 10.000% in float32, 10.310% in int8 (+3.1%)" in output
    assert "small.onnx: not written: the EER of 16 numbers is 10.310% in int8 and 10.000% in float32 (" in errors
    assert "(expected at most 3% more; --for-size to have it all the same, for its size)" in errors
    assert not list(tmp_path.glob("*small*"))
    errs(monkeypatch, 0.1, 0.1031)
    assert run(*words, "--for-size")[0] == 0
    assert (tmp_path / "small.onnx").exists()


def test_errors_may_be_three_percent_more_at_each_size() -> None:
    quantization.check_errors(Path("a.onnx"), {8: 0.1, 16: 0.2, 24: 0.0}, {8: 0.1029, 16: 0.1, 24: 0.0})
    for after in ({8: 0.1031, 16: 0.2}, {8: 0.1, 16: 0.207}):
        with pytest.raises(ConfigError, match=f"a.onnx: not written: the EER of {8 if after[8] > 0.1 else 16} numbers"):
            quantization.check_errors(Path("a.onnx"), {8: 0.1, 16: 0.2}, after)
    with pytest.raises(ConfigError, match=r"0.010% in int8 and 0.000% in float32"):
        quantization.check_errors(Path("a.onnx"), {8: 0.0}, {8: 1e-4})


def test_options_of_int8_need_int8(encoder: SpeakerEncoder, tmp_path: Path, run: Run) -> None:
    for words in (("--for-size",), ("--trials", tmp_path / "trials.txt")):
        status, _, errors = run("export", "-o", tmp_path / "model.onnx", *words)
        assert (status, f"{words[0]}: given with --precision float32" in errors) == (2, True)


def test_engines_are_timed_by_turns_and_the_middle_counts() -> None:
    now, calls = 0.0, []

    class Fake:
        def __init__(self, name: str, seconds: list[float]) -> None:
            self.name, self.seconds = name, iter(seconds)

        def ready(self) -> Any:
            return nullcontext()

        def embed(self, waveform: np.ndarray) -> np.ndarray:
            nonlocal now
            calls.append(self.name)
            now += next(self.seconds)
            return waveform

    fakes: dict[str, Any] = {"a": Fake("a", [100, 1, 9, 2, 8, 3, 7, 4]), "b": Fake("b", [100, 5, 5, 5, 5, 6, 6, 6])}
    assert time_each(fakes, np.zeros((1, 9)), lambda: now) == {"a": 4, "b": 5}
    assert calls == ["a", "b"] * 8


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
