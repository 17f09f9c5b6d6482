"""Typed errors that say what to do.

Every error that a user can cause is a `VoxnestError`. Its text is one line: what it is about (usually a file),
what was found, and what was expected. The command line prints that line and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class VoxnestError(Exception):
    """Base of all errors that a user's input can cause.

    Args:
        subject: what the error is about, usually a path.
        found: what was found there.
        expected: what would have been right, or what to do; may be empty.
    """

    def __init__(self, subject: object, found: str, expected: str = "") -> None:
        self.subject, self.found, self.expected = str(subject), found, expected
        super().__init__(self.subject, self.found, self.expected)

    def __str__(self) -> str:
        text = f"{self.subject}: {self.found}"
        return f"{text} (expected {self.expected})" if self.expected else text


class AudioError(VoxnestError):
    """A recording that cannot be used: missing, empty, truncated, not audio, non-finite, too short."""


class CheckpointError(VoxnestError):
    """A weights file that is missing, damaged, of another architecture, or unsafe to read."""


class ConfigError(VoxnestError):
    """A configuration or an argument that names something unknown or has a wrong value."""


class CorpusError(VoxnestError):
    """A corpus or manifest that is empty, malformed, or names what is not there."""


class TrialError(VoxnestError):
    """A trial list that is malformed, empty, or names recordings that are not there."""


class TrainingError(VoxnestError):
    """A training run that cannot go on, such as one whose loss is not finite."""


def one_of(name: object, names: Iterable[object], *, few: int = 12) -> str:
    """What to expect in place of an unknown name: the nearest of `names` if one is near, and all if they are few.

    Args:
        name: what was asked for.
        names: what there is.
        few: the most that are listed beside a near one.

    Examples:
        >>> one_of("redimnet-b22", ["redimnet-b1", "redimnet-b2"])
        "'redimnet-b2'? one of redimnet-b1, redimnet-b2"
    """
    known = {str(item).lower(): str(item) for item in names}
    near = difflib.get_close_matches(str(name).lower(), known, n=1)
    every = "one of " + ", ".join(known.values())
    if not near:
        return every
    return f"{known[near[0]]!r}?" + (f" {every}" if len(known) <= few else "")
