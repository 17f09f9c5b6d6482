"""What `voxnest embed` loses between FLAC files and Parquet, and what a large collection costs in memory.

    python benchmarks/bulk.py --speech ../shared/data/voices ../shared/data/crowd [--model default] [--threads 2]
    python benchmarks/bulk.py --files 10000 100000

The first: recordings are joined by kind and cut into FLAC files, of 3 s each and of 1 to 12 s, of one length in all.
They are embedded into Parquet, and beside that by the network alone, in as many threads, with all waveforms in
memory; the runs take turns, and the median counts. The quotient of processor times says what decoding, quality and
writing cost; that of wall times adds what threads wait for, and is only good on a machine without other work.

The second: so many files of a quarter of a second, links to a hundred, are embedded by a stub that costs nothing, each
time in a fresh process. Memory is the growth of the peak resident set after the first 9,000.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table

import voxnest
from voxnest.audio import read_audio
from voxnest.audio.folders import list_recordings
from voxnest.inference.bulk import Counts, embed_to_folder
from voxnest.models.embedder import Threads
from voxnest.models.encoder import SpeakerEncoder

RATE, SECONDS, SHORTEST, LONGEST = 16_000, 3.0, 1.0, 12.0
RUNS = 3


def cut(speech: list[Path], folder: Path, total: float) -> dict[str, list[np.ndarray]]:
    """Write the files of both kinds; give their waveforms."""
    paths = [path for place in speech for path in list_recordings(place)]
    np.random.default_rng(0).shuffle(paths)
    pieces, length = [], 0
    for path in paths:
        pieces.append(read_audio(path).samples)
        length += len(pieces[-1])
        if length >= total * RATE:
            break
    stream = np.concatenate(pieces)[: round(total * RATE)].clip(-1, 1)
    draw = np.random.default_rng(0)
    mixed = np.cumsum(draw.uniform(SHORTEST, LONGEST, len(stream)))
    ends = {"fixed": np.arange(SECONDS, total, SECONDS), "mixed": mixed[mixed < total]}
    waveforms = {}
    for kind, times in ends.items():
        (folder / kind).mkdir()
        parts = [part for part in np.split(stream, (times * RATE).astype(int)) if len(part) >= SHORTEST * RATE]
        for number, part in enumerate(parts):
            soundfile.write(folder / kind / f"{number:05d}.flac", part, RATE)
        waveforms[kind] = [read_audio(path).samples for path in list_recordings(folder / kind)]
    return waveforms


def network(encoder: SpeakerEncoder, waveforms: list[np.ndarray]) -> None:
    with encoder.ready() as threads, ThreadPoolExecutor(threads.number, initializer=threads.start) as pool:
        list(pool.map(lambda samples: encoder.embed(samples[None]), waveforms))


def measured(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds."""
    start, busy = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - busy


def speed(speech: list[Path], model: str, threads: int, total: float) -> None:
    torch.set_num_threads(threads)
    encoder = voxnest.load_encoder(model, device="cpu").eval()
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        waveforms = cut(speech, folder, total)
        audio = {kind: sum(map(len, held)) / RATE for kind, held in waveforms.items()}
        network(encoder, waveforms["fixed"][:10])
        for run in range(RUNS):
            for kind, held in waveforms.items():
                output = folder / f"{kind}-{run}.parquet"
                times.setdefault((kind, "network"), []).append(measured(partial(network, encoder, held)))
                work = partial(embed_to_folder, lambda: encoder, [str(folder / kind)], output)
                times.setdefault((kind, "to Parquet"), []).append(measured(work))
    table = Table("lengths", "recordings", "seconds", "work", "times real time", "processor seconds", title=described())
    middle = {key: tuple(map(statistics.median, zip(*found, strict=True))) for key, found in times.items()}
    for (kind, what), (wall, busy) in middle.items():
        facts = kind, str(len(waveforms[kind])), f"{audio[kind]:.0f}", what
        table.add_row(*facts, f"{audio[kind] / wall:.1f}", f"{busy:.2f}")
    console = Console(width=120)
    console.print(table)
    for index, clock in enumerate(("wall", "processor")):
        cost = {key: found[index] / audio[key[0]] for key, found in middle.items()}
        kept = {kind: cost[kind, "network"] / cost[kind, "to Parquet"] for kind in waveforms}
        mixed = cost["fixed", "to Parquet"] / cost["mixed", "to Parquet"]
        console.print(
            f"{clock} time: files to Parquet keep {kept['fixed']:.0%} of the network's throughput (fixed), "
            f"{kept['mixed']:.0%} (mixed); mixed lengths {mixed:.0%} of fixed ones"
        )
    console.print(f"model {encoder.name}, {threads} threads, float32")


class Stub:
    """An embedder that costs nothing."""

    name, dims, embedding_dim, sample_rate, min_samples, batch_size = "stub", (192,), 192, RATE, 400, 1

    def check_dim(self, dim: int) -> int:
        return dim

    def digest(self) -> str:
        return "0" * 64

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        return np.resize(waveform[:, :192], (1, 192))

    @contextmanager
    def ready(self):  # type: ignore[no-untyped-def]
        yield Threads(2, lambda: None)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def files(folder: Path, output: Path) -> None:
    """In a fresh process: embed, and print what it took."""
    at_first: list[float] = []

    def note(counts: Counts) -> None:
        if not at_first and counts.embedded == 9000:
            at_first.append(peak())

    wall, busy = measured(lambda: embed_to_folder(Stub, [str(folder)], output, progress=note))  # type: ignore[arg-type]
    again, _ = measured(lambda: embed_to_folder(Stub, [str(folder)], output))  # type: ignore[arg-type]
    print(json.dumps([wall, busy, again, at_first[0], peak() - at_first[0]]))


def memory(counts: list[int]) -> None:
    table = Table("files", "seconds", "processor", "again", "MiB at 9,000", "growth after", title=described())
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "audio").mkdir()
            draw = np.random.default_rng(0)
            for number in range(100):
                soundfile.write(folder / f"{number}.flac", 0.1 * draw.standard_normal(RATE // 4), RATE)
            for number in range(count):
                os.link(folder / f"{number % 100}.flac", folder / "audio" / f"{number:07d}.flac")
            command = [sys.executable, __file__, "--one", str(folder / "audio"), str(folder / "out.parquet")]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        table.add_row(f"{count:,}", *(f"{value:.1f}" for value in found))
    Console(width=120).print(table)


def described() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    load = os.getloadavg()[0]
    return (
        f"{' '.join(names) or platform.machine()}, {os.cpu_count()} cores (load {load:.1f}), "
        f"voxnest {voxnest.__version__}, torch {torch.__version__}"
    )


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speech", type=Path, nargs="+")
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=600, help="of audio, of each kind")
    parser.add_argument("--files", type=int, nargs="+")
    parser.add_argument("--one", type=Path, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        files(*given.one)
    if given.files:
        memory(given.files)
    if given.speech:
        speed(given.speech, given.model, given.threads, given.seconds)


if __name__ == "__main__":
    main()
