"""The card of CAM++ (arXiv 2303.00332), in the size that wespeaker and 3D-Speaker publish."""

from voxnest.zoo.card import Card, vox1

CARDS: dict[str, Card] = {
    "campplus": Card(
        "CAM++",
        "fast, 1-D behind a 2-D front",
        "campplus",
        {},
        vox1(
            7.2,
            1.15,
            (0.71, 0.85, 1.66),
            (0.659, 0.803, 1.569),
            source="EVALUATION.md of IDRnD/ReDimNet, large-margin fine-tuned on VoxCeleb2; with AS-norm: wespeaker, "
            "examples/voxceleb/v2",
            note="masks are computed once per segment of 100 frames; at every frame, as in the reference, it is 1.11. "
            "The published count includes normalisations, and 200 frames where 2 s give 198",
        ),
    ),
}
