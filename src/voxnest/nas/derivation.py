"""From architecture parameters to the genotype they stand for."""

from __future__ import annotations

import torch
from torch import Tensor

from voxnest.models.genotype import Genotype
from voxnest.nas.spaces import EDGES, NODES, NONE, Space

_INPUTS_OF_A_NODE = 2


def derive(space: Space, normal: Tensor, reduce: Tensor) -> Genotype:
    """The genotype of architecture parameters.

    An edge is as strong as its most probable operation other than `none`. Each node keeps its two strongest edges, the
    strongest first, with that operation. Of equals, the edge from the earlier state and the operation that the space
    names first win; equal means the same float32 after the softmax.

    Args:
        space: what the parameters choose from.
        normal: `[14, operations]`, rows in the order of `EDGES`; what is beyond an edge's own operations is ignored.
        reduce: the same of the reduction cell.

    Source: DARTS (arXiv 1806.09055) as in the implementation of AutoSpeech. There, the place of `none` is looked up in
    another edge's list than the one that is read; no space of theirs shows the difference, here each edge has its
    own.
    """
    concat = range(2, 2 + NODES)
    return Genotype(_cell(space.normal, normal), concat, _cell(space.reduce, reduce), concat)


def _cell(operations: tuple[tuple[str, ...], ...], alphas: Tensor) -> tuple[tuple[str, int], ...]:
    best: list[tuple[float, str]] = []
    for names, row in zip(operations, alphas.detach().cpu(), strict=True):
        chances = torch.softmax(row[: len(names)], dim=-1).tolist()
        candidates = [(chance, name) for chance, name in zip(chances, names, strict=True) if name != NONE]
        best.append(max(candidates, key=lambda candidate: candidate[0]))  # the first of equals
    chosen = []
    for node in range(NODES):
        edges = [(source, best[number]) for number, (source, target) in enumerate(EDGES) if target == node]
        edges.sort(key=lambda edge: -edge[1][0])  # stable
        chosen += [(name, source) for source, (_, name) in edges[:_INPUTS_OF_A_NODE]]
    return tuple(chosen)
