"""Card of the x-vector (Snyder et al., ICASSP 2018)."""

from voxnest.zoo.card import Card, vox1

CARDS: dict[str, Card] = {
    "xvector": Card(
        "x-vector",
        "the classic baseline",
        "xvector",
        {},
        vox1(
            4.61,
            0.53,
            (1.749, 1.721, 2.944),
            (1.590, 1.641, 2.726),
            source="examples/voxceleb/v2 of wespeaker, large-margin fine-tuned",
        ),
    ),
}
