"""The implementations that `architectures.py` compares ours with: where they are, and how each is built.

Only their files of models are used. Other packages that these import, and the start of their own packages, are not
needed to run a network, and may not be there: `open_sources` puts stand-ins in their place.
"""

import importlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

from torch import Tensor, nn

from voxnest.zoo.registry import CARDS

WHEELS = {"speechbrain": "1.1.2", "pyannote.audio": "4.0.7", "modelscope": "1.40.2", "einops": "0.8.2"}
"""Packages on the registry and their versions; einops is what pyannote.audio's pooling needs."""

BARE = ("speechbrain", "pyannote", "modelscope", "wespeaker", "redimnet", "redimnet2", "models", "aggregation")
"""Packages whose modules are loaded without what their `__init__.py` files import."""

STAND_INS = ("torchaudio", "timm", "speechbrain.utils.torch_audio_backend")
"""What the references import for front ends and for training."""


@dataclass(frozen=True)
class Reference:
    """One implementation of one architecture.

    Attributes:
        name: the architecture in our registry.
        source: the package on the registry, or the repository.
        module: where in it the network is.
        factory: class or function in that module.
        arguments: of the factory.
        ours: settings of ours that differ from the registry's, to match.
        frames_first: it takes `[batch, frames, bins]`, where ours takes `[batch, bins, frames]`.
        finish: what is left to do to the network.
    """

    name: str
    source: str
    module: str
    factory: str
    arguments: Mapping[str, Any]
    ours: Mapping[str, Any] = field(default_factory=dict)
    frames_first: bool = True
    finish: Callable[[nn.Module], nn.Module] = lambda model: model

    def find(self, folders: Sequence[Path]) -> bool:
        """Whether its module is in one of the folders."""
        return any((folder / self.module.replace(".", "/")).with_suffix(".py").exists() for folder in folders)

    def build(self) -> nn.Module:
        """The network with random weights, for inference; after `open_sources`."""
        network = getattr(importlib.import_module(self.module), self.factory)(**self.arguments)
        return self.finish(network).eval()

    def layout(self, features: Tensor) -> Tensor:
        """Features `[batch, bins, frames]` as the network takes them."""
        return features.transpose(1, 2).contiguous() if self.frames_first else features


def speechbrain_ecapa(name: str, channels: int, out_channels: int) -> Reference:
    arguments = {"input_size": 80, "channels": [channels] * 4 + [out_channels]}
    ours = {"out_channels": out_channels, "padding": "reflect", "aggregation_norm": True, "pooling": "CAS"}
    return Reference(name, "speechbrain", "speechbrain.lobes.models.ECAPA_TDNN", "ECAPA_TDNN", arguments, ours)


def modelscope(
    name: str, module: str, factory: str, ours: Mapping[str, Any] | None = None, **arguments: Any
) -> Reference:
    return Reference(name, "modelscope", f"modelscope.models.audio.sv.{module}", factory, arguments, ours or {})


def wespeaker(name: str, module: str, factory: str, **arguments: Any) -> Reference:
    return Reference(name, "wenet-e2e/wespeaker", f"wespeaker.models.{module}", factory, arguments)


def settings_of(name: str) -> Any:
    """Our settings of a registered name."""
    return CARDS[name].network.config_type(**CARDS[name].settings)


