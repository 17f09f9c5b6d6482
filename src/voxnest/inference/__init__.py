"""Run an encoder on recordings: embeddings of many files, verification of two."""

from voxnest.inference.extract import Embeddings, embed_files, embed_to_file, find_recordings
from voxnest.inference.verify import DEFAULT_THRESHOLD, Verification, verify

__all__ = [
    "DEFAULT_THRESHOLD",
    "Embeddings",
    "Verification",
    "embed_files",
    "embed_to_file",
    "find_recordings",
    "verify",
]
