"""The cohort of an evaluation: read or embedded, and what it makes of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from voxnest.corpora.utterances import read_corpus
from voxnest.errors import ConfigError, CorpusError
from voxnest.evaluation.trial_sets import EmbeddedTrials
from voxnest.inference.archive import read_embeddings
from voxnest.inference.bulk.formats import shards_format
from voxnest.inference.cache import EmbeddingCache, embed_kept
from voxnest.inference.embedding import utterance_spans
from voxnest.inference.pipeline import Progress
from voxnest.scoring import normalise, score_indexed, speaker_means, subtract_mean
from voxnest.scoring.arrays import Array, Floats
from voxnest.scoring.normalisation import Norm

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

Method = Literal["mean", "z", "t", "s", "as"]
NAMES: Mapping[Method, str] = {"mean": "mean", "z": "Z-norm", "t": "T-norm", "s": "S-norm", "as": "AS-norm"}
"""How each is called in results; "mean" is the subtraction of the cohort's mean from embeddings."""


@dataclass(frozen=True)
class Cohort:
    """Embeddings of speakers who are in no trial, and what shall be done with them.

    Attributes:
        matrix: [cohort, size].
        methods: of `NAMES`; each gives scores of its own.
        top_n: of the cohort, for "as".
    """

    matrix: Array
    methods: tuple[Method, ...] = ("as",)
    top_n: int = 300

    def scores(
        self, trials: EmbeddedTrials, raw: Mapping[int, Array], dims: Sequence[int]
    ) -> dict[str, dict[int, Floats | Array]]:
        """Compute normalised scores, {name: {prefix size: [trials]}}, from those that are not.

        Raises:
            TrialError: a recording to which the cohort is equally similar throughout.
            ValueError: a cohort or `top_n` below 2.
        """
        found: dict[str, dict[int, Floats | Array]] = {NAMES[method]: {} for method in self.methods}
        pairs = trials.trials.pairs
        for dim in dims:
            matrix, cohort = trials.matrix(dim), self.matrix[:, :dim]
            for method in self.methods:
                if method == "mean":
                    values = score_indexed(subtract_mean(matrix, cohort), pairs, (dim,))[dim]
                else:
                    norm: Norm = method
                    values = normalise(raw[dim], matrix, pairs, cohort, norm, self.top_n)
                found[NAMES[method]][dim] = values
        return found


def load_cohort(
    encoder: Embedder,
    source: str | Path,
    *,
    speakers: bool = False,
    window: float | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> Array:
    """Give the embeddings [cohort, embedding_dim] of a cohort.

    Args:
        encoder: whose scores shall be normalised.
        source: a manifest folder, a corpus, or what `voxnest embed` wrote, by the same model.
        speakers: the mean of each speaker's embeddings instead of one for each utterance; needs a corpus.
        window: as of `embed_files`.
        cache: as of `embed_kept`.
        progress: as of `embed_files`.

    Raises:
        CorpusError: it cannot be read, has fewer than two members, or names no speakers where they are wanted.
        ConfigError: embeddings of another model.
        AudioError: a recording cannot be used.
    """
    path = Path(source)
    if path.is_dir() and shards_format(path) is None:
        utterances = read_corpus(path)
        found = embed_kept(encoder, utterance_spans(utterances), cache, window=window, progress=progress)
        matrix = np.stack(list(found.values()))
        if speakers:
            named = [utterance.speaker for utterance in utterances]
            if not all(named):
                raise CorpusError(path, "recordings of nobody", "a corpus that names the speakers of a cohort")
            matrix = speaker_means(matrix, named)
    else:
        if speakers:
            raise ConfigError("--cohort-speakers", f"{path}, which names no speakers", "a manifest or corpus")
        _, matrix = read_embeddings(path)
        if matrix.shape[1] != encoder.embedding_dim:
            found_text = f"embeddings of {matrix.shape[1]} numbers"
            raise ConfigError(path, found_text, f"{encoder.embedding_dim}, of {encoder.name}")
    if len(matrix) < 2:
        raise CorpusError(path, "a cohort of one", "two or more, best hundreds")
    return matrix
