"""Check arguments that come from a configuration or a file against the annotations of what takes them."""

import inspect
import math
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from voxnest.errors import ConfigError, one_of

LARGEST = 2**18
"""No whole number may be larger: that is a slip or a damaged file, and would take all memory or for ever."""

_WORDS = {"missing": "another item", "is_instance_of": "a list"}  # for those of pydantic that say less


def check_options(subject: str, takes: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring arguments to their types, as a training configuration does with its own: "7" is the number 7.

    Args:
        subject: what errors are about.
        takes: a function, or a class; what has `**options` in its constructor takes those of its bases too.
        given: by name.

    Raises:
        ConfigError: for an unknown name, another type, or a number that is not finite or above `LARGEST`.
    """
    hints = _hints(takes)
    checked = {}
    for key, value in given.items():
        if key not in hints:
            raise ConfigError(f"{subject}: {key}", "unknown setting", one_of(key, hints))
        checked[key] = value if _is_plainly(value, hints[key]) else _brought(subject, key, value, takes)
        for number in _whole_numbers(checked[key]):
            if abs(number) > LARGEST:
                raise ConfigError(f"{subject}: {key}", reprlib.repr(number), f"at most {LARGEST:,}")
    return checked


@lru_cache
def _hints(takes: Callable[..., Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    bases = inspect.getmro(takes) if inspect.isclass(takes) else ()
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [takes]:
        parameters, known = inspect.signature(function).parameters.values(), get_type_hints(function)
        named = (item.name for item in parameters if item.kind is not item.VAR_KEYWORD and item.name in known)
        hints |= {name: known[name] for name in named if name not in hints}
        if not any(item.kind is item.VAR_KEYWORD for item in parameters):
            break
    return hints


def _is_plainly(value: Any, hint: Any) -> bool:
    """Whether a value is of a type as it stands, as those in our own files are: to import pydantic and to tell it all
    types takes longer than the default model needs to be built, loaded and used."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_is_plainly(value, item) for item in inner)
    if origin is Literal:
        return any(type(value) is type(item) and value == item for item in inner)
    if origin is Sequence:
        return type(value) in (list, tuple) and all(_is_plainly(item, inner[0]) for item in value)
    if origin is Mapping:
        each = value.items() if type(value) is dict else ()
        fit = all(_is_plainly(key, inner[0]) and _is_plainly(item, inner[1]) for key, item in each)
        return type(value) is dict and fit
    return type(value) is hint and (hint is not float or math.isfinite(value))


@lru_cache
def _adapter(takes: Callable[..., Any], key: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(_hints(takes)[key], config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))


def _brought(subject: str, key: str, value: Any, takes: Callable[..., Any]) -> Any:
    """The value of an argument in its type, by pydantic."""
    from pydantic import ValidationError

    try:
        return _adapter(takes, key).validate_python(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = key + "".join(f"[{part}]" for part in first["loc"] if isinstance(part, int))
        expected = _WORDS.get(first["type"], first["msg"].removeprefix("Input should be ").split(",")[0])
        raise ConfigError(f"{subject}: {place}", reprlib.repr(first["input"]), expected) from None


def _whole_numbers(value: Any) -> Iterable[int]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, int):
        yield value
