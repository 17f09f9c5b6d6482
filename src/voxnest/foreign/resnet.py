"""wespeaker's `ResNet*`, `SimAM_ResNet*_ASP`, `Res2Net34_*` and `Gemini_DF_ResNet*`.

Its other 2-D networks, and 3D-Speaker's, are named alike. With `two_emb_layer` the embedding is that of the second
layer, as wespeaker's own extraction gives it.
"""

import re
from collections.abc import Callable

from voxnest.foreign.settings import Arguments, Rule, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import ENDING, Renames, apply_renames, numbered
from voxnest.models import df_resnet, resnet
from voxnest.zoo.cards.df_resnet import SIZES as DF_SIZES
from voxnest.zoo.cards.resnet import SIZES

RULES: dict[str, Rule] = {
    "feat_dim": "bins",
    "pooling_func": "pooling",
    "embed_dim": dims,
    "two_emb_layer": "hidden_layer",
}
"""What all of wespeaker's 2-D networks have."""
# Dropout acts in training only, and on no weight.
_ARGUMENTS = Arguments({**RULES, "acoustic_dim": "bins", "in_planes": "channels"}, ignored=["dropout"])

_RENAMES: Renames = [
    (r"^front\.", ""),
    (r"^layer(\d)\.", numbered("stages.")),
    (r"\b(downsample|shortcut)\.0\.", "shortcut.conv."),
    (r"\b(downsample|shortcut)\.1\.", "shortcut.norm."),
    (r"\bconvs\.0\.", "conv2."),
    (r"\bbns\.0\.", "bn2."),
    (r"\bconv(\d)\.", r"conv\1.conv."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"^conv1\.", "stem."),
    (r"^(stem|stages)\.", r"backbone.\1."),
    (r"^pooling\.attention\.0\.", "pooling.attend."),
    (r"^pooling\.attention\.2\.", "pooling.norm."),
    (r"^pooling\.attention\.3\.", "pooling.score."),
    (r"^bottleneck\.", "head.linear."),
]

_DF_RENAMES: Renames = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d)\.", numbered("downsampling.")),
    (r"^(stem|downsampling\.\d)\.0\.", r"\1.conv."),
    (r"^(stem|downsampling\.\d)\.1\.", r"\1.norm."),
    (r"\bconv(\d)\.(?=weight)", r"conv\1.conv."),
    (r"\bbn(\d)\.", r"conv\1.norm."),
    (r"^(stem|downsampling|stages)\.", r"backbone.\1."),
]


def key_2d(renames: Renames) -> Callable[[str, Settings], str]:
    """What translates the keys of a 2-D network; `renames` are the rules of its backbone."""

    def translate(key: str, settings: Settings) -> str:
        hidden = settings["hidden_layer"]
        if key.startswith("pool."):
            return apply_renames(key, ENDING).replace("pooling.", "pooling.pooling." if hidden else "pooling.", 1)
        key = re.sub(r"^seg_1\.", "pooling.linear." if hidden else "head.linear.", key)
        key = re.sub(r"^seg_bn_1\.", "pooling.norm.", key)
        key = re.sub(r"^seg_2\.", "head.linear.", key)
        return apply_renames(key, renames)

    return translate


# The architecture is the size; arguments come on top of its settings.
TRANSLATION = Translation(
    resnet.FAMILY, lambda its: {**SIZES[its.architecture], **_ARGUMENTS.translate(its.config)}, key_2d(_RENAMES)
)
DF_TRANSLATION = Translation(
    df_resnet.FAMILY,
    lambda its: {**DF_SIZES[its.architecture], **_ARGUMENTS.translate(its.config)},
    key_2d(_DF_RENAMES),
)
