"""The cards of all models, by family. What is published about a model, and the settings that make it, are data here."""

from voxnest.models.card import Card
from voxnest.models.cards import redimnet, redimnet2

CARDS: dict[str, Card] = {**redimnet.CARDS, **redimnet2.CARDS}
