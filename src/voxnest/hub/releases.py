"""Which published weights exist: one table. What its source does not list is not in it.

Sources: README.md and EVALUATION.md of IDRnD/ReDimNet, README.md of PalabraAI/redimnet2.
"""

import re
from dataclasses import dataclass, field

from voxnest.errors import ConfigError, one_of
from voxnest.zoo.cards import CARDS


@dataclass(frozen=True)
class Family:
    """Weights published in one place, under one licence.

    Attributes:
        architecture: what `voxnest.hub.convert` calls it.
        address: of the release; a file's address is this and its name.
        license: of the repository that publishes the weights.
    """

    architecture: str
    address: str
    license: str


@dataclass(frozen=True)
class Release:
    """One published file.

    Attributes:
        model: name in the registry.
        train_type: "ptn" (pretrained), "ft_lm" or "lm" (then large-margin fine-tuned), "ft_mix" (then fine-tuned with
            mixed augmentations), "dis" (distilled).
        dataset: what it was trained on: "vox2" VoxCeleb2, "vb2" VoxBlink2, "cnc" or "cnc2" CN-Celeb.
        file: its name, on the release's page and in a mirror.
        family: where it is published.
        eer: equal error rate in percent per test list as published, without score normalisation.
    """

    model: str
    train_type: str
    dataset: str
    file: str
    family: Family
    eer: dict[str, float] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Where the file is published."""
        return self.family.address + self.file


REDIMNET = Family("redimnet", "https://github.com/IDRnD/ReDimNet/releases/download/latest/", "MIT")
REDIMNET2 = Family("redimnet2", "https://github.com/PalabraAI/redimnet2/releases/download/v1.0.0/", "MIT")

_CROSS = ("Vox1-O", "Vox1-E", "Vox1-H", "SITW", "VOiCES", "CN-Celeb")
_CROSS2 = (*_CROSS[:3], "Vox1-B", *_CROSS[3:])

# Per model the file to take when nothing else is asked for comes first; its error rates are those on the model's card.
# (family, size, dataset, train type, test lists, EERs)
_ROWS: list[tuple[Family, str, str, str, tuple[str, ...], tuple[float, ...]]] = [
    (REDIMNET, "b0", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b0", "vox2", "ptn", (), ()),
    (REDIMNET, "b1", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b1", "vox2", "ptn", (), ()),
    (REDIMNET, "b2", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b2", "vox2", "ptn", (), ()),
    (REDIMNET, "b3", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b3", "vox2", "ptn", (), ()),
    (REDIMNET, "b4", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b4", "vox2", "ptn", (), ()),
    (REDIMNET, "b5", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b5", "vox2", "ptn", (), ()),
    (REDIMNET, "b6", "vox2", "ft_lm", (), ()),
    (REDIMNET, "b6", "vox2", "ptn", (), ()),
    (REDIMNET, "S", "vb2+vox2+cnc", "ft_mix", (), ()),
    (REDIMNET, "S", "vb2", "ptn", _CROSS, (1.542, 1.408, 2.505, 1.781, 3.987, 9.592)),
    (REDIMNET, "M", "vb2+vox2+cnc", "ft_mix", (), ()),
    (REDIMNET, "M", "vb2", "ptn", _CROSS, (1.319, 1.128, 2.000, 1.482, 4.116, 9.012)),
    # The README gives one row per size for VoxCeleb2 and recommends "lm"; those rates are taken to be of "lm".
    (REDIMNET2, "b0", "vox2", "lm", (), ()),
    (REDIMNET2, "b0", "vox2", "ptn", (), ()),
    (REDIMNET2, "b1", "vox2", "lm", (), ()),
    (REDIMNET2, "b1", "vox2", "ptn", (), ()),
    (REDIMNET2, "b2", "vox2", "lm", (), ()),
    (REDIMNET2, "b2", "vox2", "ptn", (), ()),
    (REDIMNET2, "b3", "vox2", "lm", (), ()),
    (REDIMNET2, "b3", "vox2", "ptn", (), ()),
    (REDIMNET2, "b3", "vb2+vox2+cnc2_v0", "lm", _CROSS2, (0.51, 0.60, 1.14, 1.72, 1.25, 3.87, 4.78)),
    (REDIMNET2, "b3", "vb2+vox2+cnc2_v0", "ptn", _CROSS2, (0.69, 0.82, 1.47, 2.16, 1.91, 5.96, 5.29)),
    (REDIMNET2, "b4", "vox2", "lm", (), ()),
    (REDIMNET2, "b4", "vox2", "ptn", (), ()),
    (REDIMNET2, "b5", "vox2", "lm", (), ()),
    (REDIMNET2, "b5", "vox2", "ptn", (), ()),
    (REDIMNET2, "b6", "vox2", "lm", (), ()),
    (REDIMNET2, "b6", "vox2", "ptn", (), ()),
    (REDIMNET2, "b6", "vb2+vox2_v0", "lm", _CROSS2, (0.23, 0.35, 0.67, 0.89, 0.74, 2.55, 7.49)),
    (REDIMNET2, "b6", "vb2+vox2_v0", "ptn", _CROSS2, (0.29, 0.50, 0.94, 1.27, 1.01, 3.25, 8.50)),
    (REDIMNET2, "b6", "vb2+vox2_v0", "dis", (), ()),
    (REDIMNET2, "b6", "vb2+vox2+cnc2_v0", "lm", _CROSS2, (0.26, 0.41, 0.79, 1.15, 0.87, 3.03, 3.59)),
    (REDIMNET2, "b6", "vb2+vox2+cnc2_v0", "ptn", _CROSS2, (0.42, 0.58, 1.07, 1.51, 1.15, 4.30, 4.32)),
]


def _releases() -> list[Release]:
    releases: dict[str, list[Release]] = {}
    for family, size, dataset, train_type, lists, eers in _ROWS:
        model, file = f"{family.architecture}-{size.lower()}", f"{size}-{dataset}-{train_type}.pt"
        eer = dict(zip(lists, eers, strict=True)) if model in releases else CARDS[model].published.eer
        releases.setdefault(model, []).append(Release(model, train_type, dataset, file, family, eer))
    return [release for of_model in releases.values() for release in of_model]


RELEASES = _releases()

# Early releases of ReDimNet were called redimnet-b2-vox2-lm.pt; the family in front also tells the two b2 apart.
_LONG_NAME = re.compile(r"^(redimnet2?-[^-]+)-(.+)-([^-]+)\.pt$", re.IGNORECASE)


def find_release(model: str, *, train_type: str | None = None, dataset: str | None = None) -> Release:
    """The published file that is asked for; of several the recommended one.

    Args:
        model: a name such as "redimnet-b2" (in any case), or a file name that begins with one, such as
            "redimnet-b2-vox2-lm.pt".
        train_type: see `Release`; "lm" and "ft_lm" mean the same.
        dataset: see `Release`; a trailing version ("_v0") may be left out.

    Raises:
        ConfigError: if there is none; it lists those there are.
    """
    long = _LONG_NAME.match(model)
    if long and train_type is None and dataset is None:
        return find_release(long[1], dataset=long[2], train_type=long[3])
    of_model = [release for release in RELEASES if release.model == model.lower()]
    if not of_model:
        raise ConfigError(
            "published weights",
            f"none for {model!r}",
            one_of(model, dict.fromkeys(release.model for release in RELEASES)),
        )
    for release in of_model:
        right_type = train_type is None or release.train_type.removeprefix("ft_") == train_type.removeprefix("ft_")
        if right_type and (dataset is None or dataset in (release.dataset, release.dataset.removesuffix("_v0"))):
            return release
    asked = " ".join(f"{key}={value}" for key, value in (("train_type", train_type), ("dataset", dataset)) if value)
    there = ", ".join(f"{release.train_type} on {release.dataset}" for release in of_model)
    raise ConfigError(model, f"no published weights with {asked}", there)


def names_release(source: str) -> bool:
    """Whether `source` is the name of a model with published weights, or the older kind of file name of one."""
    long = _LONG_NAME.match(source)
    name = (long[1] if long else source).lower()
    return any(release.model == name for release in RELEASES)


def published_models() -> list[str]:
    """Names of the models of which there are published weights."""
    return list(dict.fromkeys(release.model for release in RELEASES))
