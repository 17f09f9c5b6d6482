"""Pooling: frames to one vector per utterance.

Every pooling maps `[batch, frames, channels]` to `[batch, out_channels]`, in float32 whatever the input.
Source of the names and formulas: wespeaker's pooling layers, which the official ReDimNet also uses.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.models.attentive_pooling import (
    AttentiveStatisticsPooling,
    MultiHeadAttentivePooling,
    MultiQueryAttentivePooling,
    RectifiedAttentivePooling,
)
from voxnest.models.layers import mean_and_variance
from voxnest.models.parts import Pooling


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
        mean, variance = mean_and_variance(x.float())
        return torch.cat([mean, torch.sqrt(variance + self.floor)], dim=1)


class TemporalDeviationPooling(nn.Module):
    """TSDP: the (unbiased) standard deviation over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, channels]`."""
        return torch.sqrt(mean_and_variance(x.float())[1] + 1e-7)


class TemporalMaxAveragePooling(nn.Module):
    """TMAP: the sum of maximum and mean over time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, channels]`."""
        wide = x.float()
        return wide.amax(dim=1) + wide.mean(dim=1)


class HiddenLayer(nn.Module):
    """A pooling, then a linear layer with ReLU and batch normalisation (without scale and offset).

    The embedding is then a linear layer of that: the second one of x-vectors, wespeaker's `two_emb_layer`.

    Args:
        pooling: `[batch, frames, channels]` to `[batch, pooling.out_channels]`.
        width: of the layer.
    """

    def __init__(self, pooling: Pooling, width: int) -> None:
        super().__init__()
        self.pooling, self.out_channels = pooling, width
        self.linear = nn.Linear(pooling.out_channels, width)
        self.norm = nn.BatchNorm1d(width, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to `[batch, width]`."""
        result: Tensor = self.norm(F.relu(self.linear(self.pooling(x)).float()))
        return result


POOLINGS: dict[str, Callable[[int], Pooling]] = {
    "TAP": TemporalAveragePooling,
    "TMAP": TemporalMaxAveragePooling,
    "TSDP": TemporalDeviationPooling,
    "TSTP": TemporalStatisticsPooling,
    "ASTP": AttentiveStatisticsPooling,
    "ASP": RectifiedAttentivePooling,
    "MHASTP": MultiHeadAttentivePooling,
    "MQMHASTP": MultiQueryAttentivePooling,
}


def create_pooling(name: str, channels: int, *, global_context: bool = False, floor: float | None = None) -> Pooling:
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
        raise ConfigError("pooling", repr(name), one_of(name, POOLINGS))
    if name == "ASTP":
        return AttentiveStatisticsPooling(channels, global_context=global_context)
    if name == "TSTP" and floor is not None:
        return TemporalStatisticsPooling(channels, floor)
    return POOLINGS[name](channels)
