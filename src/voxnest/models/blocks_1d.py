"""1-D blocks of the ReDimNet family: they model time in `[batch, frames, channels]`.

Source: `TimeContextBlock1d`, `TimeContextBlock1dV2` and `SymmetricalDWMixer` of the official implementations.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError, one_of
from voxnest.models.layers import TimeConv
from voxnest.models.redimnet_blocks import ConvNeXtBlock

CONTEXTS = (
    "fc",
    "conv",
    "convx2",
    "conv_large",
    "att",
    "att-rope",
    "stable_att",
    "conv+att",
    "conv+att-rope",
    "conv+stable_att",
)
"""What a 1-D block can hold between its reduction and expansion of the channels; see `create_context`."""

KERNEL_SIZES = (7, 19, 31, 59)
"""In frames, of the growing convolutions before an attention."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_python": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_10": lambda x: F.gelu(x).clamp(-10, 10),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "linear": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": torch.tanh,
}
"""Of the feed-forward network, by the names of the transformers library."""


@dataclass(frozen=True)
class AttentionSettings:
    """How the transformer layers of a backbone differ from the usual ones.

    Attributes:
        activation: of the feed-forward network; one of `ACTIVATIONS`.
        activation_dropout: after that activation.
        attention_dropout: on the attention weights; None for the layer's own (0.02 for "stable_att", else 0).
        hidden_dropout: on the output of the feed-forward network.
        norm_eps: of the layer norms.
        qk_norm: normalise queries and keys ("stable_att" always does; needs rotary positions elsewhere).
        rope_base: of the rotary positions.
    """

    activation: str = "gelu_new"
    activation_dropout: float = 0.0
    attention_dropout: float | None = None
    hidden_dropout: float = 0.0
    norm_eps: float = 1e-6
    qk_norm: bool = False
    rope_base: float = 10000.0

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ConfigError("attention: activation", repr(self.activation), one_of(self.activation, ACTIVATIONS))


