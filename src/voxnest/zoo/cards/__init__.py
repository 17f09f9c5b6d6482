"""The cards of all models, by family. What is published about a model, and the settings that make it, are data here."""

from voxnest.zoo.card import Card
from voxnest.zoo.cards import (
    autospeech,
    campplus,
    df_resnet,
    ecapa,
    eres2net,
    next_tdnn,
    redimnet,
    redimnet2,
    resnet,
    vgg_m,
    xvector,
)

_FAMILIES = (redimnet, redimnet2, ecapa, campplus, resnet, df_resnet, eres2net, next_tdnn, xvector, vgg_m, autospeech)

CARDS: dict[str, Card] = {name: card for family in _FAMILIES for name, card in family.CARDS.items()}
