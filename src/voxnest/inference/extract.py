"""Embed whole recordings, each read once, with the decoding of some under the network's work on others."""

from __future__ import annotations

import glob
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from voxnest.audio import audio_info, list_recordings, read_audio
from voxnest.errors import AudioError, CheckpointError, VoxnestError
from voxnest.files import atomic_write

if TYPE_CHECKING:
    from voxnest.models.encoder import SpeakerEncoder

# Each worker holds the activations of `max_duration` seconds: hundreds of MB in the larger models.
_MOST_WORKERS = 8


class Embeddings(dict[str, np.ndarray]):
    """`{path as given: [embedding_dim] float32}` in the order given.

    Attributes:
        failures: (path, reason) of each recording that was skipped.
        silent: paths of recordings that hold nothing but silence; they are embedded all the same.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[tuple[str, str]] = []
        self.silent: list[str] = []


def embed_files(
    encoder: SpeakerEncoder,
    paths: Sequence[str | Path],
    *,
    root: str | Path | None = None,
    progress: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    max_duration: float = 60.0,
) -> Embeddings:
    """Embed whole recordings at full size, each read once.

    Every recording goes through the network alone, at its own length, so its embedding does not depend on the
    others. On a CPU as many are under way as PyTorch has threads (at most 8), each in one thread: recordings
    seldom have equal lengths to be batched by, and threads within one operation wait for each other more than
    they work (6 times slower for 100 utterances of LibriSpeech on 2 busy cores).

    A recording longer than `max_duration` is embedded in equal parts, since the network's memory grows with
    the length. Its embedding is the mean of the parts' length-normalised embeddings, times their mean norm.

    Args:
        encoder: on the device it shall run on. It runs in eval mode; its modes are put back afterwards.
        paths: recordings; one given twice is embedded once.
        root: the folder that `paths` are relative to; the current one if None.
        progress: show a progress bar on stderr.
        on_error: "raise" at the first recording that cannot be used, or "skip" it and list it in the result's
            `failures`.
        max_duration: the longest part given to the network at once, in seconds.

    Returns:
        Embeddings by the path as given (as a string).

    Raises:
        AudioError: a recording cannot be used, or is shorter than the encoder's `min_samples`.
        CheckpointError: the encoder gives an embedding that is not finite.
        ValueError: a `max_duration` that is not positive.
    """
    if not max_duration > 0:
        raise ValueError(f"max_duration must be a positive number of seconds, not {max_duration}")
    names = list(dict.fromkeys(map(str, paths)))
    folder = Path(root) if root is not None else Path()
    result = Embeddings()

    def collect(name: str, future: Future[tuple[np.ndarray, bool]]) -> None:
        try:
            result[name], silent = future.result()
        except AudioError as error:
            if on_error == "raise":
                raise
            result.failures.append((name, str(error).removeprefix(f"{error.subject}: ")))
        else:
            if silent:
                result.silent.append(name)
        advance()

    with _eval_mode(encoder), _progress_bar(len(names), progress) as advance, _workers() as (pool, workers):
        pending: deque[tuple[str, Future[tuple[np.ndarray, bool]]]] = deque()
        for name in names:
            pending.append((name, pool.submit(_embed_file, encoder, folder / name, max_duration)))
            if len(pending) > 2 * workers:  # hundreds of thousands of futures would be memory too
                collect(*pending.popleft())
        while pending:
            collect(*pending.popleft())
    return result


def find_recordings(places: Sequence[str | Path]) -> list[str]:
    """Expand folders (searched at all depths, hidden files left out) and patterns such as `a/**/*.wav`.

    What is neither is given back as it is, whether it exists or not. Each recording is named once.

    Raises:
        AudioError: there is no recording in a folder.
    """
    found: dict[str, None] = {}
    for place in map(str, places):
        if Path(place).is_dir():
            recordings = list(map(str, list_recordings(Path(place))))
            if not recordings:
                raise AudioError(place, "no recordings in it", "files ending in .wav, .flac, .mp3, .m4a, ...")
        elif Path(place).exists():  # a name may well hold [ or *
            recordings = [place]
        else:
            recordings = sorted(glob.glob(place, recursive=True)) or [place]
        found.update(dict.fromkeys(recordings))
    return list(found)


def embed_to_file(
    encoder: SpeakerEncoder,
    paths: Sequence[str | Path],
    output: str | Path,
    *,
    dim: int | None = None,
    progress: bool = False,
) -> Embeddings:
    """Embed recordings and write them to `output`, a NumPy archive that `numpy.load` reads.

    It holds `names` [n], `embeddings` [n, dim] float32, `model` (its name) and `dim`. Recordings that cannot
    be used are left out and listed in the result's `failures`; if that is all of them, nothing is written.

    Raises:
        ConfigError: the encoder was not trained for `dim`.
        VoxnestError: `output` cannot be written. This is tried before the first recording is embedded.
    """
    if dim is None:
        dim = encoder.embedding_dim
    encoder.head.check_dim(dim)
    if Path(output).is_dir():
        raise VoxnestError(output, "is a directory", "the name of a file to write")
    try:
        with atomic_write(output) as temporary:
            embeddings = embed_files(encoder, paths, progress=progress, on_error="skip")
            if not embeddings:
                raise _NothingEmbedded
            with temporary.open("wb") as file:
                np.savez(
                    file,
                    names=np.array(list(embeddings)),
                    embeddings=np.stack(list(embeddings.values()))[:, :dim],
                    model=np.array(encoder.name),
                    dim=np.array(dim),
                )
    except _NothingEmbedded:
        pass  # an older `output` keeps what it held
    except OSError as error:
        raise VoxnestError(output, f"cannot be written: {error.strerror or error}") from error
    return embeddings


class _NothingEmbedded(Exception):
    pass


def _embed_file(encoder: SpeakerEncoder, path: Path, max_duration: float) -> tuple[np.ndarray, bool]:
    """Give a recording's embedding, and whether the recording is silent."""
    rate = encoder.sample_rate
    shortest = encoder.min_samples / rate
    device = next(encoder.parameters()).device
    embeddings, silent = [], True
    for offset, duration in _parts(audio_info(path).duration, max_duration):
        audio = read_audio(path, sample_rate=rate, offset=offset, duration=duration, min_duration=shortest)
        silent = silent and audio.is_silent
        with torch.inference_mode():  # of this thread: PyTorch has one such mode per thread
            waveform = torch.from_numpy(audio.samples)[None].to(device)
            embeddings.append(encoder(waveform)[0].float().cpu().numpy())
    parts = np.stack(embeddings)
    if not np.isfinite(parts).all():
        found = f"the embedding of {path} is NaN or infinite"
        raise CheckpointError(encoder.name, found, "a model whose training did not diverge")
    if len(parts) == 1:
        return parts[0], silent
    norms = np.linalg.norm(parts, axis=1, keepdims=True)
    mean = (parts / np.maximum(norms, np.finfo(np.float32).tiny)).mean(axis=0)
    return (mean * norms.mean()).astype(np.float32), silent


def _parts(duration: float, max_duration: float) -> list[tuple[float, float | None]]:
    """(offset, duration) of equal parts no longer than `max_duration`; the last one goes up to the end."""
    count = max(1, math.ceil(duration / max_duration))
    length = duration / count
    return [(index * length, length if index < count - 1 else None) for index in range(count)]


@contextmanager
def _workers() -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Give a pool of threads that compute in one thread each, and how many they are."""
    threads = torch.get_num_threads()
    count = min(threads, _MOST_WORKERS)
    pool = ThreadPoolExecutor(count, "embed", initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool, count
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' setting is also what later threads begin with


@contextmanager
def _eval_mode(encoder: torch.nn.Module) -> Iterator[None]:
    """Put every module in eval mode, then back as each was (a frozen part may be in eval mode all along)."""
    training = [module for module in encoder.modules() if module.training]
    encoder.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _progress_bar(total: int, visible: bool) -> Iterator[Callable[[], None]]:
    """Give a function to call after each recording."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda: bar.advance(task)
