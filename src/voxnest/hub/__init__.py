"""Where weights live: published ones, downloading and caching them, reading any kind of file as an encoder."""

from importlib import import_module

_PUBLIC = {
    "RELEASES": "voxnest.hub.releases",
    "Release": "voxnest.hub.releases",
    "find_release": "voxnest.hub.releases",
    "fetch": "voxnest.hub.download",
    "convert": "voxnest.foreign.encoders",
    "load_classifier": "voxnest.hub.checkpoint",
    "load_encoder": "voxnest.hub.checkpoint",
    "save_encoder": "voxnest.hub.checkpoint",
    "read_metadata": "voxnest.hub.checkpoint",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    # On first use: the table and the download do without torch.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'voxnest.hub' has no attribute {name!r}")
