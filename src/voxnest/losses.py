"""Losses that teach an encoder to tell speakers apart.

The classification losses take an embedding no longer than `embedding_dim` and compare it with that prefix of each
class weight, so that `voxnest.matryoshka.MatryoshkaLoss` can share one set of class weights among all prefixes.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AAMSoftmax(nn.Module):
    """Additive angular margin softmax (ArcFace).

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        margin: added to the angle between an embedding and its own class, in radians. May be set at any time, so a
            schedule can raise it during training.
        scale: of the cosines before the softmax.
        easy_margin: apply the margin only where the cosine is positive. Otherwise, beyond an angle of pi - margin,
            where the margin would raise the cosine again, the cosine is lowered by `margin * sin(margin)` instead.

    Source: Deng et al., ArcFace (arXiv 1801.07698).

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
        margin: float = 0.2,
        scale: float = 30.0,
        easy_margin: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_dim, self.num_classes = embedding_dim, num_classes
        self.margin, self.scale, self.easy_margin = margin, scale, easy_margin
        self.weight = nn.Parameter(torch.empty(self._rows(), embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    def _rows(self) -> int:
        return self.num_classes

    @torch.no_grad()
    def begin_at(self, centers: Tensor) -> None:
        """Start the classes at the mean embeddings `[num_classes, embedding_dim]` of a trained encoder.

        A tenth of the random start is kept, without which directions that the encoder does not use yet would have no
        gradient, and sub-centers would stay alike.
        """
        centers = F.normalize(centers.to(self.weight)).repeat_interleave(len(self.weight) // self.num_classes, dim=0)
        size = self.weight.norm(dim=1, keepdim=True)
        self.weight.copy_(size * F.normalize(centers + 0.1 * self.weight / size))

    def cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding `[batch, dim]` with each class: `[batch, num_classes]`, in float32."""
        weight = self.weight[:, : embedding.shape[1]]
        # bfloat16 rounds a cosine of 0.998 to 1, where the margin's derivative is infinite; small prefixes get there.
        with torch.autocast(embedding.device.type, enabled=False):
            return F.linear(F.normalize(embedding.float()), F.normalize(weight.float()))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits `[batch, num_classes]` of embeddings `[batch, dim]`, without margin."""
        return self.scale * self.cosines(embedding)

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean loss of a batch.

        Args:
            embedding: `[batch, dim]` with dim at most `embedding_dim`; any length.
            label: `[batch]` class indices.
            margin_share: how much of the margin is asked; see `MatryoshkaLoss`.
        """
        cosine = self.cosines(embedding)
        own = cosine.gather(1, label[:, None])
        logits = self.scale * cosine.scatter(1, label[:, None], self._with_margin(own, margin_share * self.margin))
        return F.cross_entropy(logits, label)

    def _with_margin(self, cosine: Tensor, margin: float) -> Tensor:
        # The derivative of the sine is infinite at 1, hence the clamp.
        cosine = cosine.clamp(-1 + 1e-7, 1 - 1e-7)
        sine = torch.sqrt(1.0 - cosine.square())
        shifted = cosine * math.cos(margin) - sine * math.sin(margin)
        if self.easy_margin:
            return torch.where(cosine > 0, shifted, cosine)
        beyond = cosine - margin * math.sin(math.pi - margin)
        return torch.where(cosine > math.cos(math.pi - margin), shifted, beyond)


class SubCenterAAMSoftmax(AAMSoftmax):
    """`AAMSoftmax` with several centers per speaker; the nearest one counts, so noisy recordings may have their own.

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        margin: see `AAMSoftmax`.
        scale: see `AAMSoftmax`.
        easy_margin: see `AAMSoftmax`.
        sub_centers: centers per speaker.

    Source: Deng et al., Sub-center ArcFace (ECCV 2020).
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: float = 0.2,
        scale: float = 30.0,
        easy_margin: bool = False,
        sub_centers: int = 3,
    ) -> None:
        self.sub_centers = sub_centers
        super().__init__(embedding_dim, num_classes, margin, scale, easy_margin)

    def _rows(self) -> int:
        return self.num_classes * self.sub_centers

    def cosines(self, embedding: Tensor) -> Tensor:
        """Cosine of each embedding `[batch, dim]` with the nearest center of each class: `[batch, num_classes]`."""
        return super().cosines(embedding).unflatten(1, (self.num_classes, self.sub_centers)).amax(dim=2)


class LinearSoftmax(AAMSoftmax):
    """Cross-entropy on a linear classifier of the embedding as it is: its length counts, and there is no margin.

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        label_smoothing: share of the target that is spread evenly over all classes, 0 to 1.

    Source: the loss of AutoSpeech (arXiv 2005.03215); label smoothing of Szegedy et al. (arXiv 1512.00567).
    """

    def __init__(self, embedding_dim: int, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__(embedding_dim, num_classes, margin=0.0, scale=1.0)
        self.label_smoothing = label_smoothing
        nn.init.uniform_(self.weight, -(embedding_dim**-0.5), embedding_dim**-0.5)  # as a linear layer
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def classify(self, embedding: Tensor) -> Tensor:
        """Logits `[batch, num_classes]` of embeddings `[batch, dim]`."""
        with torch.autocast(embedding.device.type, enabled=False):
            return F.linear(embedding.float(), self.weight[:, : embedding.shape[1]].float(), self.bias.float())

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean loss of a batch; see `AAMSoftmax`, but for the margin."""
        return F.cross_entropy(self.classify(embedding), label, label_smoothing=self.label_smoothing)


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
