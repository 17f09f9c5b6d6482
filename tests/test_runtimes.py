"""An encoder is the same in every engine: loaded by one function, used in one way, without torch where it can be."""

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import voxnest
from voxnest.errors import AudioError, CheckpointError, ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.runtimes import export, export_encoder, loading
from voxnest.runtimes.onnx import OnnxEncoder
from voxnest.runtimes.openvino import OpenVINOEncoder, has_bfloat16, the_core
from voxnest.runtimes.proof import speech

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, exported too, and two recordings."""
    place = tmp_path_factory.mktemp("runtimes")
    torch.manual_seed(0)
    encoder = voxnest.create_encoder("redimnet-tiny", dims=(8, 16), bins=24, stages=[(2, 1, 2, 8)]).eval()
    voxnest.save_encoder(encoder, place / "model.safetensors")
    export_encoder(encoder, place / "model.onnx")
    for voice in range(4):
        soundfile.write(place / f"{voice}.wav", speech(1.7 + voice, 16000, voice), 16000)
    return place


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SpeakerEncoder:
    return voxnest.load_encoder(folder / "model.safetensors")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VOXNEST_HOME", str(tmp_path))
    return tmp_path / "runtimes"


@pytest.mark.parametrize("engine", [OnnxEncoder, OpenVINOEncoder])
def test_an_engine_embeds_files_as_torch_does_alone_and_in_threads(
    engine: Any, folder: Path, encoder: SpeakerEncoder
) -> None:
    exported = engine(folder / "model.onnx")
    files = sorted(folder.glob("*.wav"))
    expected = encoder.encode(files)
    np.testing.assert_allclose(exported.encode(files), expected, atol=1e-4)
    embedded = voxnest.embed(exported, files)
    np.testing.assert_allclose(np.stack(list(embedded.values())), expected, atol=1e-4)
    assert exported.digest() not in (encoder.digest(), OnnxEncoder(folder / "model.onnx").digest()[::-1])


def test_many_threads_use_an_engine_at_once(folder: Path, encoder: SpeakerEncoder) -> None:
    exported = OnnxEncoder(folder / "model.onnx")
    waveforms = [speech(0.5 + 0.01 * voice, 16000, voice)[None] for voice in range(40)]
    with exported.ready() as threads, ThreadPoolExecutor(8, initializer=threads.start) as pool:
        found = list(pool.map(exported.embed, waveforms))
    assert threads.number >= 1
    with encoder.ready():
        for waveform, embedding in zip(waveforms, found, strict=True):
            np.testing.assert_allclose(embedding, encoder.embed(waveform), atol=1e-4)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_is_loaded_ahead_for_threads_and_nothing_is_said_before_it_is_used(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in (folder / "model.onnx", shutil.copy(folder / "model.onnx", tmp_path / "gone.onnx")):
        engine = OnnxEncoder(path)
        if path.parent == tmp_path:
            path.unlink()
        engine.load_ahead()
        for thread in [thread for thread in threading.enumerate() if thread.name == "load"]:
            thread.join()
        assert list(engine._sessions) == ([False] if path.exists() else [])
    assert capfd.readouterr() == ("", "")
    with pytest.raises(CheckpointError, match=r"gone.onnx: onnxruntime cannot load it"):
        engine.encode(speech(1.0, 16000))


def test_what_cannot_be_embedded_is_an_audio_error(folder: Path) -> None:
    exported = OnnxEncoder(folder / "model.onnx")
    with pytest.raises(AudioError, match=r"waveform: shape \[100\]"):
        exported.embed(np.zeros(100, np.float32))
    with pytest.raises(AudioError, match=r"waveform: 10 samples .expected at least"):
        exported.embed(np.zeros((1, 10), np.float32))
    with pytest.raises(AudioError, match=r"waveform: NaN or infinite samples"):
        exported.embed(np.full((1, 9000), np.nan, np.float32))
    with pytest.raises(ConfigError, match=r"window: 3 s, in the runtime onnx"):
        exported.embed_windows(np.zeros((1, 90000), np.float32), 3.0)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_checkpoint_is_exported_once_and_kept(
    runtime: str, folder: Path, encoder: SpeakerEncoder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = voxnest.load_encoder(folder / "model.safetensors", runtime=runtime)
    (kept,) = home.glob("*.onnx")
    monkeypatch.setattr(export, "export_encoder", None)  # it would raise
    monkeypatch.setattr(loading, "compare", None)
    again = voxnest.load_encoder(folder / "model.safetensors", runtime=runtime)
    waveform = speech(1.5, 16000)[None]
    np.testing.assert_array_equal(first.embed(waveform), again.embed(waveform))
    np.testing.assert_allclose(again.embed(waveform)[0], encoder.encode(waveform[0])[0], atol=1e-4)
    assert kept.with_suffix(".json").exists()


def test_auto_takes_the_fastest_and_remembers_it(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"torch": 0.3, "onnx": 0.1, "openvino": 0.2}
    asked = []

    def time_each(embedders: dict[str, Any], waveform: np.ndarray) -> dict[str, float]:
        assert waveform.shape == (1, 48000)
        asked.extend(embedders)
        return seconds

    monkeypatch.setattr(loading, "time_each", time_each)
    assert isinstance(voxnest.load_encoder(folder / "model.safetensors", runtime="auto"), OnnxEncoder)
    assert set(asked) == set(seconds)
    assert isinstance(voxnest.load_encoder(folder / "model.safetensors", runtime="auto"), OnnxEncoder)
    assert len(asked) == len(seconds)


def test_auto_leaves_out_what_is_not_equal(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differs(engine: Any, *_: object, subject: str) -> None:
        raise CheckpointError(subject, "embeddings that differ")

    monkeypatch.setattr(loading, "compare", differs)
    assert isinstance(voxnest.load_encoder(folder / "model.safetensors", runtime="auto"), SpeakerEncoder)
    with pytest.raises(CheckpointError, match=r"redimnet in onnx: embeddings that differ"):
        voxnest.load_encoder(folder / "model.safetensors", runtime="onnx")


def test_bfloat16_in_torch_is_near_and_another_model(folder: Path, encoder: SpeakerEncoder) -> None:
    rounded = voxnest.load_encoder(folder / "model.safetensors", precision="bfloat16")
    waveform = speech(2.0, 16000)[None]
    with rounded.ready(), encoder.ready():
        found, exact = rounded.embed(waveform), encoder.embed(waveform)
    assert found.dtype == np.float32
    assert not np.array_equal(found, exact)
    assert (found @ exact.T).item() > 0.99 * np.linalg.norm(found) * np.linalg.norm(exact)
    assert rounded.digest() != encoder.digest()
    assert (rounded.dims, rounded.name, rounded.min_samples) == (encoder.dims, encoder.name, encoder.min_samples)


def test_bfloat16_in_openvino_is_refused_where_the_processor_has_none(folder: Path) -> None:
    import openvino

    if has_bfloat16(the_core(openvino)):
        assert OpenVINOEncoder(folder / "model.onnx", "bfloat16").embed(speech(1.0, 16000)[None]).shape == (1, 16)
        return
    with pytest.raises(ConfigError, match=r"bfloat16, which this processor does not compute in .expected float32"):
        OpenVINOEncoder(folder / "model.onnx", "bfloat16")


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO gives its thread a stack for signals on Linux only")
def test_signals_arrive_after_engines_of_openvino_are_gone(folder: Path) -> None:
    code = """
