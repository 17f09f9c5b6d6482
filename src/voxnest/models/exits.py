"""Depth exits: an embedding pooled after an early stage of a network, for what the later ones would cost.

With prefixes that makes embeddings that are nested in two directions: how many numbers, and after how many stages.

Source: the idea of early exits, Teerapittayanon et al., BranchyNet (arXiv 1709.01686); that all stages of ReDimNet give
maps of one size is arXiv 2407.18223.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.parts import Backbone, Pooling

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.scoring import Calibration

Module = TypeVar("Module", bound=nn.Module)
Value = TypeVar("Value")


@runtime_checkable
class StagedBackbone(Backbone, Protocol):
    """A backbone that gives frames after some of its stages too: those that its configuration has as `exits`."""

    def exit_channels(self, stage: int) -> int:
        """Channels of the frames after a stage, counted from 1."""

    def frames_after(self, features: Any, stages: Sequence[int | None]) -> list[Tensor]:
        """`[batch, frames', channels]` after each of `stages` (None: the last), computing no stage beyond them."""

    def until(self, stage: int) -> nn.Module:
        """The same backbone, with the same weights, that ends there."""

    def settings_until(self, stage: int) -> dict[str, Any]:
        """The settings of its configuration that make a backbone that ends there."""


class Exit(nn.Module):
    """What makes an embedding of the frames after a stage, and what is known of it, as a `SpeakerEncoder` has it."""

    def __init__(self, pooling: nn.Module, head: MatryoshkaProjection) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head
        self.thresholds: dict[int, float] = {}
        self.calibration: dict[int, Calibration] = {}


def make_exits(config: Any, backbone: Backbone) -> nn.ModuleDict:
    """The exits that a configuration (an `EncoderSettings`) asks for.

    Raises:
        ConfigError: the backbone has none, or a size of embedding is to leave by one that is not there.
    """
    if config.exits and not isinstance(backbone, StagedBackbone):
        raise ConfigError("exits", f"{list(config.exits)} of a network that has none", "[]")
    for dim, stage in config.dim_exits.items():
        if stage not in config.exits or dim not in config.dims:
            found = f"stage {stage} for {dim} numbers"
            raise ConfigError(
                "dim_exits", found, f"some of the exits {list(config.exits)} and dims {list(config.dims)}"
            )
    made = nn.ModuleDict()
    for stage in config.exits:
        pooling: Pooling = config.make_pooling(cast(StagedBackbone, backbone).exit_channels(stage))
        made[str(stage)] = Exit(cast(nn.Module, pooling), config.make_head(pooling.out_channels))
    return made


def check_stages(exits: Sequence[int], count: int) -> None:
    """See that exits are stages of a network of `count`, ascending, and none is the last.

    Raises:
        ConfigError: they are not.
    """
    if list(exits) != sorted(set(exits)) or any(not 1 <= stage < count for stage in exits):
        raise ConfigError("exits", f"{list(exits)}", f"stages from 1 to {count - 1}, ascending")


def with_modules(module: Module, **replaced: nn.Module) -> Module:
    """A copy of a module that shares its parts but for those that are replaced."""
    changed = copy.copy(module)
    changed._modules = {**module._modules, **replaced}
    return changed


def at_exit(encoder: SpeakerEncoder, stage: int) -> SpeakerEncoder:
    """An encoder that ends at an exit of another, whose weights it shares; an ordinary one of its family.

    Raises:
        ConfigError: there is no such exit.
    """
    taken: Any = encoder.exits[encoder.check_exit(stage)]
    backbone: Any = encoder.backbone
    settings = {**backbone.settings_until(stage), "exits": [], "dim_exits": {}}
    found = type(encoder)(
        encoder.frontend,
        backbone.until(stage),
        taken.pooling,
        taken.head,
        architecture=encoder.architecture,
        name=f"{encoder.name}@{stage}",
        config={**encoder.config, **settings},
    )
    found.thresholds, found.calibration = dict(taken.thresholds), dict(taken.calibration)
    return found.train(encoder.training)


def named(values: Mapping[int | None, Mapping[int, Value]]) -> dict[str, Value]:
    """What is known of sizes of embedding after stages, in one: "64" is at the end, "64@2" after stage 2."""
    return {
        f"{dim}" if stage is None else f"{dim}@{stage}": value
        for stage, sizes in values.items()
        for dim, value in sizes.items()
    }


def by_exit(encoder: SpeakerEncoder, values: Mapping[str, Value]) -> dict[int | None, dict[int, Value]]:
    """What `named` gave, for every exit of an encoder and (None) its end.

    Raises:
        ConfigError: the encoder has no such size or exit.
    """
    found: dict[int | None, dict[int, Value]] = {stage: {} for stage in encoder.ends}
    known = named({stage: dict.fromkeys(encoder.dims) for stage in found})
    for name, value in values.items():
        if name not in known:
            raise ConfigError(name, "no size of embedding", f"one of {', '.join(known)}")
        dim, _, stage = name.partition("@")
        found[int(stage) if stage else None][int(dim)] = value
    return found


def set_thresholds(encoder: SpeakerEncoder, thresholds: Mapping[str, float]) -> None:
    """Let an encoder and its exits have these thresholds and no others; names as of `named`.

    Raises:
        ConfigError: the encoder has no such size or exit.
    """
    for stage, values in by_exit(encoder, thresholds).items():
        encoder.ends[stage].thresholds = values


def named_thresholds(encoder: SpeakerEncoder) -> dict[str, float]:
    """What `set_thresholds` sets."""
    return named({stage: end.thresholds for stage, end in encoder.ends.items()})


class AllEnds:
    """An `Embedder` that gives all embeddings of an encoder in one pass: `[batch, ends, dim]`, in the order of `ends`.

    What takes recordings through an embedder takes this one too; what it gives for each is then `[ends, dim]`.
    """

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """`[batch, samples]` float32 to every embedding `[batch, ends, embedding_dim]`."""
        encoder: Any = self.encoder
        with torch.inference_mode():
            samples = torch.from_numpy(waveform).to(next(encoder.parameters()).device)
            found = encoder.embed_exits(encoder.frontend(samples))
            full = [sizes[encoder.embedding_dim] for sizes in found.values()]
            return torch.stack(full, dim=1).float().cpu().numpy()
