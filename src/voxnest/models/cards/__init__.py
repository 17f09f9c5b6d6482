"""The cards of all models, by family. What is published about a model, and the settings that make it, are data here."""

from voxnest.models.card import Card
from voxnest.models.cards import next_tdnn, redimnet, redimnet2, vgg_m

CARDS: dict[str, Card] = {**redimnet.CARDS, **redimnet2.CARDS, **next_tdnn.CARDS, **vgg_m.CARDS}
