"""Softmax over a linear classifier of the embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.losses.classes import ClassWeights


class LinearSoftmax(ClassWeights):
    """Cross-entropy on a linear classifier of the embedding as it is: its length counts, and there is no margin.

    Args:
        embedding_dim: size of the full embedding.
        num_classes: number of speakers.
        label_smoothing: share of the target that is spread evenly over all classes, 0 to 1.

    Source: the loss of AutoSpeech (arXiv 2005.03215); label smoothing of Szegedy et al. (arXiv 1512.00567).
    """

    def __init__(self, embedding_dim: int, num_classes: int, label_smoothing: float = 0.0) -> None:
        super().__init__(embedding_dim, num_classes)
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
