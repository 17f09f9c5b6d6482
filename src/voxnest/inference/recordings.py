"""Which recordings a caller means: paths, folders, patterns."""

import glob
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from voxnest.audio import list_recordings
from voxnest.errors import AudioError, ConfigError

_EXPECTED = "paths of recordings (samples go to encoder(waveform))"


def recording_names(paths: str | Path | Iterable[str | Path]) -> list[str]:
    """The paths as strings, each once; a single one stands for itself.

    Raises:
        ConfigError: something else than paths.
    """
    if isinstance(paths, str | os.PathLike):
        paths = [paths]
    elif not isinstance(paths, Iterable) or isinstance(paths, bytes):
        raise ConfigError("paths", f"of type {type(paths).__name__}", _EXPECTED)
    names: dict[str, None] = {}
    for path in paths:
        if not isinstance(path, str | os.PathLike):
            raise ConfigError("paths", f"one of type {type(path).__name__}", _EXPECTED)
        names[str(path)] = None
    return list(names)


def find_recordings(
    places: str | Path | Iterable[str | Path], unlisted: Callable[[Path, str], None] | None = None
) -> list[str]:
    """Expand folders (searched at all depths, hidden files left out) and patterns such as `a/**/*.wav`.

    What is neither is given back as it is, whether it exists or not. Each recording is named once.

    Args:
        places: where to search.
        unlisted: called with each folder inside of these that cannot be searched, and why; all else is searched.

    Raises:
        AudioError: a folder of `places` cannot be searched, or there is no recording in it.
        ConfigError: something else than paths.
    """
    found: dict[str, None] = {}
    for place in recording_names(places):
        if os.path.isdir(place):
            failed: dict[Path, str] = {}
            recordings = list(map(str, list_recordings(Path(place), failed.__setitem__)))
            if reason := failed.get(Path(place)):
                raise AudioError(place, reason, "a folder that you may read")
            for folder, reason in failed.items():
                if unlisted is not None:
                    unlisted(folder, reason)
            if not recordings:
                raise AudioError(place, "no recordings in it", "files ending in .wav, .flac, .mp3, .m4a, ...")
        elif os.path.exists(place):  # a name may well hold [ or *
            recordings = [place]
        else:
            recordings = sorted(glob.glob(place, recursive=True)) or [place]
        found.update(dict.fromkeys(recordings))
    return list(found)
