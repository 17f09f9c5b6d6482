"""voxnest: speaker recognition with nested (Matryoshka) embeddings.

The public names below are imported on first use, so that `import voxnest` stays light; `__init__.pyi` has their types.
"""

from importlib import import_module

__version__ = "0.1.0"

_PUBLIC = {
    "AAMSoftmax": "voxnest.losses",
    "MatryoshkaLoss": "voxnest.matryoshka",
    "MatryoshkaProjection": "voxnest.matryoshka",
    "SpeakerEncoder": "voxnest.models.encoder",
    "SubCenterAAMSoftmax": "voxnest.losses",
    "TripletLoss": "voxnest.losses",
    "VoxnestError": "voxnest.errors",
    "compute_eer": "voxnest.evaluation",
    "compute_min_dcf": "voxnest.evaluation",
    "create_encoder": "voxnest.zoo.registry",
    "discriminative_rotation": "voxnest.matryoshka",
    "embed": "voxnest.inference:embed_files",
    "evaluate": "voxnest.evaluation",
    "learned_rotation": "voxnest.matryoshka",
    "list_models": "voxnest.zoo.registry",
    "load_config": "voxnest.training.settings",
    "load_encoder": "voxnest.runtimes.loading",
    "load_router": "voxnest.evaluation.routing",
    "pca_rotation": "voxnest.matryoshka",
    "prepare": "voxnest.corpora.prepare",
    "read_audio": "voxnest.audio",
    "save_encoder": "voxnest.hub.checkpoint",
    "similarity": "voxnest.scoring",
    "train": "voxnest.training.run",
    "verify": "voxnest.inference",
    "with_dims": "voxnest.matryoshka",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'voxnest' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
