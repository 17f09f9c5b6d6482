"""Embeddings of collections of any size: from recordings that are never all known, to shards on a disk."""

from voxnest.inference.bulk.folder import Counts
from voxnest.inference.bulk.running import embed_to_folder
from voxnest.inference.bulk.sources import find_spans

__all__ = ["Counts", "embed_to_folder", "find_spans"]
