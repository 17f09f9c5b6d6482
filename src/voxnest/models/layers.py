"""Layers of several families that keep channels last: `[batch, frames, bins, channels]`, `[batch, frames, channels]`.

This order is what makes ReDimNet fast. Its 1-D and 2-D views are then the same memory (the 1-D channel of bin `f`
and 2-D channel `c` is `f * C + c`), so that changing between them costs nothing; a convolution whose kernel and
stride cover only frequency is one matrix product; and vector instructions run over channels. The weights keep the
usual layouts (`[out, in / groups, frames, bins]`), so any optimiser, exporter or initialiser understands them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import AudioError


def check_frames(features: Tensor, needed: int) -> None:
    """Refuse features `[batch, bins, frames]` that are too short for a network.

    Raises:
        AudioError: that says how many frames are needed.
    """
    if features.shape[-1] < needed:
        raise AudioError("features", f"{features.shape[-1]} frames", f"at least {needed}")


def making_graph() -> bool:
    """Whether the operations are being written down, for an export, rather than done for their own sake.

    What is written in place, for speed, then has to be written anew.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def standardized(weight: Tensor) -> Tensor:
    """A weight whose every output has zero mean and unit deviation (weight standardisation, arXiv 1903.10520)."""
    wide = weight.float().flatten(1)
    deviation, mean = torch.std_mean(wide, dim=1, keepdim=True)
    return ((wide - mean) / (deviation + 1e-5)).view_as(weight).to(weight.dtype)


def mean_and_variance(x: Tensor, correction: int = 1) -> tuple[Tensor, Tensor]:
    """Mean and variance over time of `[batch, frames, channels]`, each `[batch, channels]`.

    In two passes: over any but the last axis, torch's `var_mean` takes more than ten times as long on a CPU.
    """
    mean = x.mean(dim=1, keepdim=True)
    variance = (x - mean).square().sum(dim=1) / (x.shape[1] - correction)
    return mean.squeeze(1), variance


class TimeFrequencyConv(nn.Conv2d):
    """A 2-D convolution of `[batch, frames, bins, in_channels]` that keeps frames and bins ("same" padding).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: (frames, bins).
        groups: of channels that do not see each other.
        dilation: in time and frequency.
        bias: add one.
        standardize: see `standardized`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        groups: int = 1,
        dilation: int = 1,
        bias: bool = True,
        standardize: bool = False,
    ) -> None:
        # Odd kernels in numbers: onnxruntime has no "same" padding of dilated ones.
        padding = "same" if any(size % 2 == 0 for size in kernel_size) else [dilation * (n // 2) for n in kernel_size]
        super().__init__(in_channels, out_channels, kernel_size, 1, padding, dilation, groups, bias)  # type: ignore[arg-type]
        self.standardize = standardize

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, bins, in_channels]` to `[batch, frames, bins, out_channels]`."""
        weight = standardized(self.weight) if self.standardize else self.weight
        # The permuted view is what torch calls channels-last memory, and so is the result: nothing is copied.
        return self._conv_forward(x.permute(0, 3, 1, 2), weight, self.bias).permute(0, 2, 3, 1)


class TimeConv(TimeFrequencyConv):
    """A 1-D convolution over time of `[batch, frames, in_channels]` ("same" padding)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, groups: int = 1, dilation: int = 1
    ) -> None:
        super().__init__(in_channels, out_channels, (kernel_size, 1), groups=groups, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, frames, in_channels]` to `[batch, frames, out_channels]`."""
        return super().forward(x.unsqueeze(2)).squeeze(2)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of the last axis: `[batch, frames, channels]` or `[batch, frames, bins, channels]`."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as given."""
        if x.ndim == 3:
            return self.forward(x.unsqueeze(2)).squeeze(2)
        if self.training and x.device.type == "cpu" and x.shape[-1] % 16 and x.shape[2] > 1:
            return self._train_folded(x)
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _train_folded(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        result, mean, variance = _FoldedBatchNorm.apply(x, self.weight, self.bias, self.eps)
        assert self.momentum is not None
        count = x[..., 0].numel()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return result


class _FoldedBatchNorm(torch.autograd.Function):
    """Batch normalisation with batch statistics whose vector instructions run over bins and channels together.

    torch's own kernel runs over the channels of one bin. With 10 channels, as ReDimNet b0 has, most of each instruction
    does nothing: in float32 it takes ten times as long as with 16.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """`x [batch, frames, bins, channels]` to the same shape, and the mean and variance of the batch [channels]."""
        bins, rows = x.shape[2], x.flatten(2).flatten(0, 1)
        count = rows.shape[0] * bins
        mean = _fold_sum(rows, bins) / count
        # Centred before squaring: the difference of large sums would lose a small variance.
        centre = mean.to(x.dtype)
        variance = _fold_sum((rows - centre.repeat(bins)).square(), bins) / count - (mean - centre).square()
        variance = variance.clamp(min=0.0)
        deviation = torch.rsqrt(variance + eps)
        scale = weight * deviation
        result = torch.addcmul(_unfold(bias - mean * scale, rows, bins), rows, _unfold(scale, rows, bins))
        ctx.save_for_backward(x, weight, mean, deviation)
        ctx.mark_non_differentiable(mean, variance)
        return result.view_as(x), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Gradients of `x`, `weight` and `bias`."""
        x, weight, mean, deviation = ctx.saved_tensors
        bins, rows = x.shape[2], x.flatten(2).flatten(0, 1)
        count, gradient = rows.shape[0] * bins, gradients[0].flatten(2).flatten(0, 1)
        of_bias = _fold_sum(gradient, bins)
        centre = mean.to(x.dtype)
        of_weight = (_fold_sum(gradient * (rows - centre.repeat(bins)), bins) - (mean - centre) * of_bias) * deviation
        scale = weight * deviation
        slope = -scale * deviation * of_weight / count
        offset = -scale * of_bias / count - slope * mean
        result = torch.addcmul(_unfold(offset, rows, bins), rows, _unfold(slope, rows, bins))
        result.addcmul_(gradient, _unfold(scale, rows, bins))
        return result.view_as(x), of_weight, of_bias, None


def _fold_sum(rows: Tensor, bins: int) -> Tensor:
    """Sum `[rows, bins * channels]` to `[channels]` in float32."""
    return rows.sum(dim=0, dtype=torch.float32).unflatten(0, (bins, -1)).sum(dim=0)


def _unfold(values: Tensor, like: Tensor, bins: int) -> Tensor:
    """Repeat `[channels]` for every bin, `[bins * channels]`, in the type of `like`."""
    return values.repeat(bins).to(like.dtype)


def scale_and_offset(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """What a batch normalisation does in eval mode, `x * scale + offset`: `[channels]` each."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    scale = scale if norm.weight is None else norm.weight * scale
    return scale, (0.0 if norm.bias is None else norm.bias) - norm.running_mean * scale


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
