"""wespeaker's `ECAPA_TDNN` (`wespeaker.models.ecapa_tdnn`)."""

from typing import Any

from voxnest.foreign.description import Description
from voxnest.foreign.settings import Arguments, dims
from voxnest.foreign.translation import Settings, Translation
from voxnest.foreign.weights import ENDING, Renames, apply_renames, numbered
from voxnest.models.ecapa import FAMILY

_ARGUMENTS = Arguments(
    {
        "channels": "channels",
        "feat_dim": "bins",
        "embed_dim": dims,
        "pooling_func": "pooling",
        "global_context_att": "global_context",
        "emb_bn": "out_norm",
    }
)

_RENAMES: Renames = [
    (r"^layer1\.", "backbone.stem."),
    (r"^layer(\d+)\.se_res2block\.", numbered("backbone.blocks.", 2)),
    (r"^(backbone\.blocks\.\d+)\.0\.", r"\1.before."),
    (r"^(backbone\.blocks\.\d+)\.1\.(conv|bn)s\.(\d+)\.", r"\1.split.blocks.\3.\2."),
    (r"^(backbone\.blocks\.\d+)\.2\.", r"\1.after."),
    (r"^(backbone\.blocks\.\d+)\.3\.linear1\.", r"\1.se.squeeze."),
    (r"^(backbone\.blocks\.\d+)\.3\.linear2\.", r"\1.se.excite."),
    (r"^conv\.", "backbone.aggregate.conv."),
    (r"\.bn\.", ".norm."),
    *ENDING,
]


def _settings(description: Description) -> dict[str, Any]:
    """What the name of the class says there, the weights say too: channels, and whether attention sees the context."""
    state = description.state
    inferred: dict[str, Any] = {"global_context": False}
    if "layer1.conv.weight" in state:
        inferred["channels"] = state["layer1.conv.weight"].shape[0]
    if "pool.linear1.weight" in state and "conv.weight" in state:
        # Attention that sees the context takes mean and deviation beside every frame.
        inferred["global_context"] = state["pool.linear1.weight"].shape[1] > state["conv.weight"].shape[0]
    return {**inferred, **_ARGUMENTS.translate(description.config)}


def _key(key: str, _: Settings) -> str:
    return apply_renames(key, _RENAMES)


TRANSLATION = Translation(FAMILY, _settings, _key)
