"""ERes2Net and ERes2NetV2 of wespeaker and 3D-Speaker.

Source: `wespeaker.models.eres2net` (`ERes2Net34_Base`, `_Large`, `_aug`), and `ERes2Net`, `ERes2Net_huge` and
`ERes2NetV2` of `speakerlab.models.eres2net`. 3D-Speaker's models have an argument `embedding_size`, and a filter bank
of their own. With `two_emb_layer` the embedding is that of the second layer.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from voxnest.foreign import resnet
from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import Renames, numbered
from voxnest.models.campplus import FRONTEND_3DSPEAKER
from voxnest.models.eres2net import FAMILY
from voxnest.zoo.cards.eres2net import SIZES

_WESPEAKER = Arguments({**resnet.RULES, "expansion": "expansion", "baseWidth": "width", "scale": "scale"})
_3DSPEAKER = Arguments(
    {
        **{key: rule for key, rule in _WESPEAKER.rules.items() if key != "embed_dim"},
        "embedding_size": dims,
        "m_channels": "channels",
        "num_blocks": "blocks",
    }
)

_RENAMES: Renames = [
    (r"^conv1\.", "stem.conv."),
    (r"^bn1\.", "stem.norm."),
    (r"^layer(\d)\.", numbered("stages.")),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    (r"\.conv(1|3)\.", r".conv\1.conv."),
    (r"\.bn(1|3)\.", r".conv\1.norm."),
    (r"\.convs\.(\d+)\.", r".parts.\1.conv."),
    (r"\.bns\.(\d+)\.", r".parts.\1.norm."),
    (r"\.fuse_models\.", ".fusions."),
    (r"^layer(\d)_downsample\.", numbered("reductions.")),
    (r"^layer3_ds\.", "reductions.0."),
    (r"^fuse_mode(\d+)\.", lambda match: f"fusions.{len(match[1]) - 2}."),
    (r"^fuse34\.", "fusions.0."),
    (r"\.local_att\.0\.", ".squeeze.conv."),
    (r"\.local_att\.1\.", ".squeeze.norm."),
    (r"\.local_att\.3\.", ".excite.conv."),
    (r"\.local_att\.4\.", ".excite.norm."),
    (r"^(stem|stages|reductions|fusions)\.", r"backbone.\1."),
]


def _settings(description: Description) -> dict[str, Any]:
    size, config = SIZES[description.architecture], description.config
    if "embedding_size" not in config:
        return {**size, **_WESPEAKER.translate(config)}
    settings = {**size, **_3DSPEAKER.translate(config)}
    return {**settings, "frontend_options": FRONTEND_3DSPEAKER, "variance_floor": 1e-8}


def _state(description: Description, _: Settings) -> dict[str, Tensor]:
    # In wespeaker, blocks that fuse hold the convolution of their first part apart from the others.
    apart = any(".conv2_1." in key for key in description.state)
    return _absorb_biases({_join_parts(key) if apart else key: value for key, value in description.state.items()})


def _join_parts(key: str) -> str:
    """A key of wespeaker as 3D-Speaker has it: a block's convolutions in one list."""
    if not re.match(r"layer[34]\.", key):
        return key
    key = re.sub(r"\.(conv|bn)s\.(\d+)\.", lambda match: f".{match[1]}s.{int(match[2]) + 1}.", key)
    return re.sub(r"\.(conv|bn)2_1\.", r".\1s.0.", key)


def _absorb_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out the biases before the normalisations of the fusions: those take a mean less each bias instead."""
    weights = dict(state)
    for key in state:
        match = re.fullmatch(r"(.*\.local_att)\.([03])\.bias", key)
        mean = match and f"{match[1]}.{int(match[2]) + 1}.running_mean"
        if mean in weights and weights[mean].shape == weights[key].shape:
            weights[mean] = weights[mean] - weights.pop(key)
    return weights


TRANSLATION = Translation(FAMILY, _settings, resnet.key_2d(_RENAMES), _state)
