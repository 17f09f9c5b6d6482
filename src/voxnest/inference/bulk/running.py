"""Embed any number of recordings into a folder of shards, and go on where an earlier run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from voxnest.errors import ConfigError, one_of
from voxnest.files import writing
from voxnest.inference.bulk.folder import Counts, open_folder
from voxnest.inference.bulk.formats import Model, find_format
from voxnest.inference.bulk.sources import find_spans
from voxnest.inference.pipeline import Outcome, stream_spans

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder

SHARD_SIZE = 4096
"""Recordings whose work is lost at most, for each process, when a run is killed."""

ENGINES = ("local", "ray")
Load = Callable[[], "Embedder"]


class Target(NamedTuple):
    """Where shards go, in words that any process understands.

    Attributes:
        folder: of the shards.
        scratch: on the same disk.
        format: a name of `formats.FORMATS`.
        model: what embeds.
    """

    folder: Path
    scratch: Path
    format: str
    model: Model

    def write(self, number: int, outcomes: Iterable[Outcome]) -> None:
        """Write a shard of those that have an embedding, whole or not at all.

        Raises:
            VoxnestError: it cannot be written.
        """
        with writing(self.folder):
            if good := [outcome for outcome in outcomes if not outcome.failure]:
                find_format(self.format).write(self.folder, number, self.model, good, self.scratch)


def embed_to_folder(
    load: Load,
    places: Sequence[str],
    output: str | Path,
    *,
    format: str = "parquet",
    dim: int | None = None,
    shard_size: int = SHARD_SIZE,
    jobs: int | None = None,
    engine: str = "local",
    progress: Callable[[Counts], None] | None = None,
) -> Counts:
    """Embed recordings into a folder of shards; memory does not depend on how many there are.

    A recording is known by its id. One that is in the folder is not embedded again, so that the same call continues
    what was stopped, however it was, and adds what is new in `places`; what failed before is tried again. Notes are in
    a folder beside, OUTPUT.run: `run.json` (model and inputs), `failures.tsv` (id, path, reason; none if all is well).

    Args:
        load: gives the encoder; with Ray, in every process.
        places: see `find_spans`.
        output: the folder, which holds nothing but shards.
        format: "parquet", "kaldi" or "lance".
        dim: keep the first `dim` numbers only; all if None.
        shard_size: recordings that make a shard.
        jobs: threads; as many as the encoder has if None. With Ray, of each task (1 if None).
        engine: "local", or "ray" for the cluster that Ray knows (`RAY_ADDRESS`), or else one of this machine's.
        progress: called, in this thread, after every recording; with Ray, after every shard.

    Returns:
        What was done, and what failed.

    Raises:
        ConfigError: the encoder was not trained for `dim`, a library is not installed, or the output holds something
            else or is in use.
        CorpusError: a manifest or list that cannot be read.
        CheckpointError: the encoder gives no finite embeddings.
        VoxnestError: writing fails (a full disk, say).
    """
    if engine not in ENGINES:
        raise ConfigError("--engine", repr(engine), one_of(engine, ENGINES))
    for option, value in (("--jobs", jobs), ("--shard-size", shard_size)):
        if value is not None and value < 1:
            raise ConfigError(option, str(value), "at least 1")
    parallel = find_format(format).parallel
    if engine == "ray":
        from voxnest.inference.bulk.cluster import check_ray, ray_shards

        check_ray()
        if not parallel:
            raise ConfigError("--engine", f"ray with the format {format}", "parquet or kaldi, whose shards are files")
    load = partial(_load_for, load, dim)
    encoder = load()
    dim = encoder.embedding_dim if dim is None else dim
    model = Model(encoder.name, encoder.digest(), dim)
    with open_folder(Path(output), model, format, places) as folder:
        target = Target(folder.path.absolute(), folder.scratch.absolute(), format, model)
        numbers = iter(folder.next_number, None)
        spans = folder.fresh(find_spans(places, lambda place, reason: folder.fail(place, place, reason)))

        def count(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
            for outcome in outcomes:
                folder.counts.add(outcome)
                if progress is not None:
                    progress(folder.counts)
                yield outcome

        if engine == "ray":
            with closing(ray_shards(load, spans, target, numbers, shard_size, jobs)) as shards:
                for number, outcomes in shards:
                    folder.commit(number, list(count(outcomes)))
        else:
            with closing(stream_spans(encoder, spans, on_error="skip", jobs=jobs)) as found:
                counted = count(found)
                while shard := list(islice(counted, shard_size)):
                    target.write(number := next(numbers), shard)
                    folder.commit(number, shard)
    return folder.counts


def _load_for(load: Load, dim: int | None) -> Embedder:
    encoder = load()
    return encoder if dim is None else encoder.for_dim(encoder.check_dim(dim))
