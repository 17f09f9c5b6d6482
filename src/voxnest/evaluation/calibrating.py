"""Find out what the scores of a model mean, from trials of people who are in no test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.corpora.trials import Trial
from voxnest.errors import ConfigError
from voxnest.evaluation.evaluating import check_dims
from voxnest.evaluation.trial_sets import TrialSet, embed_trials, find_trials
from voxnest.inference import Progress
from voxnest.inference.cache import EmbeddingCache
from voxnest.scoring import MEASURES, Calibration
from voxnest.scoring.arrays import Array

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder


def calibrate(
    encoder: Embedder,
    trials: str | Path | Sequence[Trial] | TrialSet,
    root: str | Path | None = None,
    dims: Sequence[int] | None = None,
    *,
    measures: Sequence[str] = (),
    cohort: Array | None = None,
    cache: EmbeddingCache | None = None,
    progress: Progress | None = None,
) -> dict[int, Calibration]:
    """Fit the calibration of each prefix size; `encoder.calibration` is left as it is.

    Args:
        encoder: in eval mode.
        trials: a list, trials, or what `find_trials` gave; of speakers and recordings like those it shall be used for.
        root: the folder that the trials' relative paths start from; see `find_trials`.
        dims: prefix sizes; all that the encoder has if None.
        measures: quality measures that the evidence depends on too, of `MEASURES`.
        cohort: [cohort, embedding_dim] embeddings of other speakers, for the measure "cohort".
        cache: of this encoder's embeddings.
        progress: called with how many recordings are embedded, and of how many.

    Raises:
        ConfigError: a prefix size that the encoder was not trained for, or an unknown measure.
        TrialError: as of `find_trials`.
        AudioError: a recording that cannot be used.
        CheckpointError: an encoder whose embeddings are not finite.

    Examples:
        >>> encoder.calibration = calibrate(encoder, "dev-trials.txt", "dev")
        >>> save_encoder(encoder, "calibrated.safetensors")
    """
    sizes = check_dims(encoder, dims)
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise ConfigError("measures", repr(unknown[0]), f"some of {', '.join(MEASURES)}")
    found = trials if isinstance(trials, TrialSet) else find_trials(trials, root)
    embedded = embed_trials(encoder, found, cache=cache, progress=progress)
    scores, seconds = embedded.score(sizes), embedded.seconds()
    fitted = {}
    for dim in sizes:
        others = None if cohort is None else cohort[:, :dim]
        fitted[dim] = Calibration.fit(scores[dim], found.pairs, embedded.matrix(dim), seconds, measures, others)
    return fitted
