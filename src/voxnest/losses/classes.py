"""The class weights that embeddings are compared with: one set for all prefixes, or one for each."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassWeights(nn.Module):
    """A vector, or several, for each speaker; what all classification losses are made of.

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        margin: what a loss asks of the own class beyond being the nearest. May be set at any time, so a schedule can
            raise it during training.
        scale: of the cosines.
        sub_centers: vectors per speaker; the nearest one counts.
    """

    def __init__(
        self, embedding_dim: int, num_classes: int, margin: float = 0.0, scale: float = 1.0, sub_centers: int = 1
    ) -> None:
        super().__init__()
        self.embedding_dim, self.num_classes, self.sub_centers = embedding_dim, num_classes, sub_centers
        self.margin, self.scale = margin, scale
        self.weight = nn.Parameter(torch.empty(num_classes * sub_centers, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    @property
    def largest(self) -> ClassWeights:
        """Those that whole embeddings are compared with."""
        return self

    @torch.no_grad()
    def begin_at(self, centers: Tensor) -> None:
        """Start the classes at the mean embeddings `[num_classes, embedding_dim]` of a trained encoder.

        A tenth of the random start is kept, without which directions that the encoder does not use yet would have no
        gradient, and sub-centers would stay alike.
        """
        centers = F.normalize(centers.to(self.weight)).repeat_interleave(self.sub_centers, dim=0)
        size = self.weight.norm(dim=1, keepdim=True)
        self.weight.copy_(size * F.normalize(centers + 0.1 * self.weight / size))

    def cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding `[batch, dim]` with the nearest center of each class: `[batch, num_classes]`.

        In float32.
        """
        weight = self.weight[:, : embedding.shape[1]]
        # bfloat16 rounds a cosine of 0.998 to 1, where the margin's derivative is infinite; small prefixes get there.
        with torch.autocast(embedding.device.type, enabled=False):
            cosines = F.linear(F.normalize(embedding.float()), F.normalize(weight.float()))
        if self.sub_centers == 1:
            return cosines
        return cosines.unflatten(1, (self.num_classes, self.sub_centers)).amax(dim=2)

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits `[batch, num_classes]` of embeddings `[batch, dim]`, without margin."""
        return self.scale * self.cosines(embedding)


class OwnClasses(nn.Module):
    """A set of class weights for each prefix rather than one that all share.

    Args:
        losses: the loss of each dim, whose `embedding_dim` it is.

    Source: M-Vec (arXiv 2409.15782), whose prefixes have classifiers of their own.
    """

    def __init__(self, losses: Mapping[int, ClassWeights]) -> None:
        super().__init__()
        self.losses = nn.ModuleDict({str(dim): loss for dim, loss in losses.items()})

    @property
    def largest(self) -> ClassWeights:
        """Those that whole embeddings are compared with."""
        return self.losses[max(self.losses, key=int)]  # type: ignore[return-value]

    @property
    def margin(self) -> float:
        """Of all of them."""
        return self.largest.margin

    @margin.setter
    def margin(self, value: float) -> None:
        for loss in self.losses.values():
            loss.margin = value  # type: ignore[assignment]

    def begin_at(self, centers: Tensor) -> None:
        """Start the classes of each prefix at that prefix of mean embeddings; see `ClassWeights`."""
        for dim, loss in self.losses.items():
            loss.begin_at(centers[:, : int(dim)])  # type: ignore[operator]

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits `[batch, num_classes]` of embeddings `[batch, dim]`; see `ClassWeights`."""
        return self.losses[str(embedding.shape[1])].classify(embedding)  # type: ignore[operator]

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean loss of a batch of embeddings `[batch, dim]`, of one of the dims; see `AAMSoftmax`."""
        return self.losses[str(embedding.shape[1])](embedding, label, margin_share)


def add_angle(cosine: Tensor, angle: float) -> Tensor:
    """cos(theta + angle) of cos(theta), with finite derivatives everywhere."""
    # The derivative of the sine is infinite at 1, hence the clamp.
    cosine = cosine.clamp(-1 + 1e-7, 1 - 1e-7)
    return cosine * math.cos(angle) - torch.sqrt(1.0 - cosine.square()) * math.sin(angle)
