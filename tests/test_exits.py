"""Depth exits: an embedding after an early stage costs what the stages up to it cost, and is one like any other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tones import make_corpus
from voxnest import create_encoder, load_encoder, save_encoder, with_dims
from voxnest.errors import CheckpointError, ConfigError
from voxnest.evaluation import calibrate, evaluate, evaluate_exits
from voxnest.hub import read_metadata
from voxnest.inference import embed_files
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.exits import AllEnds, named_thresholds, set_thresholds
from voxnest.runtimes.export import export_encoder
from voxnest.zoo.counting import count_macs

STAGES = {
    "redimnet-tiny": {"bins": 24, "stages": [(1, 1, 2, 8), (2, 1, 1, 8), (1, 1, 1, None)], "out_channels": 40},
    "redimnet2-b0": {
        "bins": 24,
        "channels": 8,
        "stages": [((1, 1), 1, 2, [(3, 3)], 4), ((2, 2), 1, 1, [(3, 5)], 8), ((1, 2), 1, 0.5, [(5, 3)], None)],
    },
    "resnet34": {"bins": 24, "channels": 8, "blocks": [1, 2, 1]},
}


@pytest.fixture(scope="module", params=STAGES)
def encoder(request: pytest.FixtureRequest) -> SpeakerEncoder:
    torch.manual_seed(0)
    return create_encoder(request.param, dims=(8, 16), exits=[1, 2], dim_exits={8: 1}, **STAGES[request.param]).eval()


@pytest.fixture(scope="module")
def waveform() -> torch.Tensor:
    return 0.1 * torch.randn(2, 16137, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("stage", [1, 2])
@torch.inference_mode()
def test_an_exit_is_an_encoder_of_its_own(
    encoder: SpeakerEncoder, waveform: torch.Tensor, stage: int, tmp_path: Path
) -> None:
    early = encoder.at_exit(stage)
    expected = encoder(waveform, exit=stage)
    assert torch.equal(early(waveform), expected)
    assert not torch.allclose(expected, encoder(waveform), atol=1e-3)
    assert count_macs(early) < count_macs(encoder)
    assert early.backbone.out_channels == early.pooling.out_channels // 2  # mean and deviation
    save_encoder(early, tmp_path / "early.safetensors")
    again = load_encoder(tmp_path / "early.safetensors")
    torch.testing.assert_close(again(waveform), expected)
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in encoder.parameters())
    lengths = encoder(waveform, exit=stage, lengths=[16137, 9000])
    torch.testing.assert_close(lengths[1:], encoder(waveform[1:, :9000], exit=stage))


@torch.inference_mode()
def test_later_stages_are_not_computed(encoder: SpeakerEncoder, waveform: torch.Tensor) -> None:
    called = []
    hooks = [
        stage.register_forward_hook(lambda *_, number=number: called.append(number))
        for number, stage in enumerate(encoder.backbone.stages, 1)  # type: ignore[arg-type]
    ]
    encoder(waveform, exit=1)
    encoder(waveform, dim=8)
    assert called == [1, 1]
    encoder(waveform, dim=16)
    assert called == [1, 1, 1, 2, 3]
    for hook in hooks:
        hook.remove()


@torch.inference_mode()
def test_a_size_is_had_after_the_stage_that_is_named_for_it(
    encoder: SpeakerEncoder, waveform: torch.Tensor, tmp_path: Path
) -> None:
    assert torch.equal(encoder(waveform, dim=8), encoder(waveform, exit=1)[:, :8])
    assert torch.equal(encoder(waveform, dim=8, exit=2), encoder(waveform, exit=2)[:, :8])
    np.testing.assert_allclose(encoder.encode(waveform[0].numpy(), dim=8)[0], encoder(waveform, dim=8)[0], atol=1e-5)
    set_thresholds(encoder, {"8": 0.5, "16": 0.3, "8@1": 0.4, "16@2": 0.2})
    assert encoder.for_dim(8).thresholds == {8: 0.4}
    assert encoder.at_exit(2).thresholds == {16: 0.2}
    assert encoder.for_dim(16) is encoder
    save_encoder(encoder, tmp_path / "model.safetensors")
    named = load_encoder(f"{tmp_path / 'model.safetensors'}@2")
    assert torch.equal(named(waveform), encoder(waveform, exit=2))
    assert named.thresholds == {16: 0.2}
    assert load_encoder(tmp_path / "model.safetensors").thresholds == {8: 0.5, 16: 0.3}
    assert torch.equal(load_encoder(tmp_path / "model.safetensors")(waveform, dim=8), encoder(waveform, dim=8))
    more = with_dims(encoder, (4, 16))
    assert named_thresholds(more) == {"16": 0.3, "16@2": 0.2}  # only whole cosines stay as they were
    torch.testing.assert_close(more(waveform, exit=1), encoder(waveform, exit=1))


def test_all_exits_are_evaluated_in_one_pass(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    make_corpus(tmp_path)
    trials, called = tmp_path / "trials.txt", []
    stage: torch.nn.Module = encoder.backbone.stages[0]  # type: ignore[index, assignment]
    hook = stage.register_forward_hook(lambda *_: called.append(1))
    found = evaluate_exits(encoder, trials)
    hook.remove()
    passes = 3 if encoder.architecture == "redimnet2" else 1  # a second does not fill the time strides of ReDimNet2
    assert len(called) == passes * found[None].recordings
    assert list(found) == [1, 2, None]
    for stage, part in encoder.parts().items():
        alone = evaluate(part, trials)
        assert found[stage].model == part.name
        for dim in encoder.dims:
            np.testing.assert_allclose(found[stage].scores[dim], alone.scores[dim], atol=1e-5)
            assert found[stage].dims[dim].eer == pytest.approx(alone.dims[dim].eer, abs=1e-6)


def test_parts_of_a_long_recording_count_alike_at_each_exit(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 48000) * np.repeat([0.01, 1, 0.3], 16000)
    soundfile.write(path := str(tmp_path / "long.wav"), noise, 16000)
    together = embed_files(AllEnds(encoder), [path], max_duration=1.0)[path]  # type: ignore[arg-type]
    for row, part in zip(together, encoder.parts().values(), strict=True):
        np.testing.assert_allclose(row, embed_files(part, [path], max_duration=1.0)[path], rtol=1e-4, atol=1e-5)


def test_a_threshold_of_an_exit_that_is_not_there_is_refused(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"8@3: no size of embedding \(expected one of 8@1, 16@1, 8@2, 16@2, 8, 16\)"):
        set_thresholds(encoder, {"8@3": 0.5})
    path = tmp_path / "model.safetensors"
    save_encoder(encoder, path)
    header = {**read_metadata(path), "thresholds": {"8@3": 0.5}}
    save_file(load_file(path), path, metadata={"voxnest": json.dumps(header)})
    with pytest.raises(CheckpointError, match="a threshold for '8@3' numbers"):
        load_encoder(path)


def test_all_exits_learn_in_one_pass(encoder: SpeakerEncoder, waveform: torch.Tensor) -> None:
    found = encoder.embed_exits(encoder.frontend(waveform[:, :16000]))
    assert {stage: list(sizes) for stage, sizes in found.items()} == {1: [8, 16], 2: [8, 16], None: [8, 16]}
    sum(sizes[16].square().sum() for sizes in found.values()).backward()  # type: ignore[union-attr]
    without = [name for name, value in encoder.named_parameters() if value.requires_grad and value.grad is None]
    assert not without
    encoder.zero_grad(set_to_none=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"exits": [3]}, r"exits: \[3\] \(expected stages from 1 to 2, ascending\)"),
        ({"exits": [2, 1]}, r"exits: \[2, 1\]"),
        ({"exits": [1], "dim_exits": {8: 2}}, "stage 2 for 8 numbers"),
        ({"exits": [1], "dim_exits": {9: 1}}, "stage 1 for 9 numbers"),
    ],
)
def test_exits_that_cannot_be_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_encoder("redimnet-tiny", dims=(8, 16), **STAGES["redimnet-tiny"], **settings)


def test_an_exit_that_is_not_there_is_refused(encoder: SpeakerEncoder, waveform: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match=r"exit: 3 \(expected one of 1, 2\)"):
        encoder(waveform, exit=3)
    with pytest.raises(ConfigError, match="none: redimnet-tiny was made without"):
        create_encoder("redimnet-tiny").at_exit(1)
    with pytest.raises(ConfigError, match="of a network that has none"):
        create_encoder("ecapa-tdnn-512", exits=[1])


def test_commands_take_the_exits_of_a_model(encoder: SpeakerEncoder, run: Callable[..., Any], tmp_path: Path) -> None:
    make_corpus(tmp_path)
    model, trials = tmp_path / "model.safetensors", tmp_path / "trials.txt"
    set_thresholds(encoder, {"8": 0.9, "8@1": 0.25})
    save_encoder(encoder, model)
    status, output, errors = run("evaluate", model, "--trials", trials, "--json", tmp_path / "found.json")
    assert status == 0, errors
    found = json.loads((tmp_path / "found.json").read_text())
    assert [each["model"] for each in found] == [f"{model}@1", f"{model}@2", str(model)]
    assert [each["dims"]["8"]["verify"]["threshold"] for each in found] == [0.25, 0.5, 0.9]
    assert output.count("model.safetensors@1 on trials.txt") == 1
    assert run("calibrate", model, "--trials", trials)[0] == 0
    calibrated = load_encoder(tmp_path / "model-calibrated.safetensors")
    for stage, part in encoder.parts().items():
        assert calibrated.ends[stage].calibration == calibrate(part, trials)
    assert set(calibrated.for_dim(8).calibration) == {8, 16}


def test_an_exported_size_is_of_its_exit(encoder: SpeakerEncoder, tmp_path: Path) -> None:
    described = export_encoder(encoder, tmp_path / "short.onnx", dim=8, script=False).description
    assert described.digest == encoder.at_exit(1).digest()
    assert described.dims == (8,)
