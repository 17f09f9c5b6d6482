"""Shards as versions of a Lance dataset (https://lance.org), each with the columns that Parquet has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from voxnest.inference.bulk.formats import Format, Model
from voxnest.inference.bulk.parquet import columns, table
from voxnest.inference.pipeline import Outcome


class Lance(Format):
    """A dataset that each shard is appended to."""

    needs, parallel = ("lance", "lance"), False

    def write(self, folder: Path, number: int, model: Model, outcomes: Sequence[Outcome], scratch: Path) -> None:
        """See `Format`; a shard is appended, by one process at a time."""
        import lance

        lance.write_dataset(table(model, outcomes), folder, mode="append" if any(folder.iterdir()) else "create")

    def keep(self, folder: Path, shards: Mapping[int, int]) -> set[int]:
        """See `Format`: back to the last version that holds no more than what is known."""
        import lance

        known = sum(shards.values())
        if not any(folder.iterdir()):
            return set(shards)
        dataset = lance.dataset(folder)
        if dataset.count_rows() > known:
            versions = (dataset.checkout_version(item["version"]) for item in reversed(dataset.versions()))
            before = next((version for version in versions if version.count_rows() == known), None)
            if before is None:
                dataset.delete("true")
            else:
                before.restore()
        return set()

    def read(self, folder: Path) -> tuple[list[str], np.ndarray, str]:
        """See `Format`."""
        import lance

        return columns(lance.dataset(folder).to_table(columns=["id", "model", "embedding"]))
