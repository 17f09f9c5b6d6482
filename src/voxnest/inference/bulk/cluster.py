"""Shards on a cluster of Ray (https://docs.ray.io): a task is a shard, which is the same however often it is done."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import islice
from typing import TYPE_CHECKING

from voxnest.errors import CheckpointError, ConfigError, VoxnestError
from voxnest.inference.pipeline import Outcome, Span, stream_spans

if TYPE_CHECKING:
    from voxnest.inference.bulk.running import Load, Target
    from voxnest.models.embedder import Embedder

_TRIES = 5  # of a shard whose worker is lost, before it is taken for the shard's fault


def check_ray() -> None:
    """See that Ray is there.

    Raises:
        ConfigError: it is not.
    """
    if find_spec("ray") is None:
        raise ConfigError("--engine", "ray, which is not installed", "pip install 'voxnest[ray]'")


def ray_shards(
    load: Load,
    spans: Iterable[tuple[str, Span]],
    target: Target,
    numbers: Iterator[int],
    size: int,
    jobs: int | None,
) -> Generator[tuple[int, list[Outcome]], None, None]:
    """Numbers of shards as they are written, and what is in them, without the embeddings.

    All processes see the same disk, by the same paths. A worker that is lost takes nothing with it: its shards are
    done again by others.

    Raises:
        VoxnestError: a shard cannot be done.
    """
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    total = ray.cluster_resources()
    needs = {"num_cpus": jobs or 1, "num_gpus": 1 if total.get("GPU") else 0}
    task = ray.remote(_embed_shard).options(max_retries=_TRIES, **needs)
    pickled = ray.cloudpickle.dumps(load)
    source, pending = iter(spans), dict[ray.ObjectRef, int]()
    while True:
        now = ray.cluster_resources()
        workers = now.get("GPU") or now.get("CPU", 1) // needs["num_cpus"]
        while len(pending) < 2 * max(1, workers) and (shard := list(islice(source, size))):
            number = next(numbers)
            pending[task.remote(pickled, shard, target, number, jobs or 1, os.getcwd())] = number
        if not pending:
            return
        ready, _ = ray.wait(list(pending))
        for done in ready:
            number = pending.pop(done)
            try:
                yield number, ray.get(done)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise VoxnestError("ray", f"shard {number} was lost {_TRIES} times: {error}") from error


def _embed_shard(
    load: bytes, spans: list[tuple[str, Span]], target: Target, number: int, jobs: int, place: str
) -> list[Outcome]:
    """What a task does: the same file, whole, for the same recordings."""
    os.chdir(place)  # which relative paths are of
    encoder = _loaded(load, target.model.digest)
    outcomes = list(stream_spans(encoder, spans, on_error="skip", jobs=jobs))
    target.write(number, outcomes)
    return [outcome._replace(embedding=None) for outcome in outcomes]


@lru_cache(maxsize=1)
def _loaded(load: bytes, digest: str) -> Embedder:
    """The encoder of this process."""
    import ray

    encoder: Embedder = ray.cloudpickle.loads(load)()
    if encoder.digest() != digest:
        raise CheckpointError(encoder.name, "another model on a worker of Ray", "the same files on every machine")
    return encoder
