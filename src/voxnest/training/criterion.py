"""The loss of a configuration."""

from __future__ import annotations

import math
from typing import Any

from voxnest.errors import ConfigError
from voxnest.losses import AAMSoftmax, ClassWeights, LinearSoftmax, OwnClasses, SphereFace2
from voxnest.matryoshka import MatryoshkaLoss
from voxnest.matryoshka.loss import bearable_margin
from voxnest.training.loss_config import Loss
from voxnest.training.schedules import dim_weights_at


def build_criterion(loss: Loss, dims: tuple[int, ...], num_classes: int) -> MatryoshkaLoss:
    """Make the loss of a configuration over `num_classes` speakers.

    Raises:
        ConfigError: not one number for each of the dims, or no prefix that a batch trains at the start.
    """
    given: dict[str, Any] = {key: getattr(loss, f"dim_{key}") for key in ("weights", "margins", "starts")}
    lists = {f"loss.dim_{key}": value for key, value in given.items() if value is not None}
    lists |= {f"loss.duration_weights.{seconds:g}": value for seconds, value in loss.duration_weights.items()}
    for key, value in lists.items():
        if len(value) != len(dims):
            raise ConfigError(key, f"{len(value)} of them", f"one for each of the dims {list(dims)}")
    for seconds in (*loss.duration_weights, math.inf):
        if not any(dim_weights_at(0.0, seconds, loss, dims).values()):
            batches = "all batches" if math.isinf(seconds) else f"batches of {seconds:g} s"
            found = f"{loss.dim_starts}, by which {batches} train nothing at first"
            raise ConfigError("loss.dim_starts", found, "a 0 for a prefix that they train")
    base = (
        _over_classes(loss, dims[-1], num_classes)
        if loss.classes == "shared"
        else OwnClasses({dim: _over_classes(loss, dim, num_classes) for dim in dims})
    )
    return MatryoshkaLoss(base, dims, loss.dim_weights, loss.dim_margins or [bearable_margin(dim) for dim in dims])


def _over_classes(loss: Loss, dim: int, num_classes: int) -> ClassWeights:
    """One set of class weights."""
    if loss.kind == "softmax":
        return LinearSoftmax(dim, num_classes, loss.label_smoothing)
    margin, scale = loss.margin_start, loss.scale
    if loss.kind == "sphereface2":
        return SphereFace2(dim, num_classes, margin, scale, loss.margin_type, loss.positive_weight, loss.exponent)
    sub_centers = loss.sub_centers if loss.kind == "subcenter" else 1
    return AAMSoftmax(dim, num_classes, margin, scale, loss.easy_margin, sub_centers, loss.top_k, loss.top_margin)
