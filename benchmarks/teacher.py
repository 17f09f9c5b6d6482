"""What a training learns from a frozen model: its embeddings of all recordings of a corpus, at several speeds.

    python benchmarks/teacher.py MODEL ../shared/data/crowd/train -o runs/teacher.npz --speed 0.9 --speed 1.1

writes an archive for `distillation.teachers`: embeddings of whole recordings, as they are and played slower or faster,
less the mean of their speed, by which all of them are alike, and of length one. Rows are named by the path, and "@" and
the speed. With `--source REGEX`, what that finds in a path names where the recording comes from, and the mean is of its
source: a student would learn what recordings of one source have in common before it learns voices. With `--sessions`,
that share of a row is what the speaker's other sessions say, at the same speed: a student would learn the session with
the voice. Sessions that are as unlike as strangers' are left out of it.

MODEL is a checkpoint, a name of `voxnest models weights`, or `resemblyzer`, which is installed beside (see peers.py).
What is done is kept in OUTPUT.parts; the same command goes on. Another archive of the same model and corpora need not
hear all of it again: `--parts` says where it lies.
"""

import argparse
import multiprocessing
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import soxr
import torch

from peers import ENVIRONMENT, Peer
from voxnest import load_encoder
from voxnest.audio import SAMPLE_RATE, list_recordings, read_audio
from voxnest.corpora.utterances import read_corpus
from voxnest.files import atomic_write
from voxnest.progress import progress_bar
from voxnest.scoring.arrays import unit_rows

PART = 256
"""Recordings in a file of what is done."""
RESEMBLYZER = "resemblyzer"
STRANGERS = 0.2
"""A cosine of CAM++'s, less means: in Common Voice, one pair of strangers in twenty has more, and nine in ten pairs of
recordings of one account in different sessions. An account may be several people."""

Row = tuple[Path, float]
"""A recording, and the speed at which it is heard."""
Job = tuple[Sequence[Path], float, Path]
Embed = Callable[[np.ndarray], np.ndarray]
"""Samples `[n]` at `SAMPLE_RATE` to an embedding `[dim]`."""

_embed: Embed  # of this process


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=f"a checkpoint, a name of published weights, or {RESEMBLYZER}")
    parser.add_argument("corpora", type=Path, nargs="+", help="folders of recordings")
    parser.add_argument("-o", "--output", type=Path, required=True, help="an archive (.npz)")
    parser.add_argument("--parts", type=Path, help="a folder for what is done; by default OUTPUT.parts")
    parser.add_argument("--speed", type=float, action="append", default=[], help="besides 1; may be repeated")
    parser.add_argument("--source", type=re.compile, default=re.compile(""), help="'/(cv|so)-', for example")
    parser.add_argument("--sessions", type=float, default=0.0, help="share of a speaker's other sessions, 0 to 1")
    options = parser.parse_args()
    recordings = [path for folder in options.corpora for path in list_recordings(folder)]
    parts = options.parts or Path(f"{options.output}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    jobs: list[Job] = [
        (recordings[start : start + PART], speed, parts / f"{Path(options.model).stem}-{speed:g}-{start}.npy")
        for speed in (1.0, *options.speed)
        for start in range(0, len(recordings), PART)
    ]
    still = [job for job in jobs if not job[2].exists()]
    if options.model == RESEMBLYZER:
        Peer(ENVIRONMENT).close()  # installed, once
    # A process of one thread for each core: threads of one process would wait for each other.
    with (
        multiprocessing.get_context("spawn").Pool(os.cpu_count(), _begin, [options.model]) as pool,
        progress_bar(f"{options.output}, {PART} recordings a step") as show,
    ):
        for done, _ in enumerate(pool.imap_unordered(_write, still), 1):
            show(done, len(still))
    matrix = np.concatenate([np.load(part) for _, _, part in jobs])
    rows = [(path, speed) for some, speed, _ in jobs for path in some]
    origins = [(match[0] if (match := options.source.search(str(path))) else "", speed) for path, speed in rows]
    _, origin = np.unique([f"{source} {speed}" for source, speed in origins], return_inverse=True)
    for number in range(origin.max() + 1):
        matrix[origin == number] -= matrix[origin == number].mean(axis=0)
    matrix = unit_rows(matrix)
    if options.sessions:
        matrix = _across_sessions(matrix, rows, options.corpora, options.sessions)
    names = [str(path) if speed == 1 else f"{path}@{speed:g}" for path, speed in rows]
    with atomic_write(options.output) as unfinished, unfinished.open("wb") as file:
        dim = np.array(matrix.shape[1])
        np.savez(file, names=np.array(names), embeddings=matrix, model=np.array(options.model), dim=dim)
    print(f"{options.output}: {len(names):,} embeddings of {origin.max() + 1} sources and speeds")


def _across_sessions(matrix: np.ndarray, rows: Sequence[Row], corpora: Sequence[Path], share: float) -> np.ndarray:
    """Rows of length one, moved by `share` towards the mean of the same speaker's other sessions.

    Args:
        matrix: `[n, dim]`, of length one.
        rows: recording and speed of each.
        corpora: folders that say who speaks; where they name nobody, or a speaker has one session, rows stay.
        share: from 0, nothing changes, to 1, that mean alone.
    """
    heard = {item.path.resolve(): (folder, item) for folder in corpora for item in read_corpus(folder)}
    sessions = np.array([heard[path.resolve()][1].session for path, _ in rows])
    of_speakers: dict[tuple[Path, str, float], list[int]] = {}
    for number, (path, speed) in enumerate(rows):
        folder, item = heard[path.resolve()]
        if item.speaker:
            of_speakers.setdefault((folder, item.speaker, speed), []).append(number)
    found = matrix.copy()
    for numbers in of_speakers.values():
        same, own = matrix[numbers], sessions[numbers]
        alike = (own[:, None] != own) & (same @ same.T >= STRANGERS)
        moved = unit_rows((1 - share) * same + share * unit_rows(alike @ same))
        found[numbers] = np.where(alike.any(axis=1)[:, None], moved, same)
    return found


def _begin(model: str) -> None:
    """In each process."""
    global _embed
    torch.set_num_threads(1)
    _embed = _by_peer() if model == RESEMBLYZER else _by_encoder(model)


def _by_peer() -> Embed:
    peer = Peer(ENVIRONMENT)
    return lambda samples: peer.embed(samples)[0]


def _by_encoder(model: str) -> Embed:
    encoder = load_encoder(model)
    return lambda samples: encoder.encode(samples, sample_rate=SAMPLE_RATE)[0]


def _write(job: Job) -> None:
    """Embeddings of some recordings at a speed, a row each, into a file."""
    recordings, speed, part = job
    found = []
    for path in recordings:
        samples = read_audio(path, sample_rate=SAMPLE_RATE).samples
        found.append(_embed(samples if speed == 1 else soxr.resample(samples, speed, 1.0)))
    with atomic_write(part) as unfinished, unfinished.open("wb") as file:
        np.save(file, np.stack(found).astype(np.float32))


if __name__ == "__main__":
    main()
