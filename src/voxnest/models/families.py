"""All families of networks, by architecture; the code of each is imported when it is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from voxnest.models.family import Family

_NAMES = (
    "redimnet",
    "redimnet2",
    "ecapa",
    "ecapa2",
    "campplus",
    "resnet",
    "df-resnet",
    "eres2net",
    "next-tdnn",
    "xvector",
    "vgg-m",
    "autospeech",
    "autospeech-resnet",
)
"""Each has a module, whose name has "_" for "-"."""


class _Families(Mapping[str, Family]):
    """Who embeds with one network waits for one module, not for thirteen."""

    def __getitem__(self, architecture: str) -> Family:
        if architecture not in _NAMES:
            raise KeyError(architecture)
        family: Family = import_module(f"voxnest.models.{architecture.replace('-', '_')}").FAMILY
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


FAMILIES: Mapping[str, Family] = _Families()
