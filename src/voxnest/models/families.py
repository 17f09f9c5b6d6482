"""All families of networks, by architecture; the code of each is imported when it is asked for."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from voxnest.models.family import Family

_MODULES = {
    "redimnet": "redimnet",
    "redimnet2": "redimnet2",
    "ecapa": "ecapa",
    "ecapa2": "ecapa2",
    "campplus": "campplus",
    "resnet": "resnet",
    "df-resnet": "df_resnet",
    "eres2net": "eres2net",
    "next-tdnn": "next_tdnn",
    "xvector": "xvector",
    "vgg-m": "vgg_m",
    "autospeech": "autospeech",
    "autospeech-resnet": "autospeech_resnet",
}


class _Families(Mapping[str, Family]):
    """Who embeds with one network waits for one module, not for thirteen."""

    def __getitem__(self, architecture: str) -> Family:
        family: Family = import_module(f"voxnest.models.{_MODULES[architecture]}").FAMILY
        return family

    def __iter__(self) -> Iterator[str]:
        return iter(_MODULES)

    def __len__(self) -> int:
        return len(_MODULES)


FAMILIES: Mapping[str, Family] = _Families()
