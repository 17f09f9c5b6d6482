"""Find who speaks: search an index of short embeddings, then rank the nearest again with the whole ones.

    python examples/search.py RECORDINGS QUERY [MODEL]

RECORDINGS is a folder in which every speaker has a folder, QUERY a recording, MODEL a file or the name of published
weights; without it, the small model that comes with voxnest. An index of 64 numbers is a quarter of one of 256.
"""

import sys
from pathlib import Path

import numpy as np

import voxnest
from voxnest.inference import find_recordings

PREFIX = 64  # numbers that are searched
NEAREST = 10  # recordings that are ranked again


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Scale to length 1, so that products are cosine similarities."""
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)


def main(folder: str, query: str, model: str = "default") -> None:
    """Print the recordings most like the query, and their speakers."""
    encoder = voxnest.load_encoder(model)
    encoder.head.check_dim(PREFIX)
    indexed = voxnest.embed(encoder, find_recordings(folder), on_error="skip")
    names, whole = list(indexed), unit(np.stack(list(indexed.values())))
    index = unit(whole[:, :PREFIX])  # all that has to lie in memory; the whole ones may lie on a disk

    asked = voxnest.embed(encoder, query)[query]
    found = np.argsort(-index @ unit(asked[:PREFIX]))[:NEAREST]
    scores = whole[found] @ unit(asked)
    for place in np.argsort(-scores):
        path = Path(names[found[place]]).relative_to(folder)
        print(f"{scores[place]:.3f}  {path.parts[0]}  {path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
