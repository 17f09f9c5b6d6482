"""Matryoshka embeddings: one model whose prefixes are embeddings too, by training or by rotation.

Source: Kusupati et al., Matryoshka Representation Learning (arXiv 2205.13147).
"""

from voxnest.matryoshka.learning import learned_rotation
from voxnest.matryoshka.loss import MatryoshkaLoss
from voxnest.matryoshka.rotation import discriminative_rotation, pca_rotation, with_dims
from voxnest.models.head import MatryoshkaProjection

__all__ = [
    "MatryoshkaLoss",
    "MatryoshkaProjection",
    "discriminative_rotation",
    "learned_rotation",
    "pca_rotation",
    "with_dims",
]
