"""AutoSpeech: a network of two kinds of cell that a search has found, on spectrograms.

Source: Ding et al., AutoSpeech: Neural Architecture Search for Speaker Recognition (arXiv 2005.03215), and
models/model.py of its official implementation (TAMU-VITA/AutoSpeech). `voxnest.nas` searches.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.family import EncoderSettings, Family
from voxnest.models.genotype import INPUTS, Genotype
from voxnest.models.head import MatryoshkaProjection
from voxnest.models.layers import check_frames
from voxnest.models.operations import OPERATIONS, ReLUConvNorm, Zero
from voxnest.models.parts import receptive_field
from voxnest.models.pooling import TemporalAveragePooling
from voxnest.models.resnet_blocks import ConvNorm

PAPER = (
    "Genotype(normal=[('dil_conv_5x5', 1), ('dil_conv_3x3', 0), ('dil_conv_5x5', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 2), ('dil_conv_3x3', 2), ('max_pool_3x3', 1)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 1), ('max_pool_3x3', 0), ('dil_conv_5x5', 2), ('max_pool_3x3', 1), ('dil_conv_5x5', 3), "
    "('dil_conv_3x3', 2), ('dil_conv_5x5', 4), ('dil_conv_5x5', 2)], reduce_concat=range(2, 6))"
)
"""The genotype that the paper reports."""


@dataclass(frozen=True, kw_only=True)
class SpectrogramSettings(EncoderSettings):
    """What all networks of the AutoSpeech paper have: spectrograms, and the mean over time and frequency as embedding.

    Attributes:
        dims: sizes of an embedding that is a linear layer of that mean; none for the mean itself, as in the paper.
    """

    bins: int = 257
    frontend: str = "autospeech_spectrogram"
    dims: Sequence[int] = ()

    def make_pooling(self, channels: int) -> TemporalAveragePooling:
        """The mean over time; the backbones take that over frequency."""
        return TemporalAveragePooling(channels)

    def make_head(self, in_features: int) -> MatryoshkaProjection:
        """A linear layer, or none."""
        return MatryoshkaProjection(in_features, self.dims or (in_features,), norm=False, linear=bool(self.dims))


@dataclass(frozen=True, kw_only=True)
class AutoSpeechConfig(SpectrogramSettings):
    """What makes one searched network differ from another. The defaults are those of the paper's.

    Attributes:
        genotype: of its cells; see `Genotype`.
        channels: of a node in the first cells; twice as many after each reduction.
        layers: cells. Those after one and two thirds of them are reduction cells.
        drop_path: the probability, at the end of a training, that an edge is left out for an item; it grows with
            `AutoSpeech.progress`.
    """

    genotype: str = PAPER
    channels: int = 128
    layers: int = 8
    drop_path: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "genotype", str(Genotype.parse(self.genotype)))
        if self.channels < 2:
            raise ConfigError("channels", str(self.channels), "at least 2")
        if self.layers < 1:
            raise ConfigError("layers", str(self.layers), "at least 1")
        if not 0 <= self.drop_path < 1:
            raise ConfigError("drop_path", str(self.drop_path), "a probability below 1")


Span = tuple[int, int]
"""Frames of the features that a frame of a map depends on, and how many of them lie between two frames of the map."""


class Cell(nn.Module):
    """One cell of a searched network.

    Args:
        genotype: of the network.
        in_channels: of the cell before the last, and of the last one.
        channels: of each node.
        reduction: a reduction cell, not a normal one.
        after_reduction: the last cell halved its input, so that the output of the one before it has to be halved here.
    """

    def __init__(
        self,
        genotype: Genotype,
        in_channels: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        after_reduction: bool,
    ) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(
            [
                ReLUConvNorm(in_channels[0], channels, 2 if after_reduction else 1),
                ReLUConvNorm(in_channels[1], channels),
            ]
        )
        edges, self.concat = genotype.cell(reduction=reduction)
        self.sources = [node for _, node in edges]
        self.edges = nn.ModuleList(
            OPERATIONS[operation](channels, 2 if reduction and node < INPUTS else 1, True) for operation, node in edges
        )
        self.out_channels = channels * len(self.concat)

    def forward(self, before: Tensor, last: Tensor, drop_path: float = 0.0) -> Tensor:
        """Outputs of the last two cells to that of this one, `[batch, out_channels, frames, bins]`.

        Args:
            before: `[batch, in_channels[0], ...]`.
            last: `[batch, in_channels[1], ...]`.
            drop_path: the probability that an edge is left out for an item.
        """
        nodes = [module(x) for module, x in zip(self.inputs, (before, last), strict=True)]
        results = []
        for source, operation in zip(self.sources, self.edges, strict=True):
            result = operation(nodes[source])
            if drop_path and not isinstance(operation, nn.Identity):
                result = drop_items(result, drop_path)
            results.append(result)
            if len(results) % 2 == 0:
                nodes.append(results[-2] + results[-1])
        return torch.cat([nodes[node] for node in self.concat], dim=1)

    def span_after(self, before: Span, last: Span) -> Span:
        """The span of the output, of those of the inputs."""
        nodes = [_span_after(span, module) for span, module in zip((before, last), self.inputs, strict=True)]
        for first in range(0, len(self.edges), 2):
            pair = zip(self.sources[first : first + 2], self.edges[first : first + 2], strict=True)
            nodes.append(max(_span_after(nodes[source], operation) for source, operation in pair))
        return max(nodes[node] for node in self.concat)


def _span_after(span: Span, module: nn.Module) -> Span:
    frames, step = span
    layers = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layers.append((layer.kernel_size[0], layer.stride[0], layer.dilation[0]))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            layers.append((int(layer.kernel_size), int(layer.stride), 1))  # type: ignore[arg-type]
        elif isinstance(layer, Zero):
            return 0, step * layer.stride
    return frames + (receptive_field(layers) - 1) * step, step * math.prod(stride for _, stride, _ in layers)


def drop_items(x: Tensor, probability: float) -> Tensor:
    """Make whole items of `[batch, ...]` zero with this probability, and the others larger, so that the mean stays."""
    kept = x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(1 - probability)
    return x * (kept / (1 - probability))


class AutoSpeech(nn.Module):
    """The backbone: features `[batch, bins, frames]` to `[batch, frames / frame_stride, out_channels]`.

    The means over frequency of the last cell. Maps are `[batch, channels, frames, bins]`, as in the original.

    Attributes:
        progress: of a training, from 0 to 1; whoever trains sets it.
    """

    min_frames = 1

    def __init__(self, config: AutoSpeechConfig) -> None:
        super().__init__()
        genotype, channels = Genotype.parse(config.genotype), config.channels
        self.drop_path, self.progress = config.drop_path, 0.0
        self.stem = nn.ModuleList(
            [
                ConvNorm(1, channels // 2, stride=2),
                ConvNorm(channels // 2, channels, stride=2),
                ConvNorm(channels, channels, stride=2),
            ]
        )
        reductions = {config.layers // 3, 2 * config.layers // 3}
        self.cells = nn.ModuleList()
        outputs, after_reduction = (channels, channels), True
        before = _span_after((1, 1), self.stem[:2])
        last = _span_after(before, self.stem[2])
        for index in range(config.layers):
            reduction = index in reductions
            channels *= 2 if reduction else 1
            cell = Cell(genotype, outputs, channels, reduction=reduction, after_reduction=after_reduction)
            self.cells.append(cell)
            outputs, after_reduction = (outputs[1], cell.out_channels), reduction
            before, last = last, cell.span_after(before, last)
        self.out_channels = outputs[1]
        self.receptive_field, self.frame_stride = last
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, bins, frames]` to `[batch, frames / frame_stride, out_channels]`."""
        check_frames(features, self.min_frames)
        x = features.transpose(1, 2).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        before = self.stem[1](F.relu_(self.stem[0](x)))
        last = self.stem[2](F.relu(before))
        drop_path = self.drop_path * self.progress if self.training else 0.0
        for cell in self.cells:
            before, last = last, cell(before, last, drop_path)
        return last.mean(dim=3).transpose(1, 2)


FAMILY = Family("autospeech", AutoSpeechConfig, AutoSpeech)
