"""The Matryoshka loss: one loss asked of several prefixes at once."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError


class MatryoshkaLoss(nn.Module):
    """The weighted mean of one base loss over the prefixes of an embedding.

    Args:
        base_loss: called as `base_loss(embedding [batch, dim], label [batch])` for each dim. A classification loss
            of `voxnest.losses` slices its class weights to the prefix, so one set serves all; `OwnClasses` has a set
            for each.
        dims: the prefixes to train.
        weights: how much each counts, in the order of `dims`; all the same if not given.
        margin_shares: how much of the base loss's margin is asked of each, in the order of `dims`; see
            `bearable_margin`. Given to the base loss as `margin_share`, which those of `voxnest.losses` take. All of it
            if not given.

    Source: Kusupati et al., Matryoshka Representation Learning (arXiv 2205.13147).

    Raises:
        ConfigError: if there are not as many weights or shares as dims, one is negative, or no weight is positive.

    Examples:
        >>> encoder = voxnest.create_encoder("redimnet-b0", dims=(64, 128, 192, 256))
        >>> loss = MatryoshkaLoss(AAMSoftmax(256, num_classes=5994), dims=encoder.dims)
        >>> total, per_dim = loss(encoder(waveform, all_dims=True), label)
        >>> total.backward()
    """

    def __init__(
        self,
        base_loss: nn.Module,
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        margin_shares: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        weights = [1.0] * len(dims) if weights is None else list(weights)
        for name, values in (("weights", weights), ("margin_shares", margin_shares)):
            if values is not None and len(values) != len(dims):
                raise ConfigError(name, f"{len(values)} of them", f"one for each of the dims {list(dims)}")
        if min(weights, default=0) < 0 or sum(weights) <= 0:
            raise ConfigError("weights", repr(weights), "numbers of which none is negative and one is positive")
        if margin_shares is not None and min(margin_shares) < 0:
            raise ConfigError("margin_shares", repr(list(margin_shares)), "numbers of which none is negative")
        self.base_loss = base_loss
        self.weights = {dim: weight / sum(weights) for dim, weight in zip(dims, weights, strict=True)}
        self.margin_shares = None if margin_shares is None else dict(zip(dims, margin_shares, strict=True))

    def forward(
        self, embeddings: Mapping[int, Tensor], label: Tensor, weights: Mapping[int, float] | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """Loss of a batch.

        Args:
            embeddings: `{dim: [batch, dim]}` with all the dims of this loss.
            label: `[batch]` class indices.
            weights: how much each dim counts in this batch, summing to 1; as the loss was made if not given.

        Returns:
            The weighted mean, and the loss of each dim without gradient, also of those that do not count.
        """
        weights = self.weights if weights is None else weights
        losses = {}
        for dim in self.weights:
            counts = weights.get(dim, 0.0) > 0 or not any(weights.values())
            with torch.set_grad_enabled(torch.is_grad_enabled() and counts):  # derivatives take the most time
                losses[dim] = self._of_prefix(embeddings[dim], label, dim)
        total = sum(weight * losses[dim] for dim, weight in weights.items())
        assert isinstance(total, Tensor)
        return total, {dim: loss.detach() for dim, loss in losses.items()}

    def _of_prefix(self, embedding: Tensor, label: Tensor, dim: int) -> Tensor:
        options = {} if self.margin_shares is None else {"margin_share": self.margin_shares[dim]}
        loss: Tensor = self.base_loss(embedding, label, **options)
        return loss


def bearable_margin(dim: int) -> float:
    """How much of the usual margin a prefix of `dim` numbers bears: none up to 16, half at 32, all from 64 on.

    In few dimensions there is no room for hundreds of speakers a margin apart; a prefix of which that is asked learns
    nothing, and disturbs what the others learn (docs/results.md).
    """
    return min(1.0, max(0.0, math.log2(dim / 16) / 2))
