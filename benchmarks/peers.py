"""The model that comes with voxnest against a peer whose weights are on the registry: errors and speed, in one run.

    taskset -c 0 python benchmarks/peers.py --trials ../shared/data/voices/trials.txt --trials LIST

The peer is Resemblyzer (Apache-2.0; 1.4 M parameters, 256 numbers), installed beside in an environment of its own, and
called as its README says, on the same samples. `--also FILE` adds a model that voxnest loads, such as the CAM++ that
docs/pretrained.md finds in a wheel.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from error_rates import Trials, interval
from voxnest import load_encoder
from voxnest.audio import read_audio
from voxnest.models.embedder import LoadedEncoder
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.counting import count_macs

PACKAGES = ("resemblyzer==0.1.4", "setuptools<81")  # one of its libraries takes pkg_resources from there
RATE = 16000
ENVIRONMENT = Path("runs/peers")
"""A folder for its virtual environment, made if it is not there."""
TIMED, IN_A_ROW = 48, 6
"""Recordings that are timed; so many by one, then as many by the next: each finds its own weights in caches."""


class Peer:
    """Resemblyzer in a process of its own.

    Args:
        environment: a folder for its virtual environment, made if it is not there.
    """

    def __init__(self, environment: Path) -> None:
        python = environment / "bin" / "python"
        if not (environment / "installed").exists():
            venv.create(environment, with_pip=True, clear=True)
            purelib = subprocess.check_output(
                [python, "-c", "import site; print(site.getsitepackages()[0])"], text=True
            )
            # What is here already, torch before all, is not installed again.
            (Path(purelib.strip()) / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
            subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
            (environment / "installed").touch()
        self._process = subprocess.Popen(
            [python, "-W", "ignore", Path(__file__).with_name("peer_worker.py")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.about = self._answer()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def embed(self, samples: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
        """The embedding of `[samples]` float32 at `RATE`; and its seconds of processor and its multiplications."""
        assert self._process.stdin
        self._process.stdin.write(len(samples).to_bytes(8, "little") + samples.astype("<f4").tobytes())
        self._process.stdin.flush()
        answer = self._answer()
        return np.array(answer.pop("embedding"), np.float32), answer

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the peer's process ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=Path, action="append", required=True, help="may be given again")
    parser.add_argument("--model", default="default")
    parser.add_argument("--also", action="append", default=[], help="another model that voxnest loads; may be repeated")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(options.model, runtime="torch")
    others = {Path(name).stem: load_encoder(name, runtime="torch") for name in options.also}
    models = {encoder.name: encoder, **others}
    engines: dict[tuple[str, str], LoadedEncoder] = {(name, "torch"): each for name, each in models.items()}
    engines |= {(encoder.name, name): load_encoder(options.model, runtime=name) for name in ("onnx", "openvino")}
    with Peer(ENVIRONMENT) as peer:
        Console(width=160).print(compare_errors(models, peer, options.trials))
        macs = {name: count_macs(each, 4.0) / 4.0 for name, each in models.items()}
        Console(width=160).print(compare_speed(engines, macs, peer, options.trials[0]))


def compare_errors(models: Mapping[str, SpeakerEncoder], peer: Peer, lists: Sequence[Path]) -> Table:
    """Equal error rates by list, with their intervals over speakers; the ratio is that of the first to the peer."""
    columns = [cell for name in (*models, "Resemblyzer") for cell in (name, "95%")]
    table = Table("list", *columns, "ratio", title="EER %", title_justify="left")
    for path in lists:
        trials = Trials(path)
        found = [trials.rates(encoder)[encoder.embedding_dim] for encoder in models.values()]
        samples = (read_audio(span.path, sample_rate=RATE).samples for span in trials.spans.values())
        matrix = np.stack([peer.embed(each)[0] for each in samples])
        found.append(trials.rates_of(matrix, matrix.shape[1:])[matrix.shape[1]])
        cells = []
        for each in found:
            low, high = interval(each)
            cells += [f"{each[0]:.2%}", f"{low:.2%} to {high:.2%}"]
        ours, theirs = found[0][0], found[-1][0]
        table.add_row(path.stem, *cells, f"{ours / theirs:.2f}" if theirs else "-")
    return table


def compare_speed(
    engines: Mapping[tuple[str, str], LoadedEncoder], macs: Mapping[str, float], peer: Peer, path: Path
) -> Table:
    """Times of one core, from samples to an embedding, by turns; and multiplications.

    Args:
        engines: models by their names and those of runtimes.
        macs: of each model, per second of speech.
        peer: what they are compared with.
        path: of a trial list, some recordings of which are embedded.
    """
    spans = list(Trials(path).spans.values())
    heard = [read_audio(span.path, sample_rate=RATE).samples for span in spans[:: -(-len(spans) // TIMED)]]
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in engines}
    peer_seconds, peer_macs = [], 0.0
    for start in range(0, len(heard), IN_A_ROW):
        some = heard[start : start + IN_A_ROW]
        for key, encoder in engines.items():
            before = time.process_time()
            for samples in some:
                encoder.encode(samples, sample_rate=RATE)
            seconds[key].append(time.process_time() - before)
        told = [peer.embed(samples)[1] for samples in some]
        peer_seconds.append(sum(each["seconds"] for each in told))
        peer_macs += sum(each["macs"] for each in told)
    length = sum(map(len, heard)) / RATE
    table = Table("model", "engine", "x real time", "ratio", "GMACs per second of speech", title="one core")
    for (name, engine), own in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(own, peer_seconds, strict=True))
        table.add_row(name, engine, f"{length / sum(own):.0f}", f"{ratio:.1f}", f"{macs[name] / 1e9:.3f}")
    speed = f"{length / sum(peer_seconds):.0f}"
    table.add_row("Resemblyzer", "torch", speed, "1", f"{peer_macs / length / 1e9:.3f}")
    return table


if __name__ == "__main__":
    main()
