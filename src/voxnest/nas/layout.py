"""Where the boxes and lines of a cell stand: a layered drawing, from the inputs down to the output.

Every operation is a box of its own between the node that it reads and the one it adds to, so that no label can lie on
another; a line that passes a layer has a place in it, so that no line runs through a box.

Source: Sugiyama, Tagawa and Toda, Methods for visual understanding of hierarchical system structures (1981).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

_RESTARTS, _SWEEPS, _SETTLING = 12, 4, 120
_GAP = 0.16
"""Between two boxes of a layer, as the widths."""
_STRAIGHT = {0: 1.0, 1: 3.0, 2: 9.0}
"""How much a line counts that has so many of its ends in passing."""


@dataclass
class Item:
    """A box, or the place where a line passes a layer.

    Attributes:
        kind: "input", "operation", "node", "output" or "pass".
        text: what is written in it.
        width: of it.
        layer: from the top.
        x: its middle, once `arrange` has found it.
    """

    kind: str
    text: str
    width: float
    layer: int
    x: float = 0.0


@dataclass
class Layered:
    """Items in layers, each in the order from left to right, and lines between neighbouring layers.

    Attributes:
        layers: of items.
        lines: each the items that it leads through, from layer to layer.
    """

    layers: list[list[Item]] = field(default_factory=list)
    lines: list[list[Item]] = field(default_factory=list)

    def add(self, kind: str, text: str, width: float, layer: int) -> Item:
        """A new item at the right end of its layer."""
        while len(self.layers) <= layer:
            self.layers.append([])
        item = Item(kind, text, width, layer)
        self.layers[layer].append(item)
        return item

    def connect(self, start: Item, end: Item, width: float) -> None:
        """A line down, which passes every layer between with so much room."""
        passed = [self.add("pass", "", width, layer) for layer in range(start.layer + 1, end.layer)]
        self.lines.append([start, *passed, end])

    @property
    def segments(self) -> list[tuple[Item, Item]]:
        """The pieces of the lines, from one layer to the next."""
        return [pair for line in self.lines for pair in pairwise(line)]

    def arrange(self) -> None:
        """Order the layers so that few lines cross, then move the items so that lines are straight."""
        self._order()
        self._place()

    def _order(self) -> None:
        rng = random.Random(0)
        below: dict[int, list[Item]] = {}
        above: dict[int, list[Item]] = {}
        for start, end in self.segments:
            below.setdefault(id(start), []).append(end)
            above.setdefault(id(end), []).append(start)
        best = self._score(below), [list(layer) for layer in self.layers]
        for _ in range(_RESTARTS):
            for layer in self.layers[1:]:
                rng.shuffle(layer)
            for sweep in range(_SWEEPS):
                down = sweep % 2 == 0
                for layer in self.layers[1:] if down else self.layers[-2:0:-1]:
                    _by_neighbours(layer, self._positions(), above if down else below)
            self._swap(below)
            if (score := self._score(below)) < best[0]:
                best = score, [list(layer) for layer in self.layers]
            if not best[0]:
                break
        self.layers = best[1]

    def _swap(self, below: dict[int, list[Item]]) -> None:
        """Swap neighbours as long as that helps."""
        score, better = self._score(below), True
        while better:
            better = False
            for layer in self.layers[1:]:
                for place in range(len(layer) - 1):
                    layer[place], layer[place + 1] = layer[place + 1], layer[place]
                    if (new := self._score(below)) < score:
                        score, better = new, True
                    else:
                        layer[place], layer[place + 1] = layer[place + 1], layer[place]

    def _positions(self) -> dict[int, int]:
        return {id(item): place for layer in self.layers for place, item in enumerate(layer)}

    def _score(self, below: dict[int, list[Item]]) -> int:
        """How many lines cross."""
        place, crossings = self._positions(), 0
        for layer in self.layers[:-1]:
            ends: list[int] = []
            for item in layer:
                own = sorted(place[id(end)] for end in below.get(id(item), ()))
                crossings += sum(1 for end in own for before in ends if before > end)
                ends += own
        return crossings

    def _place(self) -> None:
        pulls: dict[int, list[tuple[Item, float]]] = {}
        for start, end in self.segments:
            weight = _STRAIGHT[(start.kind == "pass") + (end.kind == "pass")]
            pulls.setdefault(id(start), []).append((end, weight))
            pulls.setdefault(id(end), []).append((start, weight))
        for layer in self.layers:
            for item, offset in zip(layer, _offsets(layer), strict=True):
                item.x = offset - _offsets(layer)[-1] / 2
        for turn in range(_SETTLING):
            for layer in self.layers if turn % 2 == 0 else reversed(self.layers):
                wanted, weights = [], []
                for item in layer:
                    pull = pulls.get(id(item), [])
                    weights.append(sum(weight for _, weight in pull) or 1e-3)
                    wanted.append(sum(other.x * weight for other, weight in pull) / weights[-1])
                for item, x in zip(layer, _apart(wanted, weights, _offsets(layer)), strict=True):
                    item.x = x


def _by_neighbours(layer: list[Item], place: dict[int, int], neighbours: dict[int, list[Item]]) -> None:
    """Order a layer by the mean place of the neighbours in another; who has none stays in the middle of its own."""

    def mean(item: Item) -> float:
        near = neighbours.get(id(item), [])
        return sum(place[id(other)] for other in near) / len(near) if near else place[id(item)]

    layer.sort(key=mean)


def _offsets(layer: Sequence[Item]) -> list[float]:
    """The least distances of the items from the first."""
    offsets = [0.0]
    for left, right in pairwise(layer):
        offsets.append(offsets[-1] + (left.width + right.width) / 2 + _GAP)
    return offsets


def _apart(wanted: list[float], weights: list[float], offsets: list[float]) -> list[float]:
    """The places nearest to the wanted ones, in least squares, that keep order and distances (pooled neighbours)."""
    blocks: list[list[float]] = []  # mean, weight, count
    for want, weight, offset in zip(wanted, weights, offsets, strict=True):
        blocks.append([want - offset, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, more, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * more) / (last[1] + more)
            last[1] += more
            last[2] += count
    flat = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [mean + offset for mean, offset in zip(flat, offsets, strict=True)]
