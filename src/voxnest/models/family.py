"""A family of networks is a record: what it is called, its configuration, and how an encoder is put together from it.

Settings are checked once for all families, before any memory is taken.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from voxnest.errors import ConfigError
from voxnest.frontends import Frontend, SpecAugment, create_frontend
from voxnest.frontends.options import check_options
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.exits import make_exits
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.parts import Backbone, Pooling

MOST_WEIGHTS = 2**28
"""The largest network that is built, in numbers: 1 GiB. The largest that was published has 67 million."""
MOST_TENSORS = 2**14
"""In how many tensors they may lie: those of the deepest published networks are a thousand."""
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What code raises that is given what it was not written for."""


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """What the configuration of every family has: what an encoder hears, and how its parts but the backbone are made.

    A family overrides `make_pooling`, and what else it needs differently.

    Attributes:
        bins: features per frame.
        frontend: one of `voxnest.frontends.FRONTENDS`.
        frontend_options: its further arguments.
        mask_bins: largest number of frequency bins that SpecAugment hides in training; 0 for none.
        mask_frames: largest number of frames that SpecAugment hides in training; 0 for none.
        level: that every waveform is brought to, in dB relative to full scale; None for the waveform as it is.
        dims: sizes of the embedding; see `MatryoshkaProjection`.
        exits: stages, counted from 1, after which an embedding can be had too; see `voxnest.models.exits`.
        dim_exits: after which of them sizes of the embedding are had unless something else is asked for.
    """

    bins: int = 80
    frontend: str = "fbank"
    frontend_options: Mapping[str, Any] = field(default_factory=dict)
    mask_bins: int = 0
    mask_frames: int = 0
    level: float | None = None
    dims: Sequence[int] = (192,)
    exits: Sequence[int] = ()
    dim_exits: Mapping[int, int] = field(default_factory=dict)

    def make_frontend(self, **options: Any) -> Frontend:
        """The front end; `options` are those that the network asks for, which `frontend_options` may replace."""
        options = {"level": self.level, **options, **self.frontend_options}
        if masks := SpecAugment.up_to(self.mask_bins, self.mask_frames):
            options["spec_augment"] = masks
        return create_frontend(self.frontend, self.bins, **options)

    def make_pooling(self, channels: int) -> Pooling:
        """The pooling of a backbone's output."""
        raise NotImplementedError

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """The head on the pooling's output."""
        return MatryoshkaProjection(in_features, self.dims)


Config = TypeVar("Config", bound=EncoderSettings)


class Parts(NamedTuple):
    """What an encoder is made of; backbone and pooling are also what `Backbone` and `Pooling` say."""

    frontend: Frontend
    backbone: nn.Module
    pooling: nn.Module
    head: MatryoshkaProjection
    exits: nn.ModuleDict


@dataclass(frozen=True)
class Family(Generic[Config]):
    """A family of networks.

    Attributes:
        architecture: what it is called, in checkpoints too.
        config_type: its configuration, a dataclass.
        backbone: makes the network from a configuration.
    """

    architecture: str
    config_type: type[Config]
    backbone: Callable[[Config], Backbone]

    @property
    def settings(self) -> list[str]:
        """The names of the fields of its configuration."""
        return [item.name for item in dataclasses.fields(self.config_type)]

    def build(self, settings: Mapping[str, Any], name: str | None = None) -> SpeakerEncoder:
        """An untrained encoder. The network is made on the meta device first, without memory.

        Args:
            settings: fields of the configuration.
            name: a label; the architecture if None.

        Raises:
            ConfigError: a setting that is unknown, of another type, or of a size that cannot be, such as one that would
                make a network above `MOST_WEIGHTS`.
        """
        name = name or self.architecture
        checked = check_options(name, self.config_type, settings)
        try:
            config = self.config_type(**checked)
            with torch.device("meta"), _Limits(name):
                parts = self.assemble(config)
            if not torch.empty(0).is_meta:
                parts = self.assemble(config)
        except MALFORMED as error:
            found = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(name, found, "sizes that fit together") from error
        described = dataclasses.asdict(config)
        return SpeakerEncoder(*parts, architecture=self.architecture, name=name, config=described)

    def assemble(self, config: Config) -> Parts:
        """The parts of an encoder, untrained."""
        backbone = self.backbone(config)
        pooling = config.make_pooling(backbone.out_channels)
        head = config.make_head(pooling.out_channels)
        frontend = config.make_frontend(min_frames=backbone.min_frames)
        exits = make_exits(config, backbone)
        return Parts(frontend, cast(nn.Module, backbone), cast(nn.Module, pooling), head, exits)


class _Limits(TorchFunctionMode):
    """Count the numbers of weights as they are made; no or too many of them are a `ConfigError` about `name`."""

    _MAKERS = (torch.empty, torch.zeros, torch.ones, torch.randn)

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.numbers, self.tensors = name, 0, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func in self._MAKERS and made.device.type == "meta":
            if not made.numel():
                raise ConfigError(self.name, f"a weight of shape {list(made.shape)}", "sizes of at least 1")
            self.numbers, self.tensors = self.numbers + made.numel(), self.tensors + 1
            if self.numbers > MOST_WEIGHTS or self.tensors > MOST_TENSORS:
                expected = f"at most {MOST_WEIGHTS:,} numbers in {MOST_TENSORS:,} tensors"
                raise ConfigError(self.name, "a network that is too large", expected)
        return made
