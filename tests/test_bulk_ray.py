"""Shards on a cluster of Ray: a worker that is lost takes nothing with it, and nothing is done twice."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tones import ToneEncoder
from voxnest.errors import CheckpointError, ConfigError
from voxnest.inference import read_embeddings
from voxnest.inference.bulk import Counts, embed_to_folder

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("pyarrow", reason="pyarrow is not installed")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="a cluster on one machine")]


class Slow(ToneEncoder):
    """Takes its time, so that a worker is lost in the middle of its work."""

    def forward(self, *arguments: object, **options: object) -> object:
        time.sleep(0.02)
        return super().forward(*arguments, **options)


class Different(ToneEncoder):
    """Has other weights in every process."""

    def digest(self) -> str:
        return str(time.time_ns())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[object, object]]:
    """A head that does no work, and two workers; gives the cluster and one of these."""
    monkeypatch.setenv("PYTHONPATH", ":".join(path for path in sys.path if path))
    monkeypatch.setenv("RAY_worker_niceness", "0")  # or they starve on a machine with other work
    made = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    lost, _ = made.add_node(num_cpus=1), made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made, lost
    ray.shutdown()
    made.shutdown()


def test_a_worker_that_is_lost_takes_nothing_with_it(cluster: tuple, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(5):
        soundfile.write(tmp_path / f".{number}.wav", 0.1 * draw.standard_normal(3200), 16000)
    for number in range(120):
        (tmp_path / "audio" / f"{number:03d}.wav").parent.mkdir(exist_ok=True)
        (tmp_path / "audio" / f"{number:03d}.wav").symlink_to(tmp_path / f".{number % 5}.wav")
    (tmp_path / "audio" / "bad.wav").write_text("not audio")
    nodes, lost = cluster
    killed = list[int]()

    def kill(counts: Counts) -> None:
        if not killed:
            nodes.remove_node(lost, allow_graceful=False)
            killed.append(counts.embedded)

    output, places = tmp_path / "out.parquet", [str(tmp_path / "audio")]
    counts = embed_to_folder(Slow, places, output, shard_size=8, engine="ray", progress=kill)
    assert killed[0] < 60
    assert (counts.embedded, counts.held, counts.failed) == (120, 120, 1)
    alone = embed_to_folder(ToneEncoder, places, tmp_path / "alone.parquet")
    assert (alone.embedded, alone.seconds) == (120, pytest.approx(counts.seconds))
    (names, matrix), (expected, rows) = read_embeddings(output), read_embeddings(tmp_path / "alone.parquet")
    assert sorted(names) == sorted(expected)
    np.testing.assert_array_equal(matrix[np.argsort(names)], rows[np.argsort(expected)])
    assert embed_to_folder(ToneEncoder, places, output).there == 120  # and on this machine alone

    with pytest.raises(CheckpointError, match="another model on a worker"):
        embed_to_folder(Different, places, tmp_path / "other.parquet", engine="ray")
    with pytest.raises(ConfigError, match="parquet or kaldi"):
        embed_to_folder(ToneEncoder, places, tmp_path / "out.lance", format="lance", engine="ray")
