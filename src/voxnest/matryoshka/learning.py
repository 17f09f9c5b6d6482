"""A rotation that is learnt, from the one that is solved for: by how prefixes are used."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.matryoshka.rotation import discriminative_rotation

LONGEST = 64
"""The longest prefixes that are learnt for; longer ones lose next to nothing by directions that are solved for."""
STEPS, SPEAKERS = 150, 1024
RATE = 0.001
"""Small: what is turned further tells the speakers apart that it is shown, and others less well."""
AGREEMENT = 20.0
"""Weight of squared differences between the cosines of prefixes and of whole embeddings."""


def learned_rotation(
    embeddings: Tensor, speakers: Tensor, dims: Iterable[int], *, recordings: Tensor | None = None, seed: int = 0
) -> Tensor:
    """`discriminative_rotation`, turned on until cosines of prefixes are as they shall be.

    In each step, two embeddings each of many speakers: one shall find the other among all of them, by cosines of each
    prefix (a softmax, its scale learnt for each), and cosines of prefixes shall be those of whole embeddings. A
    discriminant analysis asks for ratios of variances instead, and knows nothing of cosines, to which a direction
    counts by its size. docs/results.md has what that gives.

    Args:
        embeddings: `[n, d]` of several pieces of each speaker; they are normalised in length.
        speakers: `[n]` whole numbers that name each one's speaker.
        dims: sizes of prefixes; those up to `LONGEST`, and below d, are learnt for.
        recordings: `[n]` whole numbers that name the recording each one is a piece of. The two of a speaker are then of
            different recordings, where there are several: two pieces of one have more in common than the voice.
        seed: of what is drawn.

    Returns:
        Orthogonal `[d, d]`, a direction in each row.

    Raises:
        ConfigError: as there, for fewer than two speakers of whom there are two embeddings, or recordings of another
            number.
    """
    start = discriminative_rotation(embeddings, speakers)
    size = len(start)
    if recordings is None:
        recordings = torch.arange(len(speakers))
    elif recordings.shape != speakers.shape:
        raise ConfigError("recordings", f"shape {list(recordings.shape)}", f"{list(speakers.shape)}, as the speakers")
    pairs = _Pairs(speakers, recordings, seed)
    short = sorted({dim for dim in dims if dim < size and dim <= LONGEST})
    if not short:
        return start
    unit = F.normalize(embeddings.float()) @ start.T
    turn = torch.zeros(size, size, requires_grad=True)
    scales = torch.full((len(short),), 3.0, requires_grad=True)  # logarithms: 20 at first
    optimizer = torch.optim.Adam([{"params": [turn], "lr": RATE}, {"params": [scales], "lr": 10 * RATE}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    with torch.enable_grad():
        for _ in range(STEPS):
            first, second = (unit[rows] for rows in pairs.draw(SPEAKERS))
            whole, rotation = first @ second.T, _orthogonal(turn)
            own = torch.arange(len(first))
            losses = []
            for dim, scale in zip(short, scales, strict=True):
                one, other = (F.normalize(side @ rotation[:dim].T) for side in (first, second))
                cosines = one @ other.T
                logits = scale.exp() * cosines
                found = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
                losses.append(found + AGREEMENT * (cosines - whole).square().mean())
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
    with torch.no_grad():
        return _orthogonal(turn.double()).float() @ start


class _Pairs:
    """Draws two embeddings each of different speakers who have them: of two recordings, of a speaker who has as many.

    Args:
        speakers: `[n]` whole numbers that name each one's speaker.
        recordings: `[n]` whole numbers that name each one's recording.
        seed: of what is drawn.

    Raises:
        ConfigError: no two speakers have two.
    """

    def __init__(self, speakers: Tensor, recordings: Tensor, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        both = torch.stack([speakers, recordings])
        names, heard = both.unique(dim=1)[0].unique(return_counts=True)
        # Of a speaker with one recording, each piece counts as one.
        alone = torch.isin(speakers, names[heard == 1])
        both[1] = torch.where(alone, torch.arange(len(speakers)), recordings)
        # In the order of speakers; what is of one recording is a block in it.
        _, block, sizes = both.unique(dim=1, return_inverse=True, return_counts=True)
        self.order = block.argsort(stable=True)
        block = block[self.order]
        self.block_sizes, self.block_starts = sizes[block], (sizes.cumsum(0) - sizes)[block]
        counts = speakers.unique(return_counts=True)[1]
        self.counts, self.starts = counts, counts.cumsum(0) - counts
        self.usable = (counts > 1).nonzero()[:, 0]
        if len(self.usable) < 2:
            raise ConfigError("speakers", f"{len(self.usable)} with two embeddings", "two of them")

    def draw(self, number: int) -> tuple[Tensor, Tensor]:
        """Rows of one embedding of each speaker, and of another one."""
        chosen = self.usable[torch.randperm(len(self.usable), generator=self.random)[:number]]
        counts, starts = self.counts[chosen], self.starts[chosen]
        one = starts + (torch.rand(len(chosen), generator=self.random) * counts).long()
        block = self.block_sizes[one]
        other = starts + (torch.rand(len(chosen), generator=self.random) * (counts - block)).long()
        other += torch.where(other >= self.block_starts[one], block, 0)
        return self.order[one], self.order[other]


def _orthogonal(free: Tensor) -> Tensor:
    """The orthogonal matrix that Cayley's transform makes of any square one; of zeros the identity."""
    skew = (free - free.T) / 2
    identity = torch.eye(len(skew), dtype=skew.dtype)
    return torch.linalg.solve(identity + skew, identity - skew)
