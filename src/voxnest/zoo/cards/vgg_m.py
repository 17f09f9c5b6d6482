"""Card of VGG-M for speakers (arXiv 1706.08612)."""

from voxnest.zoo.card import Card, Published

CARDS: dict[str, Card] = {
    "vgg-m": Card(
        "VGG-M",
        "the VoxCeleb baseline",
        "vgg-m",
        {},
        Published(
            parameters=67.0,
            eer={"Vox1-O": 10.2},
            source="arXiv 2005.03215 and 1706.08612: CNN-1024, trained on VoxCeleb1, original trial list",
            note="the layers of the paper hold 17.9 M parameters with the class layer of 1,251 speakers; 67 is about"
            " their size in MiB (float32: 68.3), the figure that MatConvNet prints. Without that layer: 16.6 M",
        ),
    ),
}
