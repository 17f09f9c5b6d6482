"""The triplet loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TripletLoss(nn.Module):
    """Triplet loss on cosine distances with the hardest positive and negative of the batch.

    A batch needs at least two speakers, and two utterances of one of them; without, the loss is zero.

    Args:
        margin: by how much a negative must be farther than a positive.

    Source: Hermans et al., In Defense of the Triplet Loss (arXiv 1703.07737).

    Examples:
        >>> label = torch.tensor([0, 0, 1, 1])
        >>> TripletLoss()(torch.randn(4, 192), label).ndim
        0
    """

    def __init__(self, margin: float = 0.3) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean over the anchors that have both a positive and a negative.

        Args:
            embedding: `[batch, dim]`.
            label: `[batch]` class indices.
            margin_share: how much of the margin is asked; see `MatryoshkaLoss`.
        """
        unit = F.normalize(embedding.float())
        with torch.autocast(embedding.device.type, enabled=False):
            distance = 1.0 - unit @ unit.T
        same = label[:, None] == label[None, :]
        itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
        positive = distance.masked_fill(~same | itself, -torch.inf).amax(dim=1)
        negative = distance.masked_fill(same, torch.inf).amin(dim=1)
        usable = positive.isfinite() & negative.isfinite()
        if not usable.any():
            return 0.0 * embedding.sum()
        return F.relu(positive[usable] - negative[usable] + margin_share * self.margin).mean()