class RotaryPositions(nn.Module):
    """Turn queries and keys by an angle that grows with time (RoPE, arXiv 2104.09864; halves, not pairs)."""

    def __init__(self, width: int, base: float = 10000.0) -> None:
        super().__init__()
        frequencies = 1.0 / base ** (torch.arange(0, width, 2).float() / width)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.frequencies: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, heads, frames, width]` to the same shape."""
        frames = torch.arange(x.shape[2], device=x.device, dtype=torch.float32)
        angles = torch.outer(frames, self.frequencies)
        cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over time, without mask.

    Args:
        channels: in and out; divisible by `heads`.
        heads: of the attention.
        dropout: on the attention weights, in training.
        qk_norm: bring queries and keys to unit length.
        rope_base: of rotary positions; None for no positions.

    Source: the wav2vec 2.0 layer (transformers) that the official ReDimNet implementation uses.
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        dropout: float = 0.0,
        qk_norm: bool = False,
        rope_base: float | None = None,
    ) -> None:
        super().__init__()
        if channels % heads or (rope_base is not None and channels // heads % 2):
            needed = f"a multiple of {heads if rope_base is None else 2 * heads}"
            raise ConfigError("attention", f"{channels} channels in a 1-D block", needed)
        self.heads, self.dropout, self.qk_norm = heads, dropout, qk_norm
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)
        self.rotate = None if rope_base is None else RotaryPositions(channels // heads, rope_base)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.rotate is not None:
            query, key = self.rotate(query), self.rotate(key)
        if self.qk_norm:
            query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        if self.training:
            # The fused kernel's backward pass is slow on CPUs at the few numbers per head that ReDimNet has.
            weights = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, dim=-1)
            attended = (F.dropout(weights, self.dropout) if self.dropout else weights) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward network.

    Args:
        channels: in and out; divisible by `heads`.
        hidden: of the feed-forward network.
        heads: of the attention.
        kind: "plain" norms after each residual sum, "rope" does so too and adds rotary positions, "stable" norms before
            attention and feed-forward and normalises queries and keys.
        settings: what else can differ.

    Source: as `SelfAttention`. "plain" adds the first residual before the norm, so the second starts from the norm.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        heads: int = 4,
        *,
        kind: str = "plain",
        settings: AttentionSettings = AttentionSettings(),
    ) -> None:
        super().__init__()
        self.pre_norm = kind == "stable"
        dropout = settings.attention_dropout
        self.attention = SelfAttention(
            channels,
            heads,
            dropout=(0.02 if kind == "stable" else 0.0) if dropout is None else dropout,
            qk_norm=kind == "stable" or settings.qk_norm,
            rope_base=settings.rope_base if kind == "rope" else None,
        )
        self.norm = nn.LayerNorm(channels, eps=settings.norm_eps)
        self.expand = nn.Linear(channels, hidden)
        self.activation = settings.activation
        self.activation_dropout = nn.Dropout(settings.activation_dropout)
        self.contract = nn.Linear(hidden, channels)
        self.hidden_dropout = nn.Dropout(settings.hidden_dropout)
        self.final_norm = nn.LayerNorm(channels, eps=settings.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        if self.pre_norm:
            x = x + self.attention(self.norm(x))
            return x + self._feed_forward(self.final_norm(x))
        x = self.norm(x + self.attention(x))
        return self.final_norm(x + self._feed_forward(x))

    def _feed_forward(self, x: Tensor) -> Tensor:
        hidden = self.activation_dropout(ACTIVATIONS[self.activation](self.expand(x)))
        return self.hidden_dropout(self.contract(hidden))


class PositionalConv(nn.Module):
    """Tells a transformer layer where it is: a wide depthwise convolution, normalised and added."""

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = TimeConv(channels, channels, kernel_size, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        return x + self.norm(self.conv(x))


def create_context(
    channels: int, kind: str, settings: AttentionSettings = AttentionSettings(), time_stride: int | None = None
) -> nn.Sequential:
    """Layers that model time at `channels` channels.

    Args:
        channels: in and out.
        kind: one of `CONTEXTS`: "fc" is pointwise only; "conv", "convx2" and "conv_large" are large kernels; "att" is
            a positional convolution and a transformer layer; "conv+att" growing kernels and a transformer layer;
            "stable_" and "-rope" name the kind of that layer.
        settings: of the transformer layer.
        time_stride: the second version of "fc", "conv", "att" and "conv+att", whose kernels shrink with this stride
            and whose transformer layers have rotary positions. None for the first version.
    """
    sizes = KERNEL_SIZES if time_stride is None else [_shrunk(size, time_stride) for size in KERNEL_SIZES]
    if kind == "fc":
        norm = nn.LayerNorm(2 * channels, eps=1e-6)
        return nn.Sequential(nn.Linear(channels, 2 * channels), norm, nn.GELU(), nn.Linear(2 * channels, channels))
    if kind == "conv":
        return nn.Sequential(
            *(ConvNeXtBlock(channels, (7, 15, 31) if time_stride is None else sizes) for _ in range(4))
        )
    if kind == "convx2":
        return nn.Sequential(*(ConvNeXtBlock(channels, (7, 15)) for _ in range(3)))

    layers: list[nn.Module] = []
    if kind == "conv+att-rope":
        layers.append(ConvNeXtBlock(channels, (7, 19, 31), placement="post"))
    elif kind.startswith("conv"):
        layers.extend(ConvNeXtBlock(channels, [size]) for size in sizes)
    elif kind != "att-rope" and time_stride is None:
        layers.append(PositionalConv(channels, 59))
    if kind == "conv_large":
        return nn.Sequential(*layers, ConvNeXtBlock(channels, [15], dilation=7))

    attention = "stable" if "stable" in kind else "plain"
    if kind.endswith("-rope") or time_stride is not None:
        attention = "rope"
    wide = kind in ("att", "stable_att")
    layers.append(TransformerLayer(channels, channels * (2 if wide else 1), kind=attention, settings=settings))
    return nn.Sequential(*layers)


def _shrunk(kernel_size: int, time_stride: int) -> int:
    size = max(3, round(kernel_size / time_stride))
    return size + 1 - size % 2


class TimeContext(nn.Module):
    """The 1-D block: reduce the channels, model time, expand again, add to the input.

    Args:
        channels: in and out.
        hidden: after the reduction.
        kind: one of `CONTEXTS`.
        settings: of transformer layers.
        time_stride: see `create_context`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        kind: str,
        settings: AttentionSettings = AttentionSettings(),
        time_stride: int | None = None,
    ) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden, eps=1e-6))
        self.context = create_context(hidden, kind, settings, time_stride)
        self.expand = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        return x + self.expand(self.context(self.reduce(x)))


class FrequencyMixer(nn.Module):
    """A 1-D block that reduces channels and frequency one after the other, both depthwise: far fewer weights.

    Args:
        shape: (bins, channels) of the 2-D view of the input.
        hidden: channels while time is modelled.
        kind: one of `CONTEXTS`.
        settings: of transformer layers.
    """

    def __init__(
        self, shape: Sequence[int], hidden: int, kind: str, settings: AttentionSettings = AttentionSettings()
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        bins, channels = self.shape
        self.reduce = nn.Linear(channels, hidden, bias=False)
        self.reduce_bins = nn.Parameter(0.02 * _sinusoids(hidden, bins))
        self.reduce_bias = nn.Parameter(torch.zeros(hidden))
        self.reduce_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.context = create_context(hidden, kind, settings)
        self.context_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.expand_bins = nn.Parameter(0.02 * _sinusoids(hidden, bins))
        self.expand_bias = nn.Parameter(torch.zeros(hidden, bins))
        self.expand = nn.Linear(hidden, channels, bias=False)
        self.expand_norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins * channels]` to the same shape."""
        y = self.reduce(x.unflatten(-1, self.shape))
        y = (y * self.reduce_bins.T).sum(dim=2) + self.reduce_bias
        y = self.context_norm(self.context(self.reduce_norm(y)))
        y = y.unsqueeze(2) * self.expand_bins.T + self.expand_bias.T
        return x + self.expand_norm(self.expand(y)).flatten(2)


def _sinusoids(channels: int, bins: int) -> Tensor:
    """Sines and cosines over frequency, slower in later channels: `[channels, bins]`."""
    channel = torch.arange(channels)
    speeds = 10000.0 ** (-2.0 * (channel // 2) / channels)
    angles = torch.outer(speeds, torch.arange(bins).float())
    return torch.where(channel[:, None] % 2 == 0, angles.sin(), angles.cos())
