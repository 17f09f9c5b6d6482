"""Translate the weights of a reference's class to ours: tables of renamed keys, and what all families share of them."""

import re
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from voxnest.errors import CheckpointError

Renames = Sequence[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Patterns of keys, and what takes their place."""

ENDING: Renames = [
    (r"^pool\.linear1\.", "pooling.attend."),
    (r"^pool\.linear2\.", "pooling.score."),
    (r"^pool\.n_query\.", "pooling.queries."),
    (r"^pool\.", "pooling."),
    (r"\.heads_att_trans\.(\d+)\.att_0\.", r".attend.\1.0."),
    (r"\.heads_att_trans\.(\d+)\.att_1\.", r".attend.\1.2."),
    (r"^bn\.", "head.norm."),
    (r"^bn2\.", "head.out_norm."),
    (r"^linear\.", "head.linear."),
]
"""What comes after the backbone, pooling and embedding layers, as wespeaker and the official ReDimNet name it."""

Adapt = Callable[[Tensor, Tensor, str], Tensor]
"""Brings a foreign weight into the axes of ours, which has that key. One that cannot fit is given back as it is."""
_LISTED = 8
"""Keys of a kind that an error names; the names of many more say nothing new."""


def numbered(before: str, first: int = 1) -> Callable[[re.Match[str]], str]:
    """For `Renames`: `before`, and the pattern's group counted from 0 where they count from `first`."""
    return lambda match: f"{before}{int(match[1]) - first}."


def apply_renames(key: str, renames: Renames) -> str:
    """Our name of a key; each rule is tried on what the ones before have made of it."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key


def squeeze_axes(value: Tensor, target: Tensor, key: str) -> Tensor:
    """The same weight with axes of length 1 more or less: a convolution of one frame is a linear layer."""
    return value.reshape(target.shape) if value.squeeze().shape == target.squeeze().shape else value


def load_weights(
    module: nn.Module,
    name: str,
    state_dict: Mapping[str, Tensor],
    translate: Callable[[str], str],
    adapt: Adapt = squeeze_axes,
) -> None:
    """Put foreign weights into `module`.

    Args:
        module: ours.
        name: what errors are about.
        state_dict: foreign weights. Counters of batches may be missing; only training reads them.
        translate: our key for one of theirs.
        adapt: see `Adapt`.

    Raises:
        CheckpointError: if keys are missing or unexpected, shapes differ, or numbers are not finite; it lists them.
    """
    ours = module.state_dict()
    translated: dict[str, Tensor] = {}
    unexpected, misfits, unfit = [], [], []
    for key, value in state_dict.items():
        new = translate(key)
        if new not in ours:
            unexpected.append(repr(key))
            continue
        target = ours[new]
        # No adaptation changes how many numbers there are, and one of far too many could take all memory.
        translated[new] = adapt(value, target, new) if value.numel() == target.numel() else value
        if translated[new].shape != target.shape:
            misfits.append(f"{key!r} of shape {list(value.shape)} rather than {list(target.shape)}")
        elif target.is_floating_point() and not value.is_floating_point():
            unfit.append(f"{key!r} of {value.dtype} rather than {target.dtype}")
        elif not translated[new].to(target.dtype).isfinite().all():
            unfit.append(f"{key!r} with NaN or infinite numbers")
    missing = sorted(key for key in set(ours) - set(translated) if not key.endswith("num_batches_tracked"))
    problems = [
        f"{len(items)} {what}{'s' * (len(items) > 1)}: {', '.join(items[:_LISTED] + ['...'] * (len(items) > _LISTED))}"
        for what, items in (
            ("unexpected key", unexpected),
            ("wrong shape", misfits),
            ("unusable weight", unfit),
            ("missing key", missing),
        )
        if items
    ]
    if problems:
        raise CheckpointError(name, "; ".join(problems), "the weights of the reference's model of this configuration")
    module.load_state_dict(translated, strict=False)
