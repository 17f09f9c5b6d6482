"""Mean and deviation of features over a corpus, in one pass over its recordings that can be continued."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from voxnest.audio import read_audio
from voxnest.corpora.manifest import Utterance
from voxnest.errors import AudioError, CorpusError
from voxnest.files import atomic_write, writing
from voxnest.frontends import Frontend

_CHUNK = 32  # utterances per task, whose sums are added in order: the same numbers for any number of threads
_PIECE = 30.0  # seconds whose features are in memory at once
_SAVE_EVERY = 30.0  # seconds


T = TypeVar("T")
R = TypeVar("R")


class Moments(NamedTuple):
    """How many frames were seen, their mean `[bins]` and sum of squared differences from it `[bins]`, in float64.

    Sums of squares would lose the deviation of bins that hardly change; merging as Chan et al. (1979) do does not.
    """

    frames: int
    mean: np.ndarray
    squares: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> Moments:
        """Those of `[bins, frames]`."""
        mean = features.mean(axis=1, dtype=np.float64)
        return cls(features.shape[1], mean, np.square(features - mean[:, None]).sum(axis=1))

    def merged(self, other: Moments) -> Moments:
        """Those of both."""
        frames = self.frames + other.frames
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * (self.frames * other.frames / frames)
        return Moments(frames, self.mean + step * (other.frames / frames), squares)


def corpus_statistics(
    frontend: Frontend,
    utterances: Sequence[Utterance],
    state: str | Path | None = None,
    *,
    jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation per bin of a front end's raw features over all frames of utterances, in constant memory.

    The result depends on the utterances and their order alone, not on `jobs` or on interruptions.

    Args:
        frontend: whose `raw_features` are taken.
        utterances: of the corpus; those that cannot be read, or are too short, do not count.
        state: a file in which the pass notes how far it is, and which a later call continues from. One of other
            utterances, changed files or another front end begins anew.
        jobs: threads; as many as processors when None.
        progress: called with the utterances done and their total.

    Returns:
        `[bins]` each, in float64.

    Raises:
        CorpusError: no utterance can be read.
    """
    path = None if state is None else Path(state)
    identity = "" if path is None else corpus_identity(frontend, utterances)
    done, moments = _read_state(path, identity)
    jobs, saved = jobs or os.cpu_count() or 1, time.monotonic()
    chunks = (utterances[start : start + _CHUNK] for start in range(done, len(utterances), _CHUNK))
    with threads(jobs) as pool:
        for number, found in enumerate(in_order(pool, lambda chunk: _moments(frontend, chunk), chunks, 2 * jobs)):
            if found is not None:
                moments = found if moments is None else moments.merged(found)
            now = min(done + (number + 1) * _CHUNK, len(utterances))
            if progress:
                progress(now, len(utterances))
            if path is not None and moments and (now == len(utterances) or time.monotonic() - saved > _SAVE_EVERY):
                _write_state(path, identity, now, moments)
                saved = time.monotonic()
    if moments is None:
        raise CorpusError("statistics of features", f"none of {len(utterances)} utterances can be read", "recordings")
    return moments.mean, np.sqrt(moments.squares / moments.frames)


def corpus_identity(frontend: Frontend, utterances: Iterable[Utterance]) -> str:
    """A digest of a front end's raw features and of the audio of utterances: where it lies, its size and its time."""
    digest = hashlib.sha256(frontend.fingerprint().encode())
    for utterance in utterances:
        digest.update(repr(audio_identity(utterance)).encode())
    return digest.hexdigest()


def audio_identity(utterance: Utterance) -> tuple[str, float, float, int, int]:
    """What tells the audio of an utterance from any other: path, offset, duration, and the file's size and time."""
    try:
        status = os.stat(utterance.path)
        size, changed = status.st_size, status.st_mtime_ns
    except OSError:
        size, changed = -1, -1
    return str(utterance.path), utterance.offset, utterance.duration, size, changed


def raw_features(frontend: Frontend, utterance: Utterance, most: float | None = None) -> Iterator[np.ndarray]:
    """Raw features `[bins, frames]` of an utterance, in pieces of at most `most` seconds (None: in one).

    Raises:
        AudioError: it cannot be read, or is too short for the front end.
    """
    rate = frontend.sample_rate
    count = 1 if most is None else max(1, int(np.ceil(utterance.duration / most)))
    length = utterance.duration / count
    device = next(frontend.buffers()).device
    for number in range(count):
        audio = read_audio(
            utterance.path,
            sample_rate=rate,
            offset=utterance.offset + number * length,
            duration=length,
            min_duration=frontend.min_samples / rate,
        )
        yield frontend.raw_features(torch.from_numpy(audio.samples)[None].to(device))[0].cpu().numpy()


def _moments(frontend: Frontend, utterances: Sequence[Utterance]) -> Moments | None:
    total: Moments | None = None
    for utterance in utterances:
        try:
            for piece in raw_features(frontend, utterance, _PIECE):
                found = Moments.of(piece)
                total = found if total is None else total.merged(found)
        except AudioError:  # training tells of it
            continue
    return total


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads compute in one thread each."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, "features", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' setting is also what later threads begin with


def in_order(pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterator[T], ahead: int) -> Iterator[R]:
    """What `work` gives for each item, in order, with only so many under way."""
    pending = [pool.submit(work, item) for item in islice(items, ahead)]
    while pending:
        yield pending.pop(0).result()
        pending += [pool.submit(work, item) for item in islice(items, 1)]


def _read_state(path: Path | None, identity: str) -> tuple[int, Moments | None]:
    """How many utterances an earlier pass has done, and their moments."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
        if content.get("identity") != identity:
            return 0, None
        frames, mean, squares = (content[key] for key in Moments._fields)
        return int(content["done"]), Moments(int(frames), np.array(mean, np.float64), np.array(squares, np.float64))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or none that can be used
        return 0, None


def _write_state(path: Path, identity: str, done: int, moments: Moments) -> None:
    content = {
        "identity": identity,
        "done": done,
        "frames": moments.frames,
        "mean": moments.mean.tolist(),
        "squares": moments.squares.tolist(),
    }
    with writing(path, CorpusError, "room on the disk"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
