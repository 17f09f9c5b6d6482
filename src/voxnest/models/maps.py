"""Backbones whose stages give 1-D maps of one size, which can be weighed into one: ReDimNet and ReDimNet2.

So they may end after any stage; see `voxnest.models.exits`.
"""

from collections.abc import Sequence
from typing import Any, Self

from torch import Tensor, nn

from voxnest.models.exits import with_modules


class MapsBackbone(nn.Module):
    """A network of `stages`; at its end, and at each exit, a weighted sum of all maps so far and a pointwise layer.

    A family makes its stages, then calls `_add_ends`; it says what differs: the methods that are not implemented here.

    Args:
        config: of the family.
    """

    stages: nn.ModuleList
    weigh: nn.Module
    mix: nn.Module

    def __init__(self, config: Any) -> None:
        super().__init__()
        self._config = config

    def _add_ends(self, exits: Sequence[int]) -> None:
        """Make what comes after the last stage, and after those that are exits."""
        self.out_channels = self.exit_channels(len(self.stages))
        self.weigh, self.mix = self._make_end(len(self.stages))
        self.exits = nn.ModuleDict({str(stage): nn.ModuleList(self._make_end(stage)) for stage in exits})

    def _make_end(self, stage: int) -> tuple[nn.Module, nn.Module]:
        """What comes after a stage: the weighted sum of all maps so far, and the last pointwise layer."""
        raise NotImplementedError

    def _maps_after(self, stage: int) -> int:
        """How many maps there are after a stage."""
        raise NotImplementedError

    def _maps_until(self, features: Tensor | Sequence[Tensor], stage: int) -> list[Tensor]:
        """The maps `[batch, frames, width]` up to those of a stage, (earlier ones and) that of the stem first."""
        raise NotImplementedError

    def _finish(self, weighed: Tensor, mix: nn.Module, stage: int) -> Tensor:
        """The weighted sum of maps after a stage to `[batch, frames, out_channels]`."""
        return mix(weighed)

    def exit_channels(self, stage: int) -> int:
        """See `StagedBackbone`, as the methods below."""
        raise NotImplementedError

    def forward(self, features: Tensor | Sequence[Tensor]) -> Tensor:
        """`[batch, bins, frames]`, or the maps of an earlier backbone, to `[batch, frames, out_channels]`.

        Raises:
            AudioError: if the features are too short.
        """
        return self.frames_after(features, [None])[0]

    def all_maps(self, features: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Every 1-D map `[batch, frames, bins * channels]`: (earlier ones), stem, stages, their weighted sum."""
        maps = self._maps_until(features, len(self.stages))
        return [*maps, self.weigh(maps)]

    def frames_after(self, features: Tensor | Sequence[Tensor], stages: Sequence[int | None]) -> list[Tensor]:
        """See `StagedBackbone`."""
        counts = [len(self.stages) if stage is None else stage for stage in stages]
        maps, found = self._maps_until(features, max(counts)), []
        for stage, count in zip(stages, counts, strict=True):
            weigh, mix = self._end(stage)
            found.append(self._finish(weigh(maps[: self._maps_after(count)]), mix, count))
        return found

    def until(self, stage: int) -> Self:
        """See `StagedBackbone`."""
        weigh, mix = self._end(stage)
        ending = with_modules(self, stages=self.stages[:stage], weigh=weigh, mix=mix, exits=nn.ModuleDict())
        ending.out_channels = self.exit_channels(stage)
        return ending

    def settings_until(self, stage: int) -> dict[str, Any]:
        """See `StagedBackbone`."""
        return {"stages": list(self._config.stages[:stage])}

    def _end(self, stage: int | None) -> Any:
        return (self.weigh, self.mix) if stage is None else self.exits[str(stage)]
