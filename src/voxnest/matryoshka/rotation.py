"""A Matryoshka model without training: turn the embedding space so that the first numbers are the most useful ones.

A rotation changes no cosine of full embeddings, and is a part of the last layer once it is fitted, so it costs nothing.
What it changes is what a prefix holds.
"""

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.errors import ConfigError
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.head import MatryoshkaProjection


def pca_rotation(embeddings: Tensor) -> Tensor:
    """The principal directions of embeddings `[n, d]`, most variance first: orthogonal `[d, d]`, one in each row.

    Embeddings are normalised in length, as scores are cosines, and centred. With fewer embeddings than dimensions the
    last directions are arbitrary.

    Raises:
        ConfigError: for fewer than two embeddings, or some that are not finite.
    """
    unit = _unit(embeddings)
    centred = unit - unit.mean(dim=0)
    return _descending(centred.T @ centred).float()


def discriminative_rotation(embeddings: Tensor, speakers: Tensor, shrinkage: float = 1.0) -> Tensor:
    """The directions of embeddings `[n, d]` that tell speakers `[n]` apart best, first: orthogonal `[d, d]`.

    The directions of a discriminant analysis, made orthogonal in their order: each prefix spans the same space as that
    many discriminants, and only the space matters to what a prefix can tell. Pairs of speakers count by how much closer
    together they lie ("approximate pairwise accuracy"): in few dimensions it is the near ones that are confused, while
    plain linear discriminant analysis would pull the far ones further apart.

    Source: Loog, Duin and Haeb-Umbach, Multiclass linear dimension reduction by weighted pairwise Fisher criteria (IEEE
    TPAMI 23, 2001).

    Args:
        embeddings: of several pieces of each speaker; they are normalised in length.
        speakers: whole numbers that name each one's speaker.
        shrinkage: how much of the mean within-speaker variance is added in every direction, so that directions in
            which a small sample (or speech that the encoder was trained on) hardly varies are not taken for reliable.
            The default was best on held-out training speakers of three encoders, of 0.1 to 100.

    Raises:
        ConfigError: for fewer than two speakers, none with two embeddings, or embeddings that are not finite.
    """
    unit = _unit(embeddings)
    names, index, counts = speakers.unique(return_inverse=True, return_counts=True)
    if len(names) < 2 or counts.max() < 2:
        found = f"{len(unit)} embeddings of {len(names)} speakers"
        raise ConfigError("speakers", found, "two speakers, and one of whom there are two")
    means = torch.zeros(len(names), unit.shape[1], dtype=unit.dtype).index_add_(0, index, unit) / counts[:, None]
    deviations = unit - means[index]
    within = deviations.T @ deviations / len(unit)
    within += shrinkage * within.diagonal().mean() * torch.eye(len(within), dtype=unit.dtype)
    whiten = torch.linalg.inv(torch.linalg.cholesky(within))
    distance = torch.cdist(means @ whiten.T, means @ whiten.T).clamp(min=1e-6)
    pull = (torch.erf(distance / math.sqrt(8)) / (2 * distance.square())).fill_diagonal_(0.0)
    # The sum of pull * (m_i - m_j) (m_i - m_j)^T over all pairs, without making the pairs.
    between = means.T @ (pull.sum(dim=1).diag() - pull) @ means / pull.sum()
    discriminants = _descending(whiten @ between @ whiten.T) @ whiten
    orthogonal, triangle = torch.linalg.qr(discriminants.T)
    return (orthogonal * triangle.diagonal().sign()).T.float()


