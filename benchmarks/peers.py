"""The model that comes with voxnest against a peer whose weights are on the registry: errors and speed, in one run.

    taskset -c 0 python benchmarks/peers.py --trials ../shared/data/voices/trials.txt --trials LIST

The peer is Resemblyzer (Apache-2.0; 1.4 M parameters, 256 numbers), installed beside in an environment of its own, and
called as its README says, on the same samples. `--teach` writes its embeddings of a corpus instead, for
`distillation.teachers`: less their mean, by which all of them are alike, and scaled to length one; with `--speed 0.9`
also of the corpus played slower, for trainings on several speeds.

    python benchmarks/peers.py --teach runs/teacher.npz ../shared/data/crowd/train ../shared/data/voices/train
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soxr
import torch
from rich.console import Console
from rich.table import Table

from error_rates import Trials, interval
from voxnest import load_encoder
from voxnest.audio import list_recordings, read_audio
from voxnest.models.embedder import LoadedEncoder
from voxnest.models.encoder import SpeakerEncoder
from voxnest.zoo.counting import count_macs

PACKAGES = ("resemblyzer==0.1.4", "setuptools<81")  # one of its libraries takes pkg_resources from there
RATE = 16000
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
    """Compare, or write what to learn from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpora", type=Path, nargs="*", help="folders of recordings, for --teach")
    parser.add_argument("--teach", type=Path, metavar="FILE", help="write the peer's embeddings of the corpora here")
    parser.add_argument(
        "--speed", type=float, action="append", default=[], help="of --teach, besides 1; may be repeated"
    )
    parser.add_argument("--trials", type=Path, action="append", default=[], help="a trial list; may be given again")
    parser.add_argument("--model", default="default")
    parser.add_argument("--environment", type=Path, default=Path("runs/peers"), help="a folder to install the peer in")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if bool(options.teach) != bool(options.corpora) or bool(options.teach) == bool(options.trials):
        parser.error("expected --trials, or --teach with corpora")
    if options.teach:
        teach(options.corpora, [1.0, *options.speed], options.teach, options.environment)
        return
    encoder = load_encoder(options.model, runtime="torch")
    engines: dict[str, LoadedEncoder] = {"torch": encoder}
    engines |= {name: load_encoder(options.model, runtime=name) for name in ("onnx", "openvino")}
    with Peer(options.environment) as peer:
        Console(width=140).print(compare_errors(encoder, peer, options.trials))
        Console(width=140).print(compare_speed(engines, count_macs(encoder, 4.0) / 4.0, peer, options.trials[0]))


def teach(corpora: Sequence[Path], speeds: Sequence[float], target: Path, environment: Path) -> None:
    """Write an archive as `voxnest embed` does; the peers of all cores share the work."""
    recordings = [path for folder in corpora for path in list_recordings(folder)]
    wanted = [(path, speed) for speed in speeds for path in recordings]

    def work(part: Sequence[tuple[Path, float]]) -> list[np.ndarray]:
        found = []
        with Peer(environment) as peer:
            for path, speed in part:
                samples = read_audio(path, sample_rate=RATE).samples
                found.append(peer.embed(samples if speed == 1 else soxr.resample(samples, speed, 1.0))[0])
        return found

    with Peer(environment):
        pass  # installed, once
    jobs = os.cpu_count() or 1
    with ThreadPoolExecutor(jobs) as pool:
        parts = list(pool.map(work, [wanted[start::jobs] for start in range(jobs)]))
    matrix = np.empty((len(wanted), len(parts[0][0])), np.float32)
    for start, part in enumerate(parts):
        matrix[start::jobs] = part
    matrix -= matrix.mean(axis=0)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    names = np.array([str(path) if speed == 1 else f"{path}@{speed:g}" for path, speed in wanted])
    np.savez(target, names=names, embeddings=matrix, model=np.array("resemblyzer"), dim=np.array(matrix.shape[1]))
    print(f"{target}: {len(names):,} embeddings")


def compare_errors(encoder: SpeakerEncoder, peer: Peer, lists: Sequence[Path]) -> Table:
    """Equal error rates by list, with their intervals over speakers."""
    table = Table("list", encoder.name, "95%", "Resemblyzer", "95%", "ratio", title="EER %", title_justify="left")
    for path in lists:
        trials = Trials(path)
        ours = trials.rates(encoder)[encoder.embedding_dim]
        samples = (read_audio(span.path, sample_rate=RATE).samples for span in trials.spans.values())
        matrix = np.stack([peer.embed(each)[0] for each in samples])
        theirs = trials.rates_of(matrix, matrix.shape[1:])[matrix.shape[1]]
        cells = []
        for found in (ours, theirs):
            low, high = interval(found)
            cells += [f"{found[0]:.2%}", f"{low:.2%} to {high:.2%}"]
        table.add_row(path.stem, *cells, f"{ours[0] / theirs[0]:.2f}" if theirs[0] else "-")
    return table


def compare_speed(engines: Mapping[str, LoadedEncoder], macs: float, peer: Peer, path: Path) -> Table:
    """Times of one core, from samples to an embedding, by turns; and multiplications.

    Args:
        engines: the model in each runtime.
        macs: of the model, per second of speech.
        peer: what it is compared with.
        path: of a trial list, some recordings of which are embedded.
    """
    spans = list(Trials(path).spans.values())
    heard = [read_audio(span.path, sample_rate=RATE).samples for span in spans[:: -(-len(spans) // TIMED)]]
    seconds: dict[str, list[float]] = {name: [] for name in (*engines, "peer")}
    peer_macs = 0.0
    for start in range(0, len(heard), IN_A_ROW):
        some = heard[start : start + IN_A_ROW]
        for name, encoder in engines.items():
            before = time.process_time()
            for samples in some:
                encoder.encode(samples, sample_rate=RATE)
            seconds[name].append(time.process_time() - before)
        told = [peer.embed(samples)[1] for samples in some]
        seconds["peer"].append(sum(each["seconds"] for each in told))
        peer_macs += sum(each["macs"] for each in told)
    length = sum(map(len, heard)) / RATE
    table = Table("model", "engine", "x real time", "ratio", "GMACs per second of speech", title="one core")
    for name, encoder in engines.items():
        ratio = statistics.median(b / a for a, b in zip(seconds[name], seconds["peer"], strict=True))
        table.add_row(encoder.name, name, f"{length / sum(seconds[name]):.0f}", f"{ratio:.1f}", f"{macs / 1e9:.3f}")
    speed = f"{length / sum(seconds['peer']):.0f}"
    table.add_row("Resemblyzer", "torch", speed, "1", f"{peer_macs / length / 1e9:.3f}")
    return table


if __name__ == "__main__":
    main()
