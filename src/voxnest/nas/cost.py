"""What the operations of a supernet cost, in multiply-accumulates of one crop."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from voxnest.models.genotype import Genotype
from voxnest.models.operations import OPERATIONS
from voxnest.nas.spaces import CELLS, EDGES
from voxnest.nas.supernet import Supernet


@cache
def operation_macs(name: str, channels: int, stride: int, frames: int, bins: int) -> int:
    """Multiply-accumulates of the convolutions of an operation on a map of that size; counted, without numbers."""
    with torch.device("meta"):
        operation = OPERATIONS[name](channels, stride, False)
        x = torch.empty(1, channels, frames, bins)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        operation(x)
    return counter.get_total_flops() // 2


def edge_costs(supernet: Supernet, frames: int, bins: int) -> Tensor:
    """GMACs of each operation of each edge of each cell, for features of that size: `[layers, 14, operations]`."""
    size = -(-frames // 2), -(-bins // 2)  # after the stem
    costs = torch.zeros(len(supernet.cells), len(EDGES), supernet.space.width, dtype=torch.float64)
    for layer, cell in enumerate(supernet.cells):
        halved = (-(-size[0] // 2), -(-size[1] // 2)) if cell.reduction else size
        for number, (source, _) in enumerate(EDGES):
            stride, given = cell.stride(source), size if source < 2 else halved  # type: ignore[operator]
            for k, name in enumerate(cell.edges[number].names):  # type: ignore[index, union-attr]
                costs[layer, number, k] = operation_macs(name, cell.channels, stride, *given) / 1e9
        size = halved
    return costs.float()


def expected_gmacs(supernet: Supernet, costs: Tensor, search: int = 0) -> Tensor:
    """The mean cost of the cells that are sampled, a scalar with a gradient for the architecture."""
    return (supernet.logits(search).softmax(dim=-1)[supernet.kinds] * costs).sum()


def genotype_gmacs(supernet: Supernet, costs: Tensor, genotype: Genotype) -> float:
    """The cost of the cells that a genotype keeps, at the size of the supernet."""
    total = 0.0
    for layer, kind in enumerate(supernet.kinds.tolist()):
        edges = genotype.reduce if kind else genotype.normal
        for index, (name, source) in enumerate(edges):
            number = EDGES.index((source, index // 2))
            total += float(costs[layer, number, supernet.space.edges(CELLS[kind])[number].index(name)])
    return total
