"""What a stream costs on one core, and how near its running embeddings are to those of the whole.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/streaming.py
    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/streaming.py --speech ../shared/data/voices/test

The first feeds noise in random chunks to networks with random weights, whose time does not depend on what they hear.
Times are given as fractions of the sound's: of the clock, and of the processor, which a busy machine does not change.
The second feeds the default model with recordings of speech.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from voxnest import create_encoder, list_models, load_encoder, read_audio, similarity
from voxnest.audio import audio_info, list_recordings
from voxnest.models.encoder import SpeakerEncoder

SETTINGS = ((1.0, 3.0), (0.5, 3.0), (1.0, 2.0), (1.0, 6.0))  # hop and window, in seconds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=list_models(), metavar="NAME")
    parser.add_argument("--seconds", type=int, default=60, help="of noise")
    parser.add_argument("--speech", type=Path, help="a folder of recordings: measure likeness, not time")
    parser.add_argument("--recordings", type=int, default=20, help="of speech, of 6 s and more")
    options = parser.parse_args()
    if options.speech:
        measure_likeness(load_encoder(), list_recordings(options.speech), options.recordings)
    else:
        measure_time(options.models or ["redimnet-b0", "redimnet-b1", "redimnet-b2"], options.seconds)


def measure_time(models: list[str], seconds: int) -> None:
    """Real-time factors of networks with random weights."""
    title = (
        f"{seconds} s in chunks of up to 100 ms; {os.cpu_count()} processors, torch threads: {torch.get_num_threads()}"
    )
    table = Table("model", "hop, window", title=title, title_justify="left")
    for column in ("clock / sound", "processor / sound", "slowest hop", "finish", "cosine of finish and encode"):
        table.add_column(column, justify="right")
    for model in models:
        encoder = create_encoder(model).eval()
        samples = (0.1 * np.random.default_rng(0).standard_normal(16000 * seconds)).astype(np.float32)
        for hop, window in SETTINGS[:2]:
            encoder.stream(hop, window=window).feed(samples[: int(16000 * (window + hop))])  # warm
            feeds, processor, ending, final = feed(encoder, samples, hop, window)
            likeness = similarity(final, encoder.encode(samples)[0])
            figures = (f"{sum(feeds) / seconds:.3f}", f"{processor / seconds:.3f}", f"{1000 * max(feeds):.0f} ms")
            table.add_row(model, f"{hop:g} s, {window:g} s", *figures, f"{ending:.2f} s", f"{likeness:.7f}")
    Console(width=140).print(table)


def feed(
    encoder: SpeakerEncoder, samples: np.ndarray, hop: float, window: float
) -> tuple[list[float], float, float, np.ndarray]:
    """Seconds that each chunk took, of the processor for all, and of `finish`; what it gave."""
    stream, at, feeds = encoder.stream(hop, window=window), 0, []
    sizes = np.random.default_rng(1)
    begun = time.process_time()
    while at < len(samples):
        size = int(sizes.integers(1, 1601))
        start = time.perf_counter()
        stream.feed(samples[at : at + size])
        feeds.append(time.perf_counter() - start)
        at += size
    processor, start = time.process_time() - begun, time.perf_counter()
    final = stream.finish().embedding
    return feeds, processor, time.perf_counter() - start, final


def measure_likeness(encoder: SpeakerEncoder, recordings: list[Path], count: int) -> None:
    """Cosines of the last running embedding and that of the whole, of recordings spread over those of 6 s and more."""
    long = [path for path in recordings if audio_info(path).duration >= 6]
    sounds = [read_audio(path).samples for path in long[:: max(1, len(long) // count)][:count]]
    wholes = encoder.encode(sounds)
    title = f"{encoder.name}, {len(sounds)} recordings of 6 s and more"
    table = Table("hop, window", "median cosine", "lowest", title=title, title_justify="left")
    for hop, window in SETTINGS:
        likeness = []
        for samples, whole in zip(sounds, wholes, strict=True):
            heard = encoder.stream(hop, window=window).feed(samples)
            likeness.append(float(similarity(heard[-1].embedding, whole)))
        table.add_row(f"{hop:g} s, {window:g} s", f"{statistics.median(likeness):.3f}", f"{min(likeness):.3f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
