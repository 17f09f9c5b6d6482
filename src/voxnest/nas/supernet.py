"""The network that is searched: every edge of every cell holds all its operations, of which a sample chooses one.

A sample is one-hot, with the gradient of the softmax behind it (straight through). The dense way to compute that is to
run every operation and to multiply all but one by zero. Here only the chosen operation runs. What the others are needed
for is the gradient of their weights in that sum, an inner product of two tensors:

    d loss / d weight_k = < d loss / d output, operation_k(x) >

so it is computed in the backward pass, where the left side is known, of outputs that are made without a graph and
dropped at once. In a step on the weights not even that is needed: operations that were not chosen have no gradient, and
the architecture is not asked for any.

Batch normalisation: an operation normalises by the batch, and notes its statistics once in each step in which it runs.
So a step on the architecture leaves the running statistics that the dense form leaves; a step on the weights updates
those of the chosen operations alone, for to update all would be to run all. Nothing in a search reads them.

Source: Ding et al., AutoSpeech (arXiv 2005.03215); its implementation (TAMU-VITA/AutoSpeech, models/model_search.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.models.autospeech import drop_items
from voxnest.models.operations import OPERATIONS, ReLUConvNorm
from voxnest.nas.spaces import CELLS, EDGES, NODES, NONE, Space

_STEM_MULTIPLIER = 3
_INITIAL_DEVIATION = 1e-3
Run = Callable[["Edge", Tensor, int], Tensor]
"""How an edge is computed: of its operations, its input and its number in the cell."""


class Sample(NamedTuple):
    """One choice for each edge of each cell.

    Attributes:
        weights: `[layers, 14, operations]`, one-hot, with the gradient of the softmax.
        chosen: of each cell and edge, the number of its operation.
    """

    weights: Tensor
    chosen: list[list[int]]


def sample_cells(logits: Tensor, temperature: float = 1.0) -> Sample:
    """Draw from the Gumbel-softmax distribution, hard.

    Args:
        logits: `[layers, 14, operations]`, -inf where an edge has no such operation.
        temperature: of the softmax whose gradient the sample has.

    Source: Jang et al., Categorical Reparameterization with Gumbel-Softmax (arXiv 1611.01144).
    """
    gumbel = -torch.empty_like(logits).exponential_().clamp(min=torch.finfo(logits.dtype).tiny).log()
    soft = ((logits.log_softmax(dim=-1) + gumbel) / temperature).softmax(dim=-1)
    chosen = soft.argmax(dim=-1)
    hard = F.one_hot(chosen, logits.shape[-1]).to(soft)
    return Sample(hard + (soft - soft.detach()), chosen.tolist())


class Edge(nn.ModuleList):
    """The operations of one edge. Pooling is followed by a batch normalisation.

    Args:
        names: of the operations.
        channels: in and out.
        stride: 1 or 2.
    """

    def __init__(self, names: Sequence[str], channels: int, stride: int) -> None:
        super().__init__(_operation(name, channels, stride) for name in names)
        self.names = tuple(names)


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    operation = OPERATIONS[name](channels, stride, False)
    return nn.Sequential(operation, nn.BatchNorm2d(channels, affine=False)) if "pool" in name else operation


class _StraightThrough(torch.autograd.Function):
    """The output of the chosen operation as it is, with a gradient for the weights of all."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, weights: Tensor, x: Tensor, edge: Edge, chosen: int) -> Tensor:
        ctx.edge, ctx.chosen, ctx.weights = edge, chosen, weights.new_zeros(len(weights))
        ctx.precision = torch.get_autocast_dtype(x.device.type), torch.is_autocast_enabled(x.device.type)
        ctx.save_for_backward(output, x)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        output, x = ctx.saved_tensors
        products = ctx.weights
        rectified = x.relu()  # what most operations begin with
        with torch.autocast(x.device.type, *ctx.precision):
            for number, (name, operation) in enumerate(zip(ctx.edge.names, ctx.edge, strict=True)):
                if number == ctx.chosen:
                    products[number] = (gradient * output).sum()
                elif name != NONE:
                    products[number] = (gradient * _apply(operation, x, rectified)).sum()
        return gradient, products, None, None, None


def _apply(operation: nn.Module, x: Tensor, rectified: Tensor) -> Tensor:
    layers = list(operation.children())
    if not layers or not isinstance(layers[0], nn.ReLU):
        result: Tensor = operation(x)
        return result
    for layer in layers[1:]:
        rectified = layer(rectified)
    return rectified


def run_chosen(chosen: Sequence[int], edge: Edge, x: Tensor, number: int) -> Tensor:
    """The chosen operation alone: for a step on the weights."""
    result: Tensor = edge[chosen[number]](x)
    return result


def run_straight_through(weights: Tensor, chosen: Sequence[int], edge: Edge, x: Tensor, number: int) -> Tensor:
    """The chosen operation, and a gradient for the weights of all: for a step on the architecture."""
    choice = chosen[number]
    result: Tensor = _StraightThrough.apply(edge[choice](x), weights[number], x.detach(), edge, choice)
    return result


def run_dense(weights: Tensor, edge: Edge, x: Tensor, number: int) -> Tensor:
    """The sum of all operations with any weights `[14, operations]`: what the other ways are compared with."""
    total = x.new_zeros(())
    for weight, operation in zip(weights[number], edge, strict=False):
        total = total + weight * operation(x)
    return total


