"""The Matryoshka loss: one loss asked of several prefixes at once."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from voxnest.errors import ConfigError


class MatryoshkaLoss(nn.Module):
    """The weighted mean of one base loss over the prefixes of an embedding.

    Args:
        base_loss: called as `base_loss(embedding [batch, dim], label [batch])` for each dim. A classification loss
            of `voxnest.losses` slices its class weights to the prefix, so one set serves all.
        dims: the prefixes to train.
        weights: how much each counts, in the order of `dims`; all the same if not given.

    Source: Kusupati et al., Matryoshka Representation Learning (arXiv 2205.13147).

    Raises:
        ConfigError: if there are not as many weights as dims, or none is positive.

    Example:
        >>> encoder = voxnest.create_encoder("redimnet-b0", dims=(64, 128, 192, 256))
        >>> loss = MatryoshkaLoss(AAMSoftmax(256, num_classes=5994), dims=encoder.dims)
        >>> total, per_dim = loss(encoder(waveform, all_dims=True), label)
        >>> total.backward()
    """

    def __init__(self, base_loss: nn.Module, dims: Sequence[int], weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = [1.0] * len(dims) if weights is None else list(weights)
        if len(weights) != len(dims):
            raise ConfigError("weights", f"{len(weights)} of them", f"one for each of the dims {list(dims)}")
        if min(weights, default=0) < 0 or sum(weights) <= 0:
            raise ConfigError("weights", repr(weights), "numbers of which none is negative and one is positive")
        self.base_loss = base_loss
        self.weights = {dim: weight / sum(weights) for dim, weight in zip(dims, weights, strict=True)}

    def forward(self, embeddings: Mapping[int, Tensor], label: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """Loss of a batch.

        Args:
            embeddings: `{dim: [batch, dim]}` with all the dims of this loss.
            label: `[batch]` class indices.

        Returns:
            The weighted mean, and the loss of each dim without gradient.
        """
        losses = {dim: self.base_loss(embeddings[dim], label) for dim in self.weights}
        total = sum(weight * losses[dim] for dim, weight in self.weights.items())
        assert isinstance(total, Tensor)
        return total, {dim: loss.detach() for dim, loss in losses.items()}
