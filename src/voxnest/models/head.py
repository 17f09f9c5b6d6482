"""The head: pooled statistics to an embedding whose prefixes are embeddings too."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from voxnest.errors import ConfigError


class Unchanged(nn.Module):
    """In the place of a linear layer that would change nothing, and has its weights without holding them."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.in_features = features

    @property
    def weight(self) -> Tensor:
        """The identity `[features, features]`."""
        return torch.eye(self.in_features)

    @property
    def bias(self) -> Tensor:
        """Zeros `[features]`."""
        return torch.zeros(self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """What was given."""
        return x


class MatryoshkaProjection(nn.Module):
    """Batch normalisation and one linear layer; the first d numbers of its output are an embedding for each d.

    Every encoder ends in one of these. With a single dimension it is the plain head of the field.

    Args:
        in_features: size of the pooled vector.
        dims: sizes of the embeddings, in any order; the largest is the full embedding.
        norm: batch normalisation of the pooled vector.
        linear: with the linear layer; without, the pooled vector is the full embedding.
        bias: of the linear layer.
        out_norm: a further batch normalisation of the embedding.
        out_affine: that one has a scale and an offset of its own.

    Source: Kusupati et al., Matryoshka Representation Learning (arXiv 2205.13147).

    Raises:
        ConfigError: for dimensions that are not positive, or none; or if without a linear layer the largest one is not
            that of the pooled vector.
    """

    def __init__(
        self,
        in_features: int,
        dims: Iterable[int],
        *,
        norm: bool = True,
        linear: bool = True,
        bias: bool = True,
        out_norm: bool = False,
        out_affine: bool = True,
    ) -> None:
        super().__init__()
        self.dims = tuple(sorted(set(dims)))
        if not self.dims or self.dims[0] < 1:
            raise ConfigError("dims", repr(list(self.dims)), "one or more positive numbers")
        if not linear and self.dims[-1] != in_features:
            raise ConfigError("dims", str(self.dims[-1]), f"{in_features}, the size of the pooled vector")
        self.norm = nn.BatchNorm1d(in_features) if norm else nn.Identity()
        self.linear = nn.Linear(in_features, self.dims[-1], bias) if linear else Unchanged(in_features)
        self.out_norm = nn.BatchNorm1d(self.dims[-1], affine=out_affine) if out_norm else None

    def forward(self, pooled: Tensor) -> Tensor:
        """`[batch, in_features]` to the full embedding `[batch, dims[-1]]`."""
        embedding = self.linear(self.norm(pooled))
        return embedding if self.out_norm is None else self.out_norm(embedding)

    def check_dim(self, dim: int) -> int:
        """Give `dim` back if the model was trained for it.

        Raises:
            ConfigError: that lists the dimensions there are.
        """
        if dim not in self.dims:
            raise ConfigError("dim", f"{dim}", "one the model was trained for: " + ", ".join(map(str, self.dims)))
        return dim

    def prefix(self, embedding: Tensor, dim: int) -> Tensor:
        """The first `dim` numbers of a full embedding `[batch, dims[-1]]`: `[batch, dim]`."""
        return embedding[:, : self.check_dim(dim)]
