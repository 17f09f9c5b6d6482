"""Run an encoder on recordings: embeddings of many files, verification of two."""

from voxnest.inference.archive import embed_to_file, read_embeddings
from voxnest.inference.embedding import Embeddings, embed_files
from voxnest.inference.pipeline import Progress
from voxnest.inference.quality import check_speech
from voxnest.inference.recordings import find_recordings
from voxnest.inference.verify import DEFAULT_THRESHOLD, Verification, verify

__all__ = [
    "DEFAULT_THRESHOLD",
    "Embeddings",
    "Progress",
    "Verification",
    "check_speech",
    "embed_files",
    "embed_to_file",
    "find_recordings",
    "read_embeddings",
    "verify",
]
