"""What a quickstart needs, as a table: where each piece is had, how large it is, where it goes, what it should hold.

Addresses are those of lhotse's recipes. Sizes are as servers and mirrors tell them, in November 2026; of MUSAN and
RIRS_NOISES, unpacked, they are estimates on the safe side. Numbers of VoxCeleb are official:
https://www.robots.ox.ac.uk/~vgg/data/voxceleb/ and Chung et al. (arXiv 1806.05622).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

ARCHIVES, LISTS = "archives", "lists"
"""Where downloads go in the folder of a quickstart."""
ACCESS = "https://mm.kaist.ac.kr/datasets/voxceleb/"
"""Where access to VoxCeleb is given."""


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        address: of the file.
        name: what it is called in `ARCHIVES` or `LISTS`.
        size: in bytes, about.
        guarded: whether its server asks for a password.
    """

    address: str
    name: str
    size: int
    guarded: bool = False


@dataclass(frozen=True)
class Piece:
    """A corpus in an archive.

    Attributes:
        title: what it is called.
        downloads: the parts of the archive, in order.
        unpacked: its size on disk in bytes, about.
        folder: what it is unpacked into.
        corpus: the folder whose recordings count, `<speaker>/...` where speakers count; in it or below it.
        recordings: how many there should be.
        speakers: how many there should be; None where they do not count.
        meta: the list that names the speakers, and by which word at the end of a line those of this piece.
    """

    title: str
    downloads: tuple[Download, ...]
    unpacked: int
    folder: str
    corpus: str
    recordings: int
    speakers: int | None = None
    meta: tuple[str, str] | None = None

    @property
    def size(self) -> int:
        """Of the archive, in bytes, about."""
        return sum(download.size for download in self.downloads)


@dataclass(frozen=True)
class Pieces:
    """All that a quickstart needs.

    Attributes:
        train: the corpus to train on.
        test: the recordings of the trials.
        noise: recordings of noise.
        rooms: room impulse responses.
        noises: the folders of `noise` that are mixed with speech.
        trials: a trial list.
        other_trials: names of lists that do as well, if one is there.
        trial_counts: how many trials such a list may have.
        metas: lists of speakers.
    """

    train: Piece
    test: Piece
    noise: Piece
    rooms: Piece
    noises: tuple[str, ...]
    trials: Download
    other_trials: tuple[str, ...]
    trial_counts: tuple[int, ...]
    metas: tuple[Download, ...]

    @property
    def archived(self) -> tuple[Piece, ...]:
        """Those that come in archives, the smallest risk first: what needs a password is known before hours pass."""
        return (self.test, self.train, self.noise, self.rooms)


def with_prefix(pieces: Pieces, prefix: str) -> Pieces:
    """The same, but what needs a password is had from `prefix` and its name: a link with a key, say."""

    def moved(piece: Piece) -> Piece:
        downloads = (replace(item, address=prefix + item.name) if item.guarded else item for item in piece.downloads)
        return replace(piece, downloads=tuple(downloads))

    return replace(pieces, train=moved(pieces.train), test=moved(pieces.test))


def voxceleb() -> Pieces:
    """VoxCeleb2 dev to train on, VoxCeleb1's test speakers to measure on, MUSAN and simulated rooms to augment."""
    from lhotse.recipes import musan, rir_noise
    from lhotse.recipes import voxceleb as recipe

    parts = [address for address in recipe.VOXCELEB2_PARTS_URL if "_dev_" in address]
    (test,) = (address for address in recipe.VOXCELEB1_PARTS_URL if address.endswith("_test_wav.zip"))
    metas = [recipe.VOXCELEB1_PARTS_URL[-1], recipe.VOXCELEB2_PARTS_URL[-1]]
    sizes = [10 << 30] * (len(parts) - 1) + [2_315_355_528]
    return Pieces(
        train=Piece(
            "VoxCeleb2 dev",
            tuple(_download(address, size, guarded=True) for address, size in zip(parts, sizes, strict=True)),
            unpacked=80_000_000_000,
            folder="voxceleb2",
            corpus="voxceleb2/dev/aac",
            recordings=1_092_009,
            speakers=5_994,
            meta=("vox2_meta.csv", "dev"),
        ),
        test=Piece(
            "VoxCeleb1 test",
            (_download(test, 1_070_000_000, guarded=True),),
            unpacked=1_300_000_000,
            folder="voxceleb1",
            corpus="voxceleb1/wav",
            recordings=4_874,
            speakers=40,
            meta=("vox1_meta.csv", "test"),
        ),
        noise=Piece("MUSAN", (_download(musan.MUSAN_URL, 11_100_000_000),), 12_500_000_000, ".", "musan", 2_016),
        rooms=Piece(
            "RIRS_NOISES",
            (_download(rir_noise.RIR_NOISE_ZIP_URL, 1_300_000_000),),
            unpacked=4_500_000_000,
            folder=".",
            corpus="RIRS_NOISES/simulated_rirs",
            recordings=60_000,
        ),
        noises=("musan/noise", "musan/music"),
        trials=_download(recipe.VOXCELEB1_TRIALS_URL, 2_400_000),
        other_trials=("veri_test2.txt", "veri_test.txt"),
        trial_counts=(37_611, 37_720),
        metas=(_download(metas[0], 41_000), _download(metas[1], 159_000)),
    )


def _download(address: str, size: int, *, guarded: bool = False) -> Download:
    return Download(address, PurePosixPath(address).name, size, guarded)


CORPORA: dict[str, Callable[[], Pieces]] = {"voxceleb": voxceleb}
"""Quickstarts by name; the addresses are looked up when one is called."""
