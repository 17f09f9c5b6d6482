"""What computes embeddings: PyTorch, or an exported model in onnxruntime or OpenVINO. Each engine is an `Embedder`."""

from importlib import import_module

_PUBLIC = {
    "ExportReport": "voxnest.runtimes.export",
    "export_encoder": "voxnest.runtimes.export",
    "load_encoder": "voxnest.runtimes.loading",
    "read_description": "voxnest.runtimes.description",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    # On first use: an exported model is loaded without torch.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'voxnest.runtimes' has no attribute {name!r}")
