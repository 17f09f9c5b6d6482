"""Read a configuration: YAML, then `key=value` overrides, checked once; write it resolved; compare two."""

import difflib
import itertools
import re
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from voxnest.errors import ConfigError
from voxnest.files import atomic_write
from voxnest.training.config import TrainingConfig

FREE_KEYS = (
    "output",
    "data.workers",
    "data.cache_gb",
    "trainer.accelerator",
    "trainer.log_every_steps",
    "trainer.save_every_minutes",
)
"""Keys that may change when a run is continued: they change nothing that is learnt."""
LENGTH_KEYS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_minutes")
"""Keys that say how long a training is."""


Config = TypeVar("Config", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number and a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read and check the configuration of a training; see `load`."""
    return load(TrainingConfig, path, overrides)


def load(kind: type[Config], path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration.

    Args:
        kind: of configuration, which has `output`, the run folder.
        path: a YAML file.
        overrides: `key=value` with dotted keys, such as `optimizer.lr=0.002`; values are YAML.

    Raises:
        ConfigError: the file cannot be read, or a key or value is wrong; it tells what would be right.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(path, f"cannot be read: {error.strerror}", "a YAML file") from error
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else path
        raise ConfigError(where, f"not YAML: {_reason(error)}", "key: value") from error
    if not isinstance(content, dict):
        raise ConfigError(path, "empty" if content is None else f"a {type(content).__name__}", "keys and values")
    sources: dict[str, str] = {}
    for override in overrides:
        key = _apply(kind, content, override)
        sources[key] = override
    try:
        config = kind.model_validate(content)
    except ValidationError as error:
        raise _explain(kind, error, path, sources) from error
    if config.output is None:  # type: ignore[attr-defined]
        config.output = Path("runs") / path.stem  # type: ignore[attr-defined]
    return config


def locate(
    error: ConfigError, path: str | Path, overrides: Sequence[str] = (), kind: type[BaseModel] = TrainingConfig
) -> ConfigError:
    """Say where a setting comes from that an error is about: the override, or the file.

    Args:
        error: of what was made of a configuration; its subject may be a key, or the last word of one.
        path: of the configuration.
        overrides: of it.
        kind: of configuration.

    Returns:
        An error about the override or the file, or the same one if it is about something else.
    """
    named = [key for key in known_keys(kind, optional=True) if error.subject in (key, key.rpartition(".")[2])]
    key = error.subject if error.subject.startswith("model.overrides") else next(iter(named), None)
    if key is None:
        return error
    asked = ((override.partition("=")[0].strip(), override) for override in reversed(overrides))
    where = next((text for at, text in asked if f"{key}.".startswith(f"{at}.") or at.startswith(f"{key}.")), path)
    return ConfigError(where, f"{key}: {error.found}", error.expected)


def dump_config(config: BaseModel, path: str | Path) -> None:
    """Write the resolved configuration as YAML that `load_config` reads back."""
    with atomic_write(path) as temporary:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def first_difference(old: BaseModel, new: BaseModel) -> tuple[str, Any, Any] | None:
    """Find the first dotted key, its old and new value, where two configurations differ (but `FREE_KEYS`)."""
    before, after = map(lasting_settings, (old, new))
    for key in dict.fromkeys([*after, *before]):
        if before.get(key) != after.get(key):
            return key, before.get(key), after.get(key)
    return None


def lasting_settings(config: BaseModel) -> dict[str, Any]:
    """What may not change while a run goes on: dotted key -> value as in JSON, without `FREE_KEYS`."""
    return {key: value for key, value in _flatten(config.model_dump(mode="json")) if key not in FREE_KEYS}


def known_keys(section: type[BaseModel] = TrainingConfig, prefix: str = "", *, optional: bool = False) -> Iterator[str]:
    """Every dotted key of the configuration, sections too; with `optional`, those of sections that may be null."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        for kind in (field.annotation, *(get_args(field.annotation) if optional else ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from known_keys(kind, f"{prefix}{name}.", optional=optional)


_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What the parser raises: ValueError for a date or a number that cannot be; and for brackets without end."""


def _reason(error: Exception) -> str:
    text = getattr(error, "problem", None) or str(error).splitlines()[0]
    return "too deep" if isinstance(error, RecursionError) else text


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-10:]}"


def _apply(kind: type[BaseModel], content: dict[str, Any], override: str) -> str:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals and Path(key).suffix in (".yaml", ".yml"):
        raise ConfigError(override, "a second configuration", "one file, then key=value")
    if not equals or not all(key.split(".")):
        raise ConfigError(override, "not an override", "key=value, such as optimizer.lr=0.002")
    try:
        value = yaml.load(text, Loader=_Loader)
    except _NOT_YAML as error:
        raise ConfigError(override, f"{_shorten(text)} is not a YAML value", "a number, a word, [a, list]") from error
    *sections, last = key.split(".")
    for depth, section in enumerate(sections, start=1):
        inner = content.get(section)
        if inner is None:
            inner = content[section] = {}
        if not isinstance(inner, dict):
            raise ConfigError(override, f"{'.'.join(sections[:depth])!r} is not a section", _nearest(kind, key))
        content = inner
    content[last] = value
    return key


def _explain(kind: type[BaseModel], error: ValidationError, path: Path, sources: dict[str, str]) -> ConfigError:
    """Turn the first of pydantic's findings into one line."""
    findings = error.errors(include_url=False)
    first, known = findings[0], set(known_keys(kind, optional=True))
    if first["type"] in ("extra_forbidden", "missing"):
        key = ".".join(map(str, first["loc"]))
    else:  # what follows the key are positions in a list and names of a union's members
        key = _longest_key(first["loc"], known)
    override = next((text for at, text in sources.items() if f"{key}.".startswith(f"{at}.")), None)
    override = override or next((text for at, text in sources.items() if at.startswith(f"{key}.")), None)
    subject = override or path
    if first["type"] == "extra_forbidden":
        asked = next((at for at in sources if at.startswith(f"{key}.")), key)
        return ConfigError(subject, f"unknown key {asked!r}", _nearest(kind, asked))
    if first["type"] == "missing":
        return ConfigError(subject, f"{key!r} is missing", f"{key}: VALUE")
    if first["type"] == "value_error":
        found, _, expected = first["msg"].removeprefix("Value error, ").partition("; expected ")
        return ConfigError(subject, f"{key} {found}".lstrip(), expected)
    same = [finding["msg"] for finding in findings if _longest_key(finding["loc"], known) == key]
    if first["type"] == "model_type":
        return ConfigError(subject, f"{key} is {_shorten(first['input'])}", "keys and values below it")
    wanted = dict.fromkeys(message.removeprefix("Input should be ") for message in same)
    return ConfigError(subject, f"{key} is {_shorten(first['input'])}", " or ".join(wanted))


def _longest_key(loc: Sequence[int | str], known: set[str]) -> str:
    keys = itertools.accumulate(map(str, loc), lambda before, part: f"{before}.{part}")
    return next((key for key in reversed(list(keys)) if key in known), "")


def _nearest(kind: type[BaseModel], key: str) -> str:
    """Name the nearest key: by spelling in the section, by the last word anywhere, by spelling anywhere."""
    known = list(known_keys(kind, optional=True))
    section, _, last = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    for candidates in (
        difflib.get_close_matches(key, siblings, n=1, cutoff=0.7),
        [k for k in known if k.rpartition(".")[2] == last],
        difflib.get_close_matches(key, known, n=1),
    ):
        if candidates:
            return repr(candidates[0])
    return "one of " + ", ".join(siblings or (k for k in known if "." not in k))


def _flatten(content: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and f"{prefix}{key}" != "model.overrides":
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
