"""Depth exits: an embedding pooled after an early stage of a network, for what the later ones would cost.

With prefixes that makes embeddings that are nested in two directions: how many numbers, and after how many stages.

Source: the idea of early exits, Teerapittayanon et al., BranchyNet (arXiv 1709.01686); that all stages of ReDimNet give
maps of one size is arXiv 2407.18223.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor, nn

from voxnest.errors import ConfigError
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.parts import Backbone, Pooling

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

Module = TypeVar("Module", bound=nn.Module)


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
    """What makes an embedding of the frames after a stage."""

    def __init__(self, pooling: nn.Module, head: MatryoshkaProjection) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head


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
    own = [dim for dim, taken_at in encoder.dim_exits.items() if taken_at == stage]
    found.thresholds = {dim: encoder.thresholds[dim] for dim in own if dim in encoder.thresholds}
    found.calibration = {dim: encoder.calibration[dim] for dim in own if dim in encoder.calibration}
    return found.train(encoder.training)
