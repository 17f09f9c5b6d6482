"""Markup from values: everything is escaped, unless it is `Markup` already."""

from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = object
"""What an element may hold: `Markup`, any other value (its text is escaped), or None, which is nothing."""


def markup(*children: Child) -> Markup:
    """One after the other."""
    return Markup("".join(map(_text, children)))


def tag(name: str, *children: Child, **attributes: object) -> Markup:
    """An element.

    Args:
        name: such as "p".
        children: what it holds.
        attributes: `class_` is `class`, `data_value` is `data-value`; True is an attribute without value, None and
            False are none.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            words.append(f'{key}="{escape(str(value))}"')
    return Markup(f"<{' '.join(words)}>{markup(*children)}</{name}>")


def _text(child: Child) -> str:
    if child is None:
        return ""
    return child if isinstance(child, Markup) else escape(str(child))
