"""voxnest: speaker recognition with nested (Matryoshka) embeddings.

The public names below are imported on first use, so that `import voxnest` stays light.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "SpeakerEncoder": "voxnest.models.encoder",
    "create_encoder": "voxnest.models.registry",
    "list_models": "voxnest.models.registry",
    "load_encoder": "voxnest.hub.checkpoint",
    "save_encoder": "voxnest.hub.checkpoint",
    "read_audio": "voxnest.audio",
    "MatryoshkaProjection": "voxnest.models.head",
    "MatryoshkaLoss": "voxnest.matryoshka.loss",
    "AAMSoftmax": "voxnest.losses",
    "SubCenterAAMSoftmax": "voxnest.losses",
    "TripletLoss": "voxnest.losses",
    "compute_eer": "voxnest.evaluation",
    "compute_min_dcf": "voxnest.evaluation",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'voxnest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
