"""Cards of ECAPA-TDNN (arXiv 2005.07143) and ECAPA2 (arXiv 2401.08342).

Published figures are those of the table that ReDimNet's authors give (EVALUATION.md of IDRnD/ReDimNet).
"""

from voxnest.zoo.card import Card, vox1
from voxnest.zoo.cards.redimnet import POOLING

_SOURCE = "EVALUATION.md of IDRnD/ReDimNet"

CARDS: dict[str, Card] = {
    "ecapa-tdnn-512": Card(
        "ECAPA-TDNN",
        "1-D, widely used",
        "ecapa",
        {},
        vox1(
            6.4,
            1.05,
            as_norm=(0.94, 1.21, 2.20),
            source=f"{_SOURCE}; without large-margin fine-tuning",
            note=f"wespeaker, whose model this is, counts 6.19 M and 1.04 GMACs; {POOLING} (with that: 1.03)",
        ),
    ),
    "ecapa-tdnn-1024": Card(
        "ECAPA-TDNN",
        "1-D, widely used, wider",
        "ecapa",
        {"channels": 1024},
        vox1(
            14.9,
            2.67,
            (0.98, 1.13, 2.09),
            source=f"{_SOURCE}; large-margin fine-tuned",
            note=f"wespeaker, whose model this is, counts 14.65 M and 2.65 GMACs; {POOLING} (with that: 2.63)",
        ),
    ),
    "ecapa2": Card(
        "ECAPA2",
        "2-D then 1-D, very large computation",
        "ecapa2",
        {},
        vox1(
            27.1,
            187.0,
            (0.44, 0.62, 1.15),
            source=f"{_SOURCE}; large-margin fine-tuned, GMACs estimated there",
            note=(
                "the published GMACs are an estimate; these layers cost 260 at 10 ms per frame. No code was released: "
                "layer sizes are those of public reimplementations. Chosen here: gates per frequency with 128 hidden "
                "units and no batch normalisation (per channel and with it: 27.1 M parameters), SpeechBrain's "
                "attentive pooling, and log powers of 256 linear frequencies as features"
            ),
        ),
    ),
}
