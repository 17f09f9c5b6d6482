"""Attentive pooling: mean and standard deviation over time, in which every frame has a weight of its own.

Every pooling maps `[batch, frames, channels]` to `[batch, out_channels]`, in float32 whatever the input. They differ in
what comes before the softmax over time, and in how small a variance may be.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.layers import BatchNorm, mean_and_variance


def weighted_statistics(scores: Tensor, x: Tensor, floor: float) -> Tensor:
    """Mean and standard deviation over time of `x`, weighted by the softmax over time of `scores`.

    Args:
        scores: `[batch, frames, channels]`, or `[batch, frames, 1]` for weights that all channels share.
        x: `[batch, frames, channels]`.
        floor: smallest variance.

    Returns:
        `[batch, 2 * channels]` in float32.
    """
    attention, wide = torch.softmax(scores.float(), dim=1), x.float()
    mean = (attention * wide).sum(dim=1, keepdim=True)
    variance = (attention * (wide - mean).square()).sum(dim=1)
    return torch.cat([mean.squeeze(1), variance.clamp(min=floor).sqrt()], dim=1)


def beside_context(layer: nn.Linear, x: Tensor, context: Tensor) -> Tensor:
    """A layer over frames `[batch, frames, channels]` that each have `context [batch, size]` beside them.

    The context is the same at every frame, so its share of the layer is computed once per utterance.
    """
    own, shared = layer.weight.split([x.shape[-1], context.shape[-1]], dim=1)
    return F.linear(x, own, layer.bias) + F.linear(context, shared)[:, None]


class AttentiveStatisticsPooling(nn.Module):
    """ASTP: mean and standard deviation over time, weighted by an attention per channel.

    Args:
        channels: of the input.
        bottleneck: hidden size of the attention.
        global_context: let the attention also see each channel's mean and deviation over the utterance.

    Source: Desplanques et al., ECAPA-TDNN (arXiv 2005.07143), in wespeaker's form.
    """

    def __init__(self, channels: int, bottleneck: int = 128, *, global_context: bool = False) -> None:
        super().__init__()
        self.out_channels, self.global_context = 2 * channels, global_context
        self.attend = nn.Linear(channels * (3 if global_context else 1), bottleneck)
        self.score = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`."""
        if self.global_context:
            mean, variance = mean_and_variance(x.float())
            hidden = beside_context(self.attend, x, torch.cat([mean, torch.sqrt(variance + 1e-7)], dim=1))
        else:
            hidden = self.attend(x)
        return weighted_statistics(self.score(torch.tanh(hidden)), x, floor=1e-7)


class ChannelAttentivePooling(nn.Module):
    """CAS: channel- and context-dependent attentive statistics, its hidden layer a TDNN block before the tanh.

    Mean and standard deviation over time, weighted by an attention per channel that also sees each channel's mean and
    deviation over the utterance. wespeaker's form of it (`AttentiveStatisticsPooling`, "ASTP") has no ReLU and no batch
    normalisation, and takes unbiased deviations.

    Args:
        channels: of the input.
        hidden: size of the attention's hidden layer.
        global_context: the attention sees mean and deviation of the utterance.

    Source: Desplanques et al., ECAPA-TDNN (arXiv 2005.07143), in SpeechBrain's form.
    """

    def __init__(self, channels: int, hidden: int = 128, *, global_context: bool = True) -> None:
        super().__init__()
        self.out_channels, self.global_context = 2 * channels, global_context
        self.attend = nn.Linear(channels * (3 if global_context else 1), hidden)
        self.norm = BatchNorm(hidden)
        self.score = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]` in float32."""
        if self.global_context:
            mean, variance = mean_and_variance(x.float(), correction=0)
            hidden = beside_context(self.attend, x, torch.cat([mean, variance.clamp(min=1e-12).sqrt()], dim=1))
        else:
            hidden = self.attend(x)
        return weighted_statistics(self.score(torch.tanh(self.norm(F.relu(hidden)))), x, floor=1e-12)


class RectifiedAttentivePooling(nn.Module):
    """ASP: mean and standard deviation over time, weighted by an attention with ReLU and batch normalisation.

    Args:
        channels: of the input.
        bottleneck: hidden size of the attention.

    Source: `ASP` of wespeaker.
    """

    def __init__(self, channels: int, bottleneck: int = 128) -> None:
        super().__init__()
        self.out_channels = 2 * channels
        self.attend = nn.Linear(channels, bottleneck)
        self.norm = BatchNorm(bottleneck)
        self.score = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`."""
        return weighted_statistics(self.score(self.norm(F.relu_(self.attend(x)))), x, floor=1e-5)


class NormalizedAttentivePooling(AttentiveStatisticsPooling):
    """Attentive statistics pooling with a batch normalisation inside the attention.

    Source: VAP-BN of the official NeXt-TDNN.
    """

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__(channels, bottleneck)
        self.norm = BatchNorm(bottleneck)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`."""
        return weighted_statistics(self.score(torch.tanh(self.norm(self.attend(x)))), x, floor=1e-5)


class MultiHeadAttentivePooling(nn.Module):
    """MHASTP: mean and standard deviation over time, the channels in groups with an attention each.

    Args:
        channels: of the input; divisible by `heads`.
        heads: groups of channels.
        bottleneck: hidden size of each attention.
        per_channel: a weight for every channel rather than one for the group.

    Source: India et al., Self Multi-Head Attention for Speaker Recognition (arXiv 1906.09890).
    """

    def __init__(self, channels: int, heads: int = 2, bottleneck: int = 64, *, per_channel: bool = False) -> None:
        super().__init__()
        if channels % heads:
            raise ConfigError("pooling", f"{channels} channels", f"a multiple of {heads} heads")
        self.heads, self.out_channels = heads, 2 * channels
        width = channels // heads
        self.attend = nn.ModuleList(
            nn.Sequential(nn.Linear(width, bottleneck), nn.Tanh(), nn.Linear(bottleneck, width if per_channel else 1))
            for _ in range(heads)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`: mean and deviation of each group in turn."""
        parts = zip(self.attend, x.chunk(self.heads, dim=-1), strict=True)
        return torch.cat([weighted_statistics(attend(part), part, floor=1e-7) for attend, part in parts], dim=1)


class MultiQueryAttentivePooling(nn.Module):
    """MQMHASTP: several `MultiHeadAttentivePooling` side by side.

    Args:
        channels: of the input; divisible by `heads`.
        queries: how many.
        heads: of each.

    Source: Zhao et al., Multi-Query Multi-Head Attention Pooling (arXiv 2110.05042).
    """

    def __init__(self, channels: int, queries: int = 2, heads: int = 8) -> None:
        super().__init__()
        self.out_channels = 2 * channels * queries
        self.queries = nn.ModuleList(
            MultiHeadAttentivePooling(channels, heads, per_channel=True) for _ in range(queries)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels * queries]`."""
        return torch.cat([query(x) for query in self.queries], dim=1)