import os, signal, sys
from voxnest.runtimes.openvino import OpenVINOEncoder
import numpy as np
signal.signal(signal.SIGUSR1, lambda *_: print("arrived"))
first, second = OpenVINOEncoder(sys.argv[1]), OpenVINOEncoder(sys.argv[1])
for engine in (first, second):
    engine.embed(np.full((1, 16000), 0.1, np.float32))
del engine, first
del second
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, folder / "model.onnx"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "arrived\n"), done.stderr


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("model.onnx", {"runtime": "tensorrt"}, "runtime: 'tensorrt' .expected one of torch, onnx, openvino, auto"),
        ("model.onnx", {"precision": "float23"}, r"precision: 'float23' .expected 'float32'\?"),
        ("model.onnx", {"runtime": "torch"}, "runtime: 'torch', of .*model.onnx"),
        ("model.onnx", {"dataset": "vox2"}, "train_type and dataset: given with the file"),
        ("model.onnx", {"precision": "bfloat16"}, "precision: bfloat16, which onnxruntime does not compute in"),
        ("model.onnx", {"precision": "int8"}, "precision: int8, of a file in float32 .expected float32"),
        ("model.onnx", {"device": "tpu"}, "device: 'tpu', with onnxruntime"),
        ("model.onnx", {"device": "cuda", "runtime": "openvino"}, "device: 'cuda', with OpenVINO .expected cpu"),
        ("model.safetensors", {"precision": "int8"}, "precision: int8, of .*model.safetensors"),
    ],
)
def test_what_an_engine_has_not_is_said(folder: Path, source: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        voxnest.load_encoder(folder / source, **options)


def test_a_file_that_is_not_there_or_damaged_is_a_checkpoint_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no.onnx: no such file"):
        voxnest.load_encoder(tmp_path / "no.onnx")
    data = bytearray((folder / "model.onnx").read_bytes())
    data[200:400] = bytes(200)
    (tmp_path / "damaged.onnx").write_bytes(data)
    for runtime in ("onnx", "openvino"):
        with pytest.raises(CheckpointError, match=r"damaged.onnx: "):
            voxnest.load_encoder(tmp_path / "damaged.onnx", runtime=runtime).embed(speech(1.0, 16000)[None])


@pytest.mark.parametrize(("runtime", "package"), [("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_without_an_extra_one_line_says_what_to_install(
    folder: Path, runtime: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package}: is not installed .expected pip install 'voxnest\[{runtime}\]'"):
        voxnest.load_encoder(folder / "model.onnx", runtime=runtime)


def test_commands_take_an_exported_model(folder: Path, tmp_path: Path, run: Run) -> None:
    pair = (folder / "0.wav", folder / "1.wav")
    answers = {run("verify", *pair, "--model", folder / f"model.{kind}")[1] for kind in ("onnx", "safetensors")}
    answers.add(run("verify", *pair, "--model", folder / "model.onnx", "--runtime", "openvino")[1])
    assert len(answers) == 1
    assert "score" in answers.pop()
    assert run("embed", *pair, "--model", folder / "model.onnx", "-o", tmp_path / "out.npz")[0] == 0
    (tmp_path / "trials.txt").write_text(f"1 {pair[0]} {pair[1]}\n0 {pair[0]} {folder / '2.wav'}\n")
    words = ("evaluate", folder / "model.onnx", "--trials", tmp_path / "trials.txt")
    status, output, errors = run(*words, "--report", tmp_path / "report")
    assert status == 0, errors
    assert "EER" in output
    status, _, errors = run(*words, "--window", "1")
    assert status == 2
    assert "window: 1 s, in the runtime onnx" in errors


def test_an_exported_model_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys, runpy; sys.modules['torch'] = None\n"
        "import voxnest.audio, voxnest.inference, voxnest.scoring, voxnest.corpora.trials\n"
        f"files = ['{folder}/0.wav', '{folder}/1.wav']\n"
        f"words = ['verify', *files, '--model', '{folder}/model.onnx', '--threshold', '-1']\n"
        "from voxnest.cli.app import app\n"
        "app(words, standalone_mode=False)\n"
        "print({name for name in ('torch', 'lhotse', 'lightning', 'av') if sys.modules.get(name)} or 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("same speaker")
    assert done.stdout.splitlines()[-1] == "none"