class Cell(nn.Module):
    """One cell, with all operations of a space on its edges.

    Args:
        operations: for each of the `EDGES`, the names of its operations.
        in_channels: of the cell before the last, and of the last one.
        channels: of each node.
        reduction: a reduction cell, not a normal one.
        after_reduction: the last cell was one.
    """

    def __init__(
        self,
        operations: Sequence[Sequence[str]],
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.channels, self.reduction = channels, reduction
        self.inputs = nn.ModuleList(
            [
                ReLUConvNorm(in_channels[0], channels, 2 if after_reduction else 1, affine=False),
                ReLUConvNorm(in_channels[1], channels, affine=False),
            ]
        )
        self.edges = nn.ModuleList(
            Edge(names, channels, self.stride(source)) for names, (source, _) in zip(operations, EDGES, strict=True)
        )

    def stride(self, source: int) -> int:
        """Of an edge from that state."""
        return 2 if self.reduction and source < 2 else 1

    def forward(self, before: Tensor, last: Tensor, run: Run, drop_path: float = 0.0) -> Tensor:
        """Outputs of the last two cells to that of this one, `[batch, 4 channels, frames, bins]`."""
        states = [module(x) for module, x in zip(self.inputs, (before, last), strict=True)]
        sums: list[Tensor | None] = [None] * NODES
        for number, (source, node) in enumerate(EDGES):
            result = run(self.edges[number], states[source], number)  # type: ignore[arg-type]
            if drop_path:
                result = drop_items(result, drop_path)
            so_far = sums[node]
            sums[node] = result if so_far is None else so_far + result
            if source == node + 1:  # the last edge of the node
                states.append(sums[node])
        return torch.cat(states[2:], dim=1)


class Supernet(nn.Module):
    """Features `[batch, bins, frames]` to their pooled vector `[batch, out_channels]`, through sampled cells.

    Args:
        space: to search in.
        channels: of a node in the first cells; twice as many after each reduction.
        layers: cells; those after one and two thirds of them are reduction cells.
        searches: how many architectures are searched side by side on the same weights.

    Attributes:
        alphas: of each search, the architecture parameters `[2, 14, operations]`: normal cell, reduction cell.
    """

    def __init__(self, space: Space, channels: int = 16, layers: int = 8, searches: int = 1) -> None:
        super().__init__()
        self.space = space
        wide = _STEM_MULTIPLIER * channels
        self.stem = nn.Sequential(
            nn.Conv2d(1, wide, 3, padding=1, bias=False), nn.BatchNorm2d(wide), nn.MaxPool2d(3, 2, padding=1)
        )
        self.cells = nn.ModuleList()
        outputs, after = (wide, wide), False
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            channels *= 2 if reduction else 1
            names = space.edges(CELLS[reduction])
            self.cells.append(Cell(names, outputs, channels, reduction=reduction, after_reduction=after))
            outputs, after = (outputs[1], NODES * channels), reduction
        self.out_channels = outputs[1]
        shape = (len(CELLS), len(EDGES), space.width)
        self.alphas = nn.ParameterList(_INITIAL_DEVIATION * torch.randn(shape) for _ in range(searches))
        kinds = [int(cell.reduction) for cell in self.cells]  # type: ignore[arg-type]
        absent = [[[k >= len(names) for k in range(space.width)] for names in space.edges(c)] for c in CELLS]
        self.register_buffer("kinds", torch.tensor(kinds), persistent=False)
        self.register_buffer("absent", torch.tensor(absent), persistent=False)
        self.kinds: Tensor
        self.absent: Tensor
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def weights(self) -> list[nn.Parameter]:
        """All parameters but those of the architecture."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("alphas.")]

    def logits(self, search: int = 0) -> Tensor:
        """`[2, 14, operations]`, -inf where an edge has no such operation."""
        return self.alphas[search].masked_fill(self.absent, -torch.inf)

    def entropy(self, search: int = 0) -> Tensor:
        """Mean entropy of the edges of the normal and of the reduction cell, in nats: `[2]`, without gradient."""
        with torch.no_grad():
            return torch.distributions.Categorical(logits=self.logits(search)).entropy().mean(dim=1)

    def sample(self, search: int = 0, temperature: float = 1.0) -> Sample:
        """Draw the operations of every cell; two cells of one kind get their own."""
        return sample_cells(self.logits(search)[self.kinds], temperature)

    def forward(
        self, features: Tensor, sample: Sample, *, architecture: bool = False, drop_path: float = 0.0
    ) -> Tensor:
        """`[batch, bins, frames]` to `[batch, out_channels]`, through the chosen operations.

        Args:
            features: of a front end.
            sample: what is chosen.
            architecture: the weights of the sample shall get their gradient.
            drop_path: the probability that an edge is left out for an item.
        """
        if architecture:
            runs = [partial(run_straight_through, *row) for row in zip(sample.weights, sample.chosen, strict=True)]
        else:
            runs = [partial(run_chosen, row) for row in sample.chosen]
        return self._through(features, runs, drop_path)

    def dense(self, features: Tensor, weights: Tensor, *, drop_path: float = 0.0) -> Tensor:
        """The same with every operation run, and summed with any `weights [layers, 14, operations]`."""
        return self._through(features, [partial(run_dense, row) for row in weights], drop_path)

    def _through(self, features: Tensor, runs: Sequence[Run], drop_path: float) -> Tensor:
        maps = features.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        before = last = self.stem(maps)
        for cell, run in zip(self.cells, runs, strict=True):
            before, last = last, cell(before, last, run, drop_path)
        return last.mean(dim=(2, 3))
