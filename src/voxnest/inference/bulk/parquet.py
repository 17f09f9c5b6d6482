"""Shards as Parquet: columns that pandas, polars, DuckDB and `datasets` read as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from voxnest.inference.bulk.formats import FileFormat, Model, text
from voxnest.inference.pipeline import Outcome

if TYPE_CHECKING:
    import pyarrow as pa


class Parquet(FileFormat):
    """A file of Parquet for each shard."""

    needs, ending = ("pyarrow", "parquet"), ".parquet"

    def write_file(self, path: Path, model: Model, outcomes: Sequence[Outcome]) -> None:
        """See `FileFormat`."""
        import pyarrow.parquet as pq

        # Embeddings do not repeat themselves: a dictionary of their numbers would be sought in vain.
        pq.write_table(table(model, outcomes), path, compression="zstd", use_dictionary=["model", "digest", "warnings"])

    def read_file(self, path: Path) -> tuple[list[str], np.ndarray, str]:
        """See `FileFormat`."""
        import pyarrow.parquet as pq

        return columns(pq.read_table(path, columns=["id", "model", "embedding"]))


def table(model: Model, outcomes: Sequence[Outcome]) -> pa.Table:
    """Columns id, path, offset and duration (seconds), model, digest, dim, embedding (float32), warnings."""
    import pyarrow as pa

    embeddings = np.stack([outcome.embedding[: model.dim] for outcome in outcomes if outcome.embedding is not None])
    count = len(outcomes)
    return pa.table(
        {
            "id": pa.array([text(outcome.name) for outcome in outcomes], pa.string()),
            "path": pa.array([text(outcome.span.path) for outcome in outcomes], pa.string()),
            "offset": pa.array([outcome.span.offset for outcome in outcomes], pa.float64()),
            "duration": pa.array([outcome.seconds for outcome in outcomes], pa.float64()),
            "model": pa.array([model.name] * count, pa.string()),
            "digest": pa.array([model.digest] * count, pa.string()),
            "dim": pa.array([model.dim] * count, pa.int32()),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), model.dim),
            "warnings": pa.array(["; ".join(outcome.warnings) for outcome in outcomes], pa.string()),
        }
    )


def columns(found: Any) -> tuple[list[str], np.ndarray, str]:
    """What `Format.read_file` gives, from the columns id, model and embedding of a table."""
    embeddings = found.column("embedding").combine_chunks()
    matrix = embeddings.flatten().to_numpy().reshape(len(embeddings), embeddings.type.list_size)
    models = found.column("model").unique().to_pylist()
    if len(models) != 1:
        raise ValueError(f"embeddings of {' and '.join(models) or 'nothing'}")
    return found.column("id").to_pylist(), matrix, models[0]