def with_dims(
    encoder: SpeakerEncoder, dims: Iterable[int], rotation: Tensor | None = None, mean: Tensor | None = None
) -> SpeakerEncoder:
    """A copy of an encoder with other sizes of embedding, and with its embedding space turned.

    As long as the largest size is not below the encoder's own, and no mean is taken away, full-size cosines stay as
    they are.

    Args:
        encoder: any; a batch norm of its embedding becomes part of the last layer.
        dims: sizes of the copy's embeddings. What goes beyond the encoder's own size is zero, to grow in training.
        rotation: orthogonal `[d, d]` for embeddings of size d, which are multiplied by it; those of exits are not.
        mean: `[d]`, taken away from embeddings before that; from those of exits it is not.

    Raises:
        ConfigError: for a rotation or mean of another size, dimensions that are not positive, or a mean for an encoder
            whose last layer has nothing to hold it.

    Examples:
        >>> encoder = load_encoder("redimnet-b2")
        >>> small = with_dims(encoder, (16, 32, 64, 192), pca_rotation(embeddings))
        >>> small(waveform, dim=32)
    """
    weight, bias = _folded(encoder.head)
    size = len(weight)
    if mean is not None:
        if mean.shape != (size,):
            raise ConfigError("mean", f"shape {list(mean.shape)}", f"[{size}]")
        if encoder.head.linear.bias is None and encoder.head.out_norm is None:
            raise ConfigError("mean", f"{encoder.name}, whose embedding has no offset", "a last layer with one")
        bias = bias - mean.to(bias)
    if rotation is not None:
        if rotation.shape != (size, size):
            raise ConfigError("rotation", f"shape {list(rotation.shape)}", f"[{size}, {size}]")
        weight, bias = rotation.to(weight) @ weight, rotation.to(bias) @ bias
    head = _head_like(encoder.head, dims, weight, bias)
    frontend, backbone, pooling, exits = copy.deepcopy(
        (encoder.frontend, encoder.backbone, encoder.pooling, encoder.exits)
    )
    taken: Any
    for taken in exits.values():
        taken.head = _head_like(taken.head, dims, *_folded(taken.head))
    kept = {dim: stage for dim, stage in encoder.dim_exits.items() if dim in head.dims}
    config = {**encoder.config, "dims": head.dims, "dim_exits": kept}
    changed = SpeakerEncoder(
        frontend, backbone, pooling, head, exits, architecture=encoder.architecture, name=encoder.name, config=config
    )
    is_whole = changed.embedding_dim >= encoder.embedding_dim
    for (stage, old), new in zip(encoder.ends.items(), changed.ends.values(), strict=True):
        keeps_cosines = is_whole and (mean is None or stage is not None)
        threshold = old.thresholds.get(encoder.embedding_dim)
        new.thresholds = {changed.embedding_dim: threshold} if keeps_cosines and threshold is not None else {}
        new.calibration = {}
    return changed.train(encoder.training)


def _unit(embeddings: Tensor) -> Tensor:
    """Check embeddings `[n, d]`; normalised in length, in float64."""
    if embeddings.ndim != 2 or len(embeddings) < 2:
        raise ConfigError("embeddings", f"shape {list(embeddings.shape)}", "[n, d] with at least two of them")
    if not embeddings.isfinite().all():
        raise ConfigError("embeddings", "NaN or infinite", "a model whose training did not diverge")
    return F.normalize(embeddings.double())


def _descending(symmetric: Tensor) -> Tensor:
    """Eigenvectors of a symmetric matrix in rows, that of the largest eigenvalue first."""
    vectors = torch.linalg.eigh(symmetric).eigenvectors.flip(1)
    return vectors.T.contiguous()


def _folded(head: MatryoshkaProjection) -> tuple[Tensor, Tensor]:
    """Weight and bias of one linear layer that does what linear layer and batch norm of the embedding do in use."""
    weight = head.linear.weight.detach()
    bias = weight.new_zeros(len(weight)) if head.linear.bias is None else head.linear.bias.detach()
    if (norm := head.out_norm) is not None:
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = (norm.running_var + norm.eps).rsqrt() * (1.0 if norm.weight is None else norm.weight.detach())
        bias = (bias - norm.running_mean) * scale + (0.0 if norm.bias is None else norm.bias.detach())
        weight = weight * scale[:, None]
    return weight, bias


def _head_like(head: MatryoshkaProjection, dims: Iterable[int], weight: Tensor, bias: Tensor) -> MatryoshkaProjection:
    """A head of the same form, which its architecture can build again, that computes `weight` and `bias`."""
    like, norm = head.linear, head.out_norm
    made = MatryoshkaProjection(
        like.in_features,
        dims,
        norm=isinstance(head.norm, nn.BatchNorm1d),
        bias=like.bias is not None,
        out_norm=norm is not None,
        out_affine=norm is not None and norm.affine,
    )
    size = made.dims[-1]
    made.norm = copy.deepcopy(head.norm)
    with torch.no_grad():
        made.linear.weight.copy_(F.pad(weight, (0, 0, 0, max(0, size - len(weight))))[:size])
        bias = F.pad(bias, (0, max(0, size - len(bias))))[:size]
        if made.linear.bias is not None:
            made.linear.bias.copy_(bias)
        if made.out_norm is not None:  # left without effect
            assert made.out_norm.running_var is not None
            assert made.out_norm.running_mean is not None
            made.out_norm.running_var.fill_(1.0 - made.out_norm.eps)
            if made.linear.bias is None:
                made.out_norm.running_mean.copy_(-bias)
    return made
