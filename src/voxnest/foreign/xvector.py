"""wespeaker's `XVEC`, with embedding "b", as used there."""

from typing import Any

from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import ENDING, Renames, apply_renames, numbered
from voxnest.models.xvector import FAMILY

_ARGUMENTS = Arguments(
    {
        "feat_dim": "bins",
        "hid_dim": "channels",
        "stats_dim": "out_channels",
        "embed_dim": dims,
        "pooling_func": "pooling",
    }
)
_DEFAULTS = {"feat_dim": 40, "embed_dim": 512}  # the class's own, other than ours

_RENAMES: Renames = [
    (r"^frame_(\d)\.", numbered("backbone.layers.")),
    (r"\.conv_1d\.", ".conv."),
    (r"\.bn\.", ".norm."),
    (r"^seg_1\.", "pooling.linear."),
    (r"^seg_bn_1\.", "pooling.norm."),
    (r"^seg_2\.", "head.linear."),
]


def _settings(description: Description) -> dict[str, Any]:
    return _ARGUMENTS.translate({**_DEFAULTS, **description.config})


def _key(key: str, _: Settings) -> str:
    if key.startswith("pool."):
        return apply_renames(key, ENDING).replace("pooling.", "pooling.pooling.", 1)
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, _settings, _key)
