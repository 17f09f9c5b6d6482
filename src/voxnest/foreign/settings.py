"""Translate the constructor arguments of a reference's class to settings of ours: a table per class says how."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from voxnest.errors import ConfigError, one_of

Rule = str | tuple[str, Mapping[Any, Any]] | Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]
"""What an argument is here: a setting; a setting with our value for each of theirs; or a function of the value and all
arguments, which gives settings."""


def dims(value: Any, _: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of the embedding's size."""
    return {"dims": (value,)}


@dataclass(frozen=True)
class Arguments:
    """The arguments of a reference's class.

    Attributes:
        rules: what each is here.
        only: values that an argument must have, where our models know no other.
        ignored: those that no embedding depends on.
        where: the beginning of what errors are about.
        off_is_absent: whether an unknown argument that is false, 0 or None says nothing.
    """

    rules: Mapping[str, Rule]
    only: Mapping[str, Collection[Any]] = field(default_factory=dict)
    ignored: Collection[str] = ()
    where: str = ""
    off_is_absent: bool = False

    @property
    def names(self) -> list[str]:
        """All arguments."""
        return [*self.rules, *self.only, *self.ignored]

    def translate(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Our settings; those that a function gives come before those of other arguments.

        Raises:
            ConfigError: for an argument that the class does not have, or whose value is not supported.
        """
        settings: dict[str, Any] = {}
        computed: dict[str, Any] = {}
        for key, value in config.items():
            rule = self.rules.get(key)
            if isinstance(rule, str):
                settings[rule] = value
            elif isinstance(rule, tuple):
                setting, choices = rule
                if value not in list(choices):
                    raise ConfigError(f"{self.where}{key}", repr(value), one_of(value, choices))
                settings[setting] = choices[value]
            elif rule:
                computed |= rule(value, config)
            elif key in self.only:
                if value not in self.only[key]:
                    raise ConfigError(f"{self.where}{key}", repr(value), " or ".join(map(repr, self.only[key])))
            elif key not in self.ignored and (value or not self.off_is_absent):
                raise ConfigError(f"{self.where}{key}", repr(value), one_of(key, self.names))
        return settings | computed

    def restore(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that mean these settings, of those with a name for each."""
        return {key: settings[rule] for key, rule in self.rules.items() if isinstance(rule, str) and rule in settings}
