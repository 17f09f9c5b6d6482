"""Put the weights of a reference implementation into ours: what the translations of all families share."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from voxnest.errors import CheckpointError

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns of keys, and what takes their place."""


def apply_renames(key: str, renames: Renames) -> str:
    """Our name of a key; each rule is tried on what the ones before have made of it."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def load_official(
    module: nn.Module,
    name: str,
    config: Mapping[str, Any],
    state_dict: Mapping[str, Tensor],
    translate: Callable[[str], str],
    *,
    head: int | None = None,
) -> None:
    """Put foreign weights into `module`, their keys made ours by `translate`.

    Constant buffers of the front end are left out, and the class head if there is one (`head` is its size). Kernels of
    the layout for TensorFlow (`tf_optimized_arch`) are read as (frames, bins): no class for it was published.

    Raises:
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    ours = module.state_dict()
    time_first = bool(config.get("tf_optimized_arch"))
    translated: dict[str, Tensor] = {}
    unexpected = []
    for key, value in state_dict.items():
        if key.startswith(("spec.torchfbank.", "spec.spectrogram.")) or (head and key.startswith("cls_head.")):
            continue
        new = translate(key)
        if new not in ours:
            unexpected.append(key)
            continue
        if time_first and value.ndim == 4 and not new.endswith("weigh.weight"):
            value = value.swapdims(2, 3)
        translated[new] = _reshape(value, ours[new], new)
        if translated[new].shape != ours[new].shape:
            raise CheckpointError(
                name, f"{key!r} of shape {list(value.shape)}", f"one that fits {list(ours[new].shape)}"
            )
    missing = sorted(set(ours) - set(translated))
    problems = []
    if unexpected:
        problems.append(f"unexpected key{'s' * (len(unexpected) > 1)} {', '.join(map(repr, unexpected))}")
    if missing:
        problems.append(f"{len(missing)} missing keys: {', '.join(missing)}")
    if problems:
        raise CheckpointError(name, "; ".join(problems), "the keys of the official model of this configuration")
    module.load_state_dict(translated)


def load_weights(
    module: nn.Module, name: str, state_dict: Mapping[str, Tensor], translate: Callable[[str], str]
) -> None:
    """Put foreign weights into `module`, their keys made ours by `translate`; 1x1 convolutions may become linear.

    Raises:
        CheckpointError: if keys are missing or unexpected, or shapes differ; it lists them.
    """
    ours = module.state_dict()
    translated, unexpected, misfits = {}, [], []
    for key, value in state_dict.items():
        new = translate(key)
        if new not in ours:
            unexpected.append(repr(key))
            continue
        shape = ours[new].shape
        translated[new] = value.flatten(1) if len(shape) == 2 and value.shape[2:].numel() == 1 else value
        if translated[new].shape != shape:
            misfits.append(f"{key!r} of shape {list(value.shape)} rather than {list(shape)}")
    # Counters of batches are not in every file; only training reads them.
    missing = sorted(key for key in set(ours) - set(translated) if not key.endswith("num_batches_tracked"))
    problems = [
        f"{text} {', '.join(items)}"
        for text, items in (("unexpected keys", unexpected), ("wrong shapes", misfits), ("missing keys", missing))
        if items
    ]
    if problems:
        raise CheckpointError(name, "; ".join(problems), "the weights of the reference's model of this configuration")
    module.load_state_dict(translated, strict=False)


def _reshape(value: Tensor, target: Tensor, key: str) -> Tensor:
    """Bring a foreign weight into our axes; what cannot fit is left for the caller to report."""
    shape = target.shape
    if key.endswith("weigh.weight") and value.ndim == 4:
        return value.reshape(value.shape[1], value.shape[2])
    if key.endswith("patch.linear.weight") and value.ndim == 4:
        return value[..., 0].transpose(1, 2).flatten(1)
    if len(shape) == 4 and value.ndim == 4:
        return value.transpose(2, 3)
    if len(shape) == 4 and value.ndim == 3:
        return value.unsqueeze(-1)
    if len(shape) < value.ndim and value.numel() == target.numel():
        return value.reshape(shape)
    return value