def next_tdnn(name: str) -> Reference:
    settings = settings_of(name)
    stages, channels = len(settings.blocks), settings.channels

    def finish(network: nn.Module) -> nn.Module:
        pool = importlib.import_module("aggregation.vap_bn_tanh_fc_bn").Aggregation
        return nn.Sequential(network, pool(stages * channels, stages * channels // 8, settings.dims[-1]))

    arguments = {
        "depths": list(settings.blocks),
        "dims": [channels] * stages,
        "kernel_size": settings.kernel_sizes[0] if settings.light else list(settings.kernel_sizes),
        "block": "TSConvNeXt_light" if settings.light else "TSConvNeXt",
    }
    repository = "dmlguq456/NeXt_TDNN_ASV"
    return Reference(name, repository, "models.NeXt_TDNN", "MainModel", arguments, frames_first=False, finish=finish)


def redimnet(name: str) -> Reference:
    settings = settings_of(name)
    arguments = {
        "F": settings.bins,
        "C": settings.channels,
        "block_1d_type": settings.block_1d,
        "block_2d_type": settings.block_2d,
        "group_divisor": settings.group_divisor,
        "out_channels": settings.out_channels,
        "global_context_att": settings.global_context,
        "feat_type": None,
    }
    if name.startswith("redimnet2-"):
        source, module, factory = "PalabraAI/redimnet2", "redimnet2.redimnet2", "ReDimNet2Wrap"
        arguments |= {"causal": "none", "return_2d_output": settings.mix_2d, "agg_gnorm": settings.norm_groups}
        arguments["stages_setup"] = settings.stages
    else:
        source, module, factory = "IDRnD/ReDimNet", "redimnet.model", "ReDimNetWrap"
        arguments["stages_setup"] = [(*stage[:3], [(3, 3)], stage[3]) for stage in settings.stages]
    return Reference(name, source, module, factory, arguments, frames_first=False, finish=without_frontend)


def without_frontend(network: nn.Module) -> nn.Module:
    network.spec = nn.Identity()
    return network


PYANNOTE = "pyannote.audio.models.embedding.wespeaker.resnet"
WIDTHS = {"feat_dim": 80, "embed_dim": 256, "two_emb_layer": False}

REFERENCES = [
    speechbrain_ecapa("ecapa-tdnn-512", 512, 1536),
    speechbrain_ecapa("ecapa-tdnn-1024", 1024, 3072),
    wespeaker("ecapa-tdnn-512", "ecapa_tdnn", "ECAPA_TDNN_GLOB_c512", feat_dim=80, embed_dim=192),
    wespeaker("ecapa-tdnn-1024", "ecapa_tdnn", "ECAPA_TDNN_GLOB_c1024", feat_dim=80, embed_dim=192),
    Reference(
        "xvector", "speechbrain", "speechbrain.lobes.models.Xvector", "Xvector", {"in_channels": 80}, {"embedding": "a"}
    ),
    replace(modelscope("xvector", "xvector", "XVEC", feat_dim=80), ours={"embedding": "a"}),
    modelscope("campplus", "DTDNN", "CAMPPlus"),
    *(
        Reference(f"resnet{layers}", "pyannote.audio", PYANNOTE, f"ResNet{layers}", WIDTHS)
        for layers in (18, 34, 50, 101, 152, 221, 293)
    ),
    wespeaker("simam-resnet34", "samresnet", "SimAM_ResNet34_ASP"),
    wespeaker("simam-resnet100", "samresnet", "SimAM_ResNet100_ASP"),
    wespeaker("res2net34", "res2net", "Res2Net34_Base", **WIDTHS),
    wespeaker("res2net34-large", "res2net", "Res2Net34_Large", **WIDTHS),
    *(
        wespeaker(f"gemini-dfresnet{layers}", "gemini_dfresnet", f"Gemini_DF_ResNet{layers}", **WIDTHS)
        for layers in (60, 114, 183, 237)
    ),
    modelscope("eres2net-base", "ERes2Net", "ERes2Net", m_channels=32),
    modelscope("eres2net-large", "ERes2Net", "ERes2Net", m_channels=64),
    modelscope("eres2net-aug", "ERes2Net_aug", "ERes2Net_aug"),
    modelscope("eres2netv2", "ERes2NetV2", "ERes2NetV2"),
    modelscope("eres2netv2-w24s4ep4", "ERes2NetV2", "ERes2NetV2", baseWidth=24, scale=4, expansion=4),
    *(next_tdnn(name) for name in CARDS if name.startswith("next-tdnn-")),
    *(redimnet(name) for name in CARDS if name.startswith("redimnet") and name != "redimnet-tiny"),
]


def fetch_wheels(folder: Path) -> Path:
    """The folder with the packages of `WHEELS`, downloaded to `folder` unless they are there.

    Raises:
        OSError: if the registry cannot be reached.
    """
    found = {name: list(folder.glob(f"{name.replace('.', '_')}-{version}-*.whl")) for name, version in WHEELS.items()}
    missing = [f"{name}=={WHEELS[name]}" for name, wheels in found.items() if not wheels]
    if missing:
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            str(folder),
        ]
        done = subprocess.run([*pip, *missing], capture_output=True, text=True)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line]
            raise OSError(f"{' '.join(missing)}: not downloaded ({said[-1] if said else 'pip failed'})")
    unpacked = folder / "unpacked"
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if name.endswith(".py")])
    return unpacked


class ReferenceFinder(MetaPathFinder, Loader):
    """Finds the modules of references in folders, and stand-ins for what they do not need."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = [str(folder) for folder in folders]

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if any(name == stand_in or name.startswith(f"{stand_in}.") for stand_in in STAND_INS):
            return ModuleSpec(name, self, is_package=True)
        if name.partition(".")[0] not in BARE:
            return None
        spec = PathFinder.find_spec(name, self.folders if path is None else path)
        if spec and spec.submodule_search_locations is not None:
            bare = ModuleSpec(name, None, is_package=True)
            bare.submodule_search_locations = spec.submodule_search_locations
            return bare
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return MagicMock(name=spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: a stand-in has every attribute."""


def open_sources(folders: Sequence[Path]) -> None:
    """Make the references in these folders importable."""
    sys.meta_path.insert(0, ReferenceFinder(folders))
    sys.path += [str(folder) for folder in folders]
    # What these modules take from the start of their packages, where they are there.
    if importlib.util.find_spec("modelscope"):
        models: Any = importlib.import_module("modelscope.models")
        models.MODELS, models.TorchModel = MagicMock(), nn.Module
    if importlib.util.find_spec("speechbrain"):
        importlib.import_module("speechbrain.nnet.containers")
