"""Checkpoints of the official NeXt-TDNN load from the file alone; what does not fit is refused in one line."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn

import golden_files
from voxnest import load_encoder, save_encoder
from voxnest.errors import CheckpointError
from voxnest.frontends import create_frontend
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.cards.next_tdnn import CARDS

Weights = dict[str, Tensor]


@cache
def read_golden(golden: Path, name: str) -> tuple[dict[str, Any], Weights]:
    file = golden_files.read(golden / f"next-tdnn-{name}.json.gz")
    return file, golden_files.make_state_dict(file)


def agrees(encoder: SpeakerEncoder, file: dict[str, Any]) -> bool:
    expected = golden_files.expected(file)
    with torch.inference_mode():
        embedding = encoder.embed_features(golden_files.make_input(file))
    assert isinstance(embedding, Tensor)
    return not encoder.training and bool((embedding - expected).abs().max() <= golden_files.bound(expected))


def make_official(
    channels: int = 8, blocks: Sequence[int] = (1, 1, 1), kernel_sizes: Sequence[int] = (3, 5), light: bool = False
) -> Weights:
    """Weights with the keys and shapes of the official classes, with 80 bins and 192 numbers in the embedding."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(key: str, *shape: int) -> None:
        shapes[f"model.{key}.weight"], shapes[f"model.{key}.bias"] = shape, shape[:1]

    add("stem.0.0", channels, 80, 4)
    add("stem.0.1", channels)
    for stage, count in enumerate(blocks):
        for block in (f"stages.{stage}.{index}" for index in range(count)):
            if light:
                add(f"{block}.dwconv", channels, 1, kernel_sizes[0])
            else:
                add(f"{block}.projection_linear", channels, channels, 1)
                for scale, size in enumerate(kernel_sizes):
                    add(f"{block}.mscconv.{scale}", channels // len(kernel_sizes), 1, size)
                add(f"{block}.pwconv_1stage", channels, channels)
            add(f"{block}.norm", channels)
            add(f"{block}.pwconv1", 4 * channels, channels)
            shapes[f"model.{block}.grn.gamma"] = shapes[f"model.{block}.grn.beta"] = (1, 1, 4 * channels)
            add(f"{block}.pwconv2", channels, 4 * channels)
    wide = len(blocks) * channels
    add("MFA.0", wide, wide, 1)
    add("MFA.1", wide)
    weights = {key: torch.zeros(shape) for key, shape in shapes.items()}
    return weights | make_pooling("conv_1 conv_2 bn1 bn2 fc bn3", wide, (wide // 8, 2 * wide, 192), 2 * wide)


def make_pooling(layers: str, channels: int, norms: Sequence[int], pooled: int) -> Weights:
    """Weights of one of the official aggregations; `norms` are the widths of its batch normalisations."""
    shapes: dict[str, tuple[int, ...]] = {
        "conv_1": (channels // 8, channels, 1),
        "conv_2": (channels, channels // 8, 1),
        "asp_linear": (channels, channels),
        "sap_linear": (channels, channels),
        "fc": (192, pooled),
        **{f"bn{index}": (width,) for index, width in enumerate(norms, 1)},
    }
    weights: Weights = {}
    for layer in layers.split():
        weights[f"aggregate.{layer}.weight"] = torch.zeros(shapes[layer])
        weights[f"aggregate.{layer}.bias"] = torch.zeros(shapes[layer][0])
        if layer.startswith("bn"):
            weights |= {f"aggregate.{layer}.running_{part}": torch.ones(shapes[layer]) for part in ("mean", "var")}
            weights[f"aggregate.{layer}.num_batches_tracked"] = torch.tensor(7)
    return weights


class Engine(L.LightningModule):
    """Trains as the official one does, with a learning rate of 0: the weights stay as they are."""

    def __init__(self, speaker_net: nn.Module, eval_config: dict[str, Any], code_save_time: str) -> None:
        super().__init__()
        self.speaker_net = speaker_net
        self.loss_function = speaker_net.loss_function
        self.save_hyperparameters(ignore=["speaker_net"])

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        loss = torch.stack([weight.square().sum() for weight in self.parameters()]).sum()
        self.log("min_eer", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": torch.optim.lr_scheduler.CyclicLR(optimizer, 0.0, 0.0, mode="triangular2"),
        }


def nest(weights: Weights) -> nn.Module:
    """A module that has just these keys."""
    root = nn.Module()
    for key, value in weights.items():
        module, (*path, leaf) = root, key.split(".")
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        if "running_" in leaf or leaf == "num_batches_tracked" or "feature_extractor" in path:
            module.register_buffer(leaf, value)
        else:
            module.register_parameter(leaf, nn.Parameter(value.clone()))
    return root


def make_frontend_constants() -> Weights:
    """What the official front end keeps among the weights."""
    mel = create_frontend("mel", 80)
    return {
        "feature_extractor.pre_emphasis.flipped_filter": torch.tensor([[[-0.97, 1.0]]]),
        "feature_extractor.mel_spectrogram.spectrogram.window": torch.hamming_window(400),
        "feature_extractor.mel_spectrogram.mel_scale.fb": mel.get_buffer("filters"),
    }


@pytest.mark.filterwarnings("ignore")
def test_a_file_as_lightning_writes_it_gives_the_official_embedding(golden: Path, tmp_path: Path) -> None:
    file, weights = read_golden(golden, "light-c128-b3")
    weights = {key.replace("aggregation.", "aggregate."): value for key, value in weights.items()}
    weights |= {**make_frontend_constants(), "loss_function.weight": torch.ones(10, 192)}
    engine = Engine(nest(weights), {"method": "num_seg", "num_eval": 2, "p_target": 0.05}, "20240101000000")
    trainer = L.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[ModelCheckpoint(tmp_path / "kept", monitor="min_eer", every_n_train_steps=1)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(engine, torch.utils.data.DataLoader([torch.zeros(1)]))
    path = tmp_path / "s-epoch=0-min_eer=0.79.ckpt"
    trainer.save_checkpoint(path)
    written = torch.load(path, weights_only=True)
    assert {"optimizer_states", "lr_schedulers", "callbacks", "hyper_parameters", "loops"} <= set(written)
    assert {"speaker_net.model.MFA.0.weight", "speaker_net.aggregate.bn3.weight", "loss_function.weight"} <= set(
        written["state_dict"]
    )
    encoder = load_encoder(path)
    assert encoder.name == "next-tdnn-light-128-b3"
    assert agrees(encoder, file)
    assert encoder(torch.randn(1, 16000)).shape == (1, 192)


@pytest.mark.parametrize("name", ["c128-b3", "light-c128-b3"])
@pytest.mark.parametrize("prefix", ["", "module.", "speaker_net.", "module.speaker_net.", "speaker_net.module."])
def test_a_bare_state_dict_gives_the_official_embedding(golden: Path, tmp_path: Path, name: str, prefix: str) -> None:
    file, weights = read_golden(golden, name)
    torch.save({prefix + key: value for key, value in weights.items()}, tmp_path / "model.pt")
    encoder = load_encoder(tmp_path / "model.pt")
    assert encoder.name == f"next-tdnn-{name}".replace("-c", "-")
    assert agrees(encoder, file)


def test_the_keys_made_here_are_the_official_ones(golden: Path) -> None:
    for name in ("c128-b3", "c256-b3", "light-c128-b3", "light-c256-b3"):
        expected = {
            key.replace("aggregation.", "aggregate."): shape for key, shape in read_golden(golden, name)[0]["keys"]
        }
        settings = CARDS[f"next-tdnn-{name}".replace("-c", "-")].settings
        assert {key: list(value.shape) for key, value in make_official(**settings).items()} == expected


@pytest.mark.parametrize("name", list(CARDS))
def test_every_size_of_the_registry_is_known_by_its_weights(tmp_path: Path, name: str) -> None:
    torch.save({"state_dict": make_official(**CARDS[name].settings)}, tmp_path / "model.pt")
    encoder = load_encoder(tmp_path / "model.pt")
    assert encoder.name == name
    assert {key: encoder.config[key] for key in CARDS[name].settings} == CARDS[name].settings
    assert (encoder.config["bins"], encoder.config["dims"]) == (80, (192,))


def test_a_size_without_a_name_keeps_its_settings(tmp_path: Path) -> None:
    weights = make_official(12, (1, 2), (3, 5, 9))
    weights["aggregate.fc.weight"] = torch.zeros(32, 48)
    weights |= {
        key: value[:32]
        for key, value in weights.items()
        if key.startswith(("aggregate.bn3.", "aggregate.fc.b")) and value.ndim
    }
    weights["model.stem.0.0.weight"] = torch.zeros(12, 40, 4)
    torch.save(weights, tmp_path / "model.pt")
    encoder = load_encoder(tmp_path / "model.pt")
    save_encoder(encoder, tmp_path / "own.safetensors")
    for same in (encoder, load_encoder(tmp_path / "own.safetensors")):
        assert (same.architecture, same.name) == ("next-tdnn", "next-tdnn")
        found = {key: same.config[key] for key in ("bins", "channels", "light", "mask_bins")}
        assert found == {"bins": 40, "channels": 12, "light": False, "mask_bins": 0}
        assert [list(same.config[key]) for key in ("blocks", "kernel_sizes", "dims")] == [[1, 2], [3, 5, 9], [32]]


def without(*keys: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: value for key, value in weights.items() if not key.startswith(keys)}


def having(**changes: Any) -> Callable[[Weights], Weights]:
    return lambda weights: {**weights, **{key.replace("__", "."): value for key, value in changes.items()}}


def pooled_by(layers: str, norms: Sequence[int], pooled: int) -> Callable[[Weights], Weights]:
    return lambda weights: without("aggregate.")(weights) | make_pooling(layers, 24, norms, pooled)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("model.stem.0.1"), r"2 missing keys: backbone\.stem_norm\.bias"),
        (without("model.stem.0.0"), r"without 'model\.stem\.0\.0\.weight'"),
        (without("model.stages"), r"without 'model\.stages\.0\.0\.mscconv\.0\.weight'"),
        (without("model.stages.1"), r"blocks: \[1, 0\]"),
        (without("aggregate.bn3"), "missing keys: head.out_norm"),
        (having(model__new__weight=torch.zeros(1)), r"unexpected key: 'model\.new\.weight'"),
        (having(model__stem__0__0__weight=torch.zeros(8)), r"'model\.stem\.0\.0\.weight' of shape \[8\].*2 axes"),
        (having(model__MFA__0__bias=torch.zeros(25)), r"'model\.MFA\.0\.bias' of shape \[25\].*\[24\]"),
        (having(model__MFA__0__bias=[0.0] * 24), r"'model\.MFA\.0\.bias' is a list.*a tensor"),
        (having(model__stages__0__0__mscconv__1__weight=torch.zeros(4, 1, 6)), r"kernel_sizes: \[3, 6\].*odd"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, change: Callable[[Weights], Weights], says: str
) -> None:
    refuse(tmp_path, {"state_dict": change(make_official())}, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (pooled_by("asp_linear fc", (), 48), "'asp_fc'.*'vap_bn_tanh_fc_bn'"),
        (pooled_by("sap_linear fc", (), 24), "'sap_fc'.*'vap_bn_tanh_fc_bn'"),
        (pooled_by("conv_1 conv_2 bn1 fc bn2", (48, 192), 48), "'vap_bn_fc_bn'.*'vap_bn_tanh_fc_bn'"),
        (pooled_by("conv_1 conv_2 bn1 fc bn2", (24, 192), 24), "'vsap_bn_fc_bn'.*'vap_bn_tanh_fc_bn'"),
        (without("aggregate."), r"without 'aggregate\.fc\.weight'"),  # aggregation/identity.py
    ],
)
def test_other_official_aggregations_are_refused_by_name(
    tmp_path: Path, change: Callable[[Weights], Weights], says: str
) -> None:
    refuse(tmp_path, {"state_dict": change(make_official())}, says)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pre_emphasis.flipped_filter", torch.tensor([[[-0.95, 1.0]]])),
        ("mel_spectrogram.spectrogram.window", torch.hann_window(400)),
        ("mel_spectrogram.mel_scale.fb", torch.zeros(201, 80)),  # n_fft of 400
    ],
)
def test_a_model_for_other_features_is_refused(tmp_path: Path, key: str, value: Tensor) -> None:
    weights = make_official() | make_frontend_constants() | {f"feature_extractor.{key}": value}
    refuse(tmp_path, {"state_dict": weights}, rf"'feature_extractor\.{key}' of other features")


@pytest.mark.parametrize(
    ("state_dict", "says"),
    [
        ({"encoder.conv.weight": torch.zeros(1)}, r"another model \('encoder\.conv\.weight'\).*NeXt-TDNN"),
        ({}, r"another model \(nothing\)"),
    ],
)
def test_another_lightning_model_is_refused_with_its_keys(tmp_path: Path, state_dict: Weights, says: str) -> None:
    refuse(tmp_path, {"pytorch-lightning_version": "2.1.2", "state_dict": state_dict, "epoch": 3}, says)


def test_a_cut_file_and_one_with_code_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path, {"state_dict": make_official(), "hyper_parameters": {"model": nn.Linear(1, 1)}}, "would run code")
    path = tmp_path / "model.ckpt"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.ckpt: damaged or cut"):
        load_encoder(path)


def refuse(folder: Path, contents: object, says: str) -> None:
    path = folder / "model.ckpt"
    torch.save(contents, path)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_encoder(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
