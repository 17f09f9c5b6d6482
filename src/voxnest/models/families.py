"""All families of networks, by architecture."""

from voxnest.models import (
    autospeech,
    autospeech_resnet,
    campplus,
    df_resnet,
    ecapa,
    ecapa2,
    eres2net,
    next_tdnn,
    redimnet,
    redimnet2,
    resnet,
    vgg_m,
    xvector,
)
from voxnest.models.family import Family

_MODULES = (
    redimnet,
    redimnet2,
    ecapa,
    ecapa2,
    campplus,
    resnet,
    df_resnet,
    eres2net,
    next_tdnn,
    xvector,
    vgg_m,
    autospeech,
    autospeech_resnet,
)

FAMILIES: dict[str, Family] = {module.FAMILY.architecture: module.FAMILY for module in _MODULES}
