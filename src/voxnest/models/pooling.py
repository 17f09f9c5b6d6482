"""Pooling: frames to one vector per utterance.

Every pooling maps `[batch, frames, channels]` to `[batch, out_channels]`, in float32 whatever the input.
Source of the names and formulas: wespeaker's pooling layers, which the official ReDimNet also uses.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.layers import BatchNorm


class TemporalAveragePooling(nn.Module):
    """TAP: the mean over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, channels]`."""
        return x.float().mean(dim=1)


class TemporalStatisticsPooling(nn.Module):
    """TSTP: mean and (unbiased) standard deviation over time, side by side.

    Args:
        channels: of the input.
        floor: added to the variances; wespeaker's by default. Channels that are silent throughout show it.
    """

    def __init__(self, channels: int, floor: float = 1e-7) -> None:
        super().__init__()
        self.out_channels, self.floor = 2 * channels, floor

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`."""
        if not self.floor:
            # Not the root of the variance, whose gradient is not a number where that is zero.
            return torch.cat(torch.std_mean(x.float(), dim=1)[::-1], dim=1)
        variance, mean = torch.var_mean(x.float(), dim=1)
        return torch.cat([mean, torch.sqrt(variance + self.floor)], dim=1)


class TemporalDeviationPooling(nn.Module):
    """TSDP: the (unbiased) standard deviation over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, channels]`."""
        return torch.sqrt(x.float().var(dim=1) + 1e-7)


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
        self.channels, self.out_channels, self.global_context = channels, 2 * channels, global_context
        self.attend = nn.Linear(channels * (3 if global_context else 1), bottleneck)
        self.score = nn.Linear(bottleneck, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, 2 * channels]`."""
        weights = self.attend.weight.split(self.channels, dim=1)
        hidden = nn.functional.linear(x, weights[0], self.attend.bias)
        wide = x.float()  # variances cancel badly in half precision
        if self.global_context:
            # The context is the same at every frame, so its share of the layer is computed once per utterance.
            variance, mean = torch.var_mean(wide, dim=1)
            context = nn.functional.linear(
                torch.cat([mean, torch.sqrt(variance + 1e-7)], dim=1), torch.cat(weights[1:], dim=1)
            )
            hidden = hidden + context[:, None]
        attention = torch.softmax(self.score(torch.tanh(hidden)).float(), dim=1)
        mean = (attention * wide).sum(dim=1)
        variance = (attention * wide.square()).sum(dim=1) - mean.square()
        return torch.cat([mean, torch.sqrt(variance.clamp(min=1e-7))], dim=1)


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
        attention = torch.softmax(self.score(self.norm(F.relu_(self.attend(x)))).float(), dim=1)
        wide = x.float()  # variances cancel badly in half precision
        mean = (attention * wide).sum(dim=1)
        variance = (attention * wide.square()).sum(dim=1) - mean.square()
        return torch.cat([mean, torch.sqrt(variance.clamp(min=1e-5))], dim=1)


class TemporalMaxAveragePooling(nn.Module):
    """TMAP: the sum of maximum and mean over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, channels]`."""
        wide = x.float()
        return wide.amax(dim=1) + wide.mean(dim=1)


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
        statistics = []
        for attend, part in zip(self.attend, x.chunk(self.heads, dim=-1), strict=True):
            attention, wide = torch.softmax(attend(part).float(), dim=1), part.float()
            mean = (attention * wide).sum(dim=1)
            variance = (attention * wide.square()).sum(dim=1) - mean.square()
            statistics += [mean, torch.sqrt(variance.clamp(min=1e-7))]
        return torch.cat(statistics, dim=1)


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


POOLINGS = {
    "TAP": TemporalAveragePooling,
    "TMAP": TemporalMaxAveragePooling,
    "TSDP": TemporalDeviationPooling,
    "TSTP": TemporalStatisticsPooling,
    "ASTP": AttentiveStatisticsPooling,
    "ASP": RectifiedAttentivePooling,
    "MHASTP": MultiHeadAttentivePooling,
    "MQMHASTP": MultiQueryAttentivePooling,
}


def create_pooling(name: str, channels: int, *, global_context: bool = False, floor: float | None = None) -> nn.Module:
    """The pooling that the field calls `name`; one of `POOLINGS`.

    Args:
        name: one of `POOLINGS`.
        channels: of the input.
        global_context: matters to ASTP alone, see `AttentiveStatisticsPooling`.
        floor: of the variances of TSTP, if it is not the usual one.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in POOLINGS:
        raise ConfigError("pooling", repr(name), "one of " + ", ".join(POOLINGS))
    if name == "ASTP":
        return AttentiveStatisticsPooling(channels, global_context=global_context)
    if name == "TSTP" and floor is not None:
        return TemporalStatisticsPooling(channels, floor)
    return POOLINGS[name](channels)
