"""What `voxnest evaluate` does with models: load them, and evaluate one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from voxnest.evaluation import EvaluationReport, TrialSet
    from voxnest.evaluation.cohorts import Method
    from voxnest.models.embedder import Embedder
    from voxnest.scoring import PLDA


class Cohorts(NamedTuple):
    """What `--cohort` and its kin say."""

    source: Path
    methods: tuple[Method, ...]
    top_n: int
    speakers: bool


def load_models(models: list[str], dims: list[int] | None, how: Mapping[str, Any]) -> dict[str, Embedder]:
    """Load all models, as `load_encoder` is told to, before the first recording is read."""
    from voxnest.evaluation.evaluating import check_dims
    from voxnest.models.encoder import SpeakerEncoder
    from voxnest.runtimes.loading import load_encoder

    encoders: dict[str, Embedder] = {name: load_encoder(name, **how) for name in models}
    found: dict[str, Embedder] = {}
    for name, encoder in encoders.items():
        check_dims(encoder, dims)
        parts = encoder.parts() if isinstance(encoder, SpeakerEncoder) else {None: encoder}
        found |= {name if stage is None else f"{name}@{stage}": part for stage, part in parts.items()}
    return found


def evaluate_models(
    encoders: dict[str, Embedder],
    lists: Sequence[TrialSet],
    dims: list[int] | None,
    *,
    interval: bool,
    window: float | None,
    cohorts: Cohorts | None,
    pldas: Mapping[str, PLDA],
    adapter: Path | None,
    describe: bool,
    keep: bool,
) -> tuple[dict[str, EvaluationReport], dict[str, dict[str, str]]]:
    """Evaluate models on every list, and describe them if it is wanted: by model, and list if there are several."""
    from dataclasses import replace

    from voxnest.evaluation import Cohort, describe_encoder, load_cohort
    from voxnest.evaluation import evaluate as run
    from voxnest.hub.checkpoint import find_metadata
    from voxnest.inference.cache import EmbeddingCache
    from voxnest.progress import progress_bar
    from voxnest.runtimes.engine import Engine

    reports, cards = {}, {}
    for name, encoder in encoders.items():
        cache = EmbeddingCache(encoder, window) if keep else None
        cohort = None
        if cohorts:
            with progress_bar("embedding the cohort") as progress:
                matrix = load_cohort(
                    encoder,
                    cohorts.source,
                    speakers=cohorts.speakers,
                    window=window,
                    cache=cache,
                    progress=progress,
                )
            cohort = Cohort(matrix, cohorts.methods, cohorts.top_n)
        model = f"{name} with {adapter.name}" if adapter else name
        for trials in lists:
            with progress_bar("embedding") as progress:
                found = run(
                    *(encoder, trials),
                    dims=dims,
                    progress=progress,
                    interval=interval,
                    window=window,
                    cohort=cohort,
                    plda=pldas.get(name),
                    cache=cache,
                )
            label = model if len(lists) < 2 else f"{model} on {found.trials}"
            reports[label] = replace(found, model=model)
            if describe:
                told = encoder.description.card if isinstance(encoder, Engine) else find_metadata(name)
                cards[label] = describe_encoder(encoder, told)
    return reports, cards
