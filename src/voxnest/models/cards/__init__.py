"""The cards of all models, by family. What is published about a model, and the settings that make it, are data here."""

from voxnest.models.card import Card
from voxnest.models.cards import df_resnet, ecapa, next_tdnn, redimnet, redimnet2, resnet, vgg_m, xvector

_FAMILIES = (redimnet, redimnet2, ecapa, resnet, df_resnet, next_tdnn, xvector, vgg_m)

CARDS: dict[str, Card] = {name: card for family in _FAMILIES for name, card in family.CARDS.items()}
