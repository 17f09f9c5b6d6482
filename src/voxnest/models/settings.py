"""From settings to a network: checked once for all families, before any memory is taken."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.overrides import TorchFunctionMode

from voxnest.errors import ConfigError
from voxnest.frontends.options import check_options
from voxnest.models.encoder import SpeakerEncoder

MOST_WEIGHTS = 2**28
"""The largest network that is built, in numbers: 1 GiB. The largest that was published has 67 million."""
MOST_TENSORS = 2**14
"""In how many tensors they may lie: those of the deepest published networks are a thousand."""
MALFORMED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What code raises that is given what it was not written for."""

Config = TypeVar("Config")
Build = Callable[[str, Mapping[str, Any]], SpeakerEncoder]


def builder(config_type: type[Config]) -> Callable[[Callable[[str, Config], SpeakerEncoder]], Build]:
    """Make a function of a name and a configuration one of a name and settings, the fields of the configuration.

    The network is made on the meta device first, without memory.

    Raises:
        ConfigError: by what is made, for a setting that is unknown, of another type, or of a size that cannot be, such
            as one that would make a network above `MOST_WEIGHTS`.
    """

    def decorate(assemble: Callable[[str, Config], SpeakerEncoder]) -> Build:
        @functools.wraps(assemble)
        def build(name: str, settings: Mapping[str, Any]) -> SpeakerEncoder:
            checked = check_options(name, config_type, settings)
            try:
                config = config_type(**checked)
                with torch.device("meta"), _Limits(name):
                    planned = assemble(name, config)
                return planned if torch.empty(0).is_meta else assemble(name, config)
            except MALFORMED as error:
                found = " ".join(str(error).split()) or type(error).__name__
                raise ConfigError(name, found, "sizes that fit together") from error

        return build

    return decorate


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
