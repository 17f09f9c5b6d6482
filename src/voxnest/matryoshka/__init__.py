"""Matryoshka embeddings: one model whose prefixes are embeddings too.

Source: Kusupati et al., Matryoshka Representation Learning (arXiv 2205.13147).
"""

from voxnest.matryoshka.loss import MatryoshkaLoss
from voxnest.models.head import MatryoshkaProjection

__all__ = ["MatryoshkaLoss", "MatryoshkaProjection"]
