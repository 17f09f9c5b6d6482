"""CAM++ of wespeaker (`wespeaker.models.campplus`) and 3D-Speaker (`speakerlab.models.campplus.DTDNN`).

Their weights have the same names. 3D-Speaker's model has an argument `embedding_size`, and a filter bank of its own.
"""

from dataclasses import replace
from typing import Any

from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, Rule, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import ENDING, Renames, apply_renames, numbered
from voxnest.models.campplus import FAMILY, FRONTEND_3DSPEAKER

_RULES: dict[str, Rule] = {
    "feat_dim": "bins",
    "init_channels": "channels",
    "growth_rate": "growth",
    "bn_size": "bottleneck",
}
_WESPEAKER = Arguments(
    {**_RULES, "pooling_func": "pooling", "embed_dim": dims},
    only={"config_str": ["batchnorm-relu"]},
    ignored=["memory_efficient"],  # saves memory in training, at the cost of time
)
_3DSPEAKER = replace(_WESPEAKER, rules={**_RULES, "embedding_size": dims})

_RENAMES: Renames = [
    (r"^xvector\.dense\.linear\.", "head.linear."),
    (r"^xvector\.dense\.nonlinear\.batchnorm\.", "head.out_norm."),
    (r"^head\.layer(\d)\.(\d)\.", lambda match: f"front.blocks.{2 * int(match[1]) + int(match[2]) - 2}."),
    (r"\.shortcut\.0\.", ".shortcut.conv."),
    (r"\.shortcut\.1\.", ".shortcut.norm."),
    (r"\.conv(\d)\.", r".conv\1.conv."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"^head\.conv1\.", "front.stem."),
    (r"^head\.conv2\.", "front.last."),
    (r"^xvector\.tdnn\.linear\.", "stem."),
    (r"^xvector\.tdnn\.nonlinear\.batchnorm\.", "stem_norm."),
    (r"^xvector\.out_nonlinear\.batchnorm\.", "norm."),
    (r"^xvector\.(?:block|transit)(\d)\.", numbered("blocks.")),
    (r"\.tdnnd(\d+)\.", numbered(".layers.")),
    (r"\.nonlinear(\d?)\.batchnorm\.", r".norm\1."),
    (r"(\.layers\.\d+)\.linear1\.", r"\1.reduce."),
    (r"\.cam_layer\.linear_local\.", ".conv."),
    (r"\.cam_layer\.linear1\.", ".mask.squeeze."),
    (r"\.cam_layer\.linear2\.", ".mask.excite."),
    (r"^(blocks\.\d+)\.linear\.", r"\1.transition."),
    (r"^(front|stem|stem_norm|blocks|norm)\.", r"backbone.\1."),
]


def _settings(description: Description) -> dict[str, Any]:
    if "embedding_size" not in description.config:
        return _WESPEAKER.translate(description.config)
    settings = _3DSPEAKER.translate(description.config)
    return {**settings, "frontend_options": FRONTEND_3DSPEAKER, "variance_floor": 0.0}


def _key(key: str, _: Settings) -> str:
    if key.startswith(("pool.", "xvector.stats.")):  # wespeaker's class holds its pooling twice
        return apply_renames(key.replace("xvector.stats.", "pool."), ENDING)
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, _settings, _key)
