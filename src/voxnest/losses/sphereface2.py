"""SphereFace2: every class is a yes or no of its own."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.losses.classes import ClassWeights, add_angle


class SphereFace2(ClassWeights):
    """A binary classification for each class, rather than one softmax over all.

    With g(z) = 2 ((z + 1) / 2)^t - 1 of a cosine z, the logit of the own class is scale * (g(z) - margin) + bias and
    that of any other scale * (g(z) + margin) + bias, for `margin_type` "C". For "A" it is scale * g + bias, of the
    cosine whose angle is the margin larger, or smaller.

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        margin: for "C" taken off a cosine, for "A" in radians. May be set at any time. Wespeaker advises 0.2 for "C"
            and 0.15 for "A", 0.3 and 0.25 to fine-tune.
        scale: of what is compared.
        margin_type: "C" (as of CosFace) or "A" (as of ArcFace).
        positive_weight: what the own class counts, 0 to 1; the others together count the rest for each. Lambda.
        exponent: how much cosines near 1 are told apart. t.
        sub_centers: vectors per speaker, of which the nearest counts.

    Source: Wen et al., SphereFace2 (arXiv 2108.01513), with its start of the bias, where own and other classes pull
    alike at cosines of 0 (wespeaker starts at 0); constants of wespeaker (`SphereFace2`); for speakers, Han et al.
    (ICASSP 2023).
    """

    def __init__(
        self,
        embedding_dim: int,
        num_classes: int,
        margin: float = 0.2,
        scale: float = 32.0,
        margin_type: Literal["A", "C"] = "C",
        positive_weight: float = 0.7,
        exponent: float = 3.0,
        sub_centers: int = 1,
    ) -> None:
        super().__init__(embedding_dim, num_classes, margin, scale, sub_centers)
        self.margin_type, self.positive_weight, self.exponent = margin_type, positive_weight, exponent
        self.bias = nn.Parameter(torch.tensor(self._balanced()))

    def _balanced(self) -> float:
        """The bias with which the gradients of own and other classes sum to 0 at cosines of 0."""
        own, other = (float(self._logits(torch.zeros(()), sign * self.margin)) for sign in (1, -1))
        ratio = self.positive_weight / max(1e-6, (1 - self.positive_weight) * (self.num_classes - 1))
        root = math.sqrt((1 - ratio) ** 2 + 4 * ratio * math.exp(own - other))
        if ratio > 1:  # the same, where the other form is a difference of nearly equal numbers
            return math.log((ratio - 1 + root) / 2) - own
        return math.log(2 * ratio) - other - math.log(1 - ratio + root)

    def _logits(self, cosine: Tensor, margin: float) -> Tensor:
        """Of the own class with a positive margin, of others with a negative one; without the bias."""
        if self.margin_type == "C":
            return self.scale * (self._adjusted(cosine) - margin)
        shifted = add_angle(cosine, margin)
        if margin > 0:  # beyond an angle of pi - margin the cosine would rise again
            turned = cosine <= math.cos(math.pi - margin)
            shifted = torch.where(turned, cosine - (1 + math.cos(math.pi - margin)), shifted)
        return self.scale * self._adjusted(shifted)

    def _adjusted(self, cosine: Tensor) -> Tensor:
        base = (cosine + 1) / 2  # below 0 for what is taken off a cosine of -1
        return 2 * base.sign() * base.abs() ** self.exponent - 1

    def forward(self, embedding: Tensor, label: Tensor, margin_share: float = 1.0) -> Tensor:
        """Mean loss of a batch; see `AAMSoftmax`."""
        cosine, own, margin = self.cosines(embedding), label[:, None], margin_share * self.margin
        bias = self.bias.float()
        positive = F.softplus(-self._logits(cosine.gather(1, own), margin) - bias)
        negative = F.softplus(self._logits(cosine, -margin) + bias).scatter(1, own, 0.0)
        weight = self.positive_weight
        return (weight * positive.sum(dim=1) + (1 - weight) * negative.sum(dim=1)).mean()
