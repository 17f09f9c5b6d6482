"""Additive angular margin softmax, with several centers per speaker and a penalty on the nearest other speakers."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from voxnest.losses.classes import ClassWeights, add_angle

USUAL_MARGIN = 0.2


class AAMSoftmax(ClassWeights):
    """Additive angular margin softmax (ArcFace).

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        margin: added to the angle between an embedding and its own class, in radians. May be set at any time, so a
            schedule can raise it during training.
        scale: of the cosines before the softmax.
        easy_margin: apply the margin only where the cosine is positive. Otherwise, beyond an angle of pi - margin,
            where the margin would raise the cosine again, the cosine is lowered by `margin * sin(margin)` instead.
        sub_centers: vectors per speaker, of which the nearest counts, so that noisy recordings may have their own.
        top_k: how many of the nearest other classes of each embedding are made harder (inter-top-k).
        top_margin: taken off the angles to these, in radians, at a margin of 0.2; it grows and shrinks with it.

    Source: Deng et al., ArcFace (arXiv 1801.07698) and Sub-center ArcFace (ECCV 2020); Zhao et al., inter-top-k penalty
    (arXiv 2110.05042), whose size follows the margin as in wespeaker (`ArcMarginProduct_intertopk_subcenter`).

    Examples:
        >>> loss = AAMSoftmax(embedding_dim=256, num_classes=5994)
        >>> embedding = torch.randn(32, 256)
        >>> label = torch.randint(0, 5994, (32,))
        >>> loss(embedding, label).backward()
        >>> loss(embedding[:, :64], label).ndim  # a prefix is compared with the prefix of the class weights
        0
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: float = USUAL_MARGIN,
        scale: float = 30.0,
        easy_margin: bool = False,
        sub_centers: int = 1,
        top_k: int = 0,
        top_margin: float = 0.06,
    ) -> None:
        super().__init__(embedding_dim, num_classes, margin, scale, sub_centers)
        self.easy_margin, self.top_k, self.top_margin = easy_margin, top_k, top_margin

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean loss of a batch.

        Args:
            embedding: `[batch, dim]` with dim at most `embedding_dim`; any length.
            label: `[batch]` class indices.
            margin_share: how much of the margin is asked; see `MatryoshkaLoss`.
        """
        cosine, own, margin = self.cosines(embedding), label[:, None], margin_share * self.margin
        logits = cosine.scatter(1, own, self._with_margin(cosine.gather(1, own), margin))
        if top_k := min(self.top_k, self.num_classes - 1):
            nearest = cosine.detach().scatter(1, own, -torch.inf).topk(top_k).indices
            penalty = self.top_margin * margin / USUAL_MARGIN
            logits = logits.scatter(1, nearest, add_angle(cosine.gather(1, nearest), -penalty))
        return F.cross_entropy(self.scale * logits, label)

    def _with_margin(self, cosine: Tensor, margin: float) -> Tensor:
        shifted = add_angle(cosine, margin)
        if self.easy_margin:
            return torch.where(cosine > 0, shifted, cosine)
        beyond = cosine - margin * math.sin(math.pi - margin)
        return torch.where(cosine > math.cos(math.pi - margin), shifted, beyond)


class SubCenterAAMSoftmax(AAMSoftmax):
    """`AAMSoftmax` with three centers per speaker unless told otherwise.

    Args:
        embedding_dim: see `AAMSoftmax`, as all others.
        num_classes: number of speakers.
        margin: in radians.
        scale: of the cosines.
        easy_margin: apply the margin only where the cosine is positive.
        sub_centers: centers per speaker.

    Source: Deng et al., Sub-center ArcFace (ECCV 2020).
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: float = USUAL_MARGIN,
        scale: float = 30.0,
        easy_margin: bool = False,
        sub_centers: int = 3,
    ) -> None:
        super().__init__(embedding_dim, num_classes, margin, scale, easy_margin, sub_centers)
