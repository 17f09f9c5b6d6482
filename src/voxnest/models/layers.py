"""Building blocks that keep the channels last: `[batch, frames, bins, channels]` and `[batch, frames, channels]`.

This order is what makes ReDimNet fast. Its 1-D and 2-D views are then the same memory (the 1-D channel of bin `f`
and 2-D channel `c` is `f * C + c`), so that changing between them costs nothing; a convolution whose kernel and
stride cover only frequency is one matrix product; and vector instructions run over channels. The weights keep the
usual layouts (`[out, in / groups, frames, bins]`), so any optimiser, exporter or initialiser understands them.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TimeFrequencyConv(nn.Conv2d):
    """A 2-D convolution of `[batch, frames, bins, in_channels]` that keeps frames and bins ("same" padding).

    `kernel_size` is (frames, bins), both odd.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, in_channels]` to `[batch, frames, bins, out_channels]`."""
        # The permuted view is what torch calls channels-last memory, and so is the result: nothing is copied.
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class TimeConv(TimeFrequencyConv):
    """A 1-D convolution over time of `[batch, frames, in_channels]` ("same" padding, odd kernel)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, 1), groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames, out_channels]`."""
        return super().forward(x.unsqueeze(2)).squeeze(2)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of the last axis: `[batch, frames, channels]` or `[batch, frames, bins, channels]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        if x.ndim == 3:
            return self.forward(x.unsqueeze(2)).squeeze(2)
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt-like residual block: grouped convolutions side by side, norm, activation, pointwise convolution.

    Args:
        channels: in and out.
        kernel_sizes: one convolution each; (frames, bins) pairs for a 2-D block, integers for a 1-D block.
        group_width: channels per group; None for an ordinary convolution.
        activation: "gelu" or "relu".

    Source: `ConvNeXtLikeBlock` of the official ReDimNet implementation.
    """

    def __init__(
        self,
        channels: int,
        kernel_sizes: list[tuple[int, int]] | list[int],
        *,
        group_width: int | None = 1,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        groups = 1 if group_width is None else channels // group_width
        self.convs = nn.ModuleList(
            TimeConv(channels, channels, size, groups=groups)
            if isinstance(size, int)
            else TimeFrequencyConv(channels, channels, size, groups=groups)
            for size in kernel_sizes
        )
        self.norm = BatchNorm(channels * len(kernel_sizes))
        self.activation = nn.GELU() if activation == "gelu" else nn.ReLU()
        self.pointwise = nn.Linear(channels * len(kernel_sizes), channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        branches = [conv(x) for conv in self.convs]
        merged = branches[0] if len(branches) == 1 else torch.cat(branches, dim=-1)
        return x + self.pointwise(self.activation(self.norm(merged)))


class FrequencySqueezeExcitation(nn.Module):
    """Squeeze-and-excitation whose gates belong to frequency bins rather than to channels (fwSE).

    Source: Thienpondt et al. (arXiv 2104.02370), as in the official ReDimNet implementation.
    """

    def __init__(self, bins: int, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(bins, hidden)
        self.excite = nn.Linear(hidden, bins)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, channels]` to the same shape."""
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(1, 3))))))
        return x * gate[:, None, :, None].to(x.dtype)


class ResidualBlock(nn.Module):
    """Basic residual block with depthwise-separable (grouped, then pointwise) 3x3 convolutions.

    Args:
        channels: in and out.
        bins: frequency bins, needed for the squeeze-and-excitation.
        group_width: channels per group; None for ordinary convolutions without the pointwise ones.
        frequency_se: with `FrequencySqueezeExcitation`.

    Source: `ResBasicBlock` of the official ReDimNet implementation (the activation stands before the first norm).
    """

    def __init__(self, channels: int, bins: int, *, group_width: int | None = 1, frequency_se: bool = False) -> None:
        super().__init__()
        separable = group_width is not None
        groups = channels // group_width if group_width is not None else 1
        self.conv1 = TimeFrequencyConv(channels, channels, (3, 3), groups=groups, bias=False)
        self.pointwise1 = nn.Linear(channels, channels) if separable else nn.Identity()
        self.norm1 = BatchNorm(channels)
        self.conv2 = TimeFrequencyConv(channels, channels, (3, 3), groups=groups, bias=False)
        self.pointwise2 = nn.Linear(channels, channels) if separable else nn.Identity()
        self.norm2 = BatchNorm(channels)
        hidden = min(64, max(channels, 32))
        self.se = FrequencySqueezeExcitation(bins, hidden) if frequency_se else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, channels]` to the same shape."""
        y = self.norm1(F.relu(self.pointwise1(self.conv1(x))))
        y = self.norm2(self.pointwise2(self.conv2(y)))
        return F.relu(self.se(y) + x)


class SelfAttention(nn.Module):
    """Multi-head self-attention over time, without mask or dropout.

    Source: the wav2vec 2.0 layer (transformers) that the official ReDimNet implementation uses.
    """

    def __init__(self, channels: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if self.training:
            # The fused kernel's backward pass is slow on CPUs at the few numbers per head that ReDimNet has.
            attended = torch.softmax(query @ key.transpose(2, 3) * query.shape[-1] ** -0.5, dim=-1) @ value
        else:
            attended = F.scaled_dot_product_attention(query, key, value)
        return self.out(attended.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward network, the norm after each residual sum (post-norm).

    Args:
        channels: in and out; divisible by `heads`.
        hidden: of the feed-forward network.
        heads: of the attention.

    Source: as `SelfAttention`. The first residual is added before the norm, so the second starts from the norm.
    """

    def __init__(self, channels: int, hidden: int, heads: int = 4) -> None:
        super().__init__()
        self.attention = SelfAttention(channels, heads)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, hidden)
        self.contract = nn.Linear(hidden, channels)
        self.final_norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, channels]` to the same shape."""
        x = self.norm(x + self.attention(x))
        return self.final_norm(x + self.contract(F.gelu(self.expand(x), approximate="tanh")))
