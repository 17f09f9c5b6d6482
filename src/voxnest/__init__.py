"""voxnest: speaker recognition with nested (Matryoshka) embeddings.

The public names below are imported on first use, so that `import voxnest` stays light.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "SpeakerEncoder": "voxnest.models.encoder",
    "create_encoder": "voxnest.zoo.registry",
    "list_models": "voxnest.zoo.registry",
    "load_encoder": "voxnest.hub.checkpoint",
    "save_encoder": "voxnest.hub.checkpoint",
    "read_audio": "voxnest.audio",
    "MatryoshkaProjection": "voxnest.models.head",
    "MatryoshkaLoss": "voxnest.matryoshka.loss",
    "AAMSoftmax": "voxnest.losses",
    "SubCenterAAMSoftmax": "voxnest.losses",
    "TripletLoss": "voxnest.losses",
    "pca_rotation": "voxnest.matryoshka.rotation",
    "discriminative_rotation": "voxnest.matryoshka.rotation",
    "with_dims": "voxnest.matryoshka.rotation",
    "compute_eer": "voxnest.evaluation",
    "compute_min_dcf": "voxnest.evaluation",
    # For code written for redimnet-mrl; voxnest.mrl has the losses and the head under its names too.
    "ReDimNetMRL": "voxnest.mrl",
    "create_mrl_from_pretrained": "voxnest.mrl",
    "evaluate_mrl_eer": "voxnest.mrl",
    "get_model_info": "voxnest.mrl",
    "load_audio": "voxnest.mrl",
    "load_pretrained_redimnet": "voxnest.mrl",
    "load_trained_mrl": "voxnest.mrl",
    "unfreeze_backbone": "voxnest.mrl",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'voxnest' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
