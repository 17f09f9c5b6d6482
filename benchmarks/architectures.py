"""What one forward pass costs: every architecture against a public implementation of it, on one CPU core.

    python benchmarks/architectures.py --wheels /tmp/wheels
    git clone https://github.com/wenet-e2e/wespeaker /tmp/wespeaker
    git clone https://github.com/dmlguq456/NeXt_TDNN_ASV /tmp/next-tdnn
    git clone https://github.com/IDRnD/ReDimNet /tmp/redimnet
    git clone https://github.com/PalabraAI/redimnet2 /tmp/redimnet2
    python benchmarks/architectures.py --wheels /tmp/wheels \\
        --clone /tmp/wespeaker /tmp/next-tdnn /tmp/redimnet /tmp/redimnet2

References are packages on the registry, downloaded without what they depend on, and clones for architectures that no
package has; `references.py` lists them. Both sides run eagerly in float32 from the same features of one utterance to
its embedding, without front ends, with random weights. They must have as many parameters, up to 3%. Times are of the
CPU, in one thread, so that other programs on the machine count little; the two take turns, and the middle time counts.
A ratio below 1 means that ours is faster.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from references import REFERENCES, Reference, fetch_wheels, open_sources
from voxnest.zoo.counting import count_parameters
from voxnest.zoo.registry import create_encoder, list_models

TOLERANCE = 0.03


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, help="keep the downloaded packages here")
    parser.add_argument("--clone", type=Path, nargs="+", default=[], help="clones of repositories")
    parser.add_argument("--only", nargs="+", choices=list_models(), metavar="NAME", help="these architectures")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the utterance")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = options.only or list_models()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for folder in options.clone:
                if not any(reference.find([folder]) for reference in REFERENCES):
                    raise OSError(f"{folder}: none of the references (expected a clone of a repository named above)")
            folders = [fetch_wheels(options.wheels or Path(temporary)), *options.clone]
        except OSError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        open_sources(folders)
        chosen = [reference for reference in REFERENCES if reference.name in names and reference.find(folders)]
        rows = [
            (reference, *compare(reference, options.seconds, options.rounds))
            for reference in track(chosen, "measuring", transient=True)
        ]
    title = f"{options.seconds:g} s, one thread, CPU ms, middle of {options.rounds}, torch {torch.__version__}"
    table = Table(title=title)
    for column in ("architecture", "reference"):
        table.add_column(column, no_wrap=True)
    for column in ("params", "theirs", "ours", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for reference, parameters, theirs, ours in rows:
        figures = f"{parameters / 1e6:.2f} M", f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}"
        table.add_row(reference.name, reference.source, *figures)
    console = Console()
    console.print(table)
    slower = [f"{row.name} ({ours / theirs:.2f})" for row, _, theirs, ours in rows if ours > theirs]
    console.print("slower than the reference:", ", ".join(slower) or "none")
    found = {reference.name for reference in chosen}
    console.print("without a reference:", ", ".join(name for name in names if name not in found) or "none")


def compare(reference: Reference, seconds: float, rounds: int) -> tuple[int, float, float]:
    """Parameters, and milliseconds of the reference and of ours.

    Raises:
        ValueError: if the two have different numbers of parameters.
    """
    theirs, ours = reference.build(), create_encoder(reference.name, **reference.ours).eval()
    expected, count = sum(value.numel() for value in theirs.parameters() if value.requires_grad), count_parameters(ours)
    if abs(count / expected - 1) > TOLERANCE:
        raise ValueError(f"{reference.name}: {count} parameters, {expected} in that of {reference.source}")
    with torch.inference_mode():
        features = ours.frontend(0.1 * torch.randn(1, int(seconds * ours.sample_rate)))
        laid_out = reference.layout(features)
        return count, *take_turns(lambda: theirs(laid_out), lambda: ours.embed_features(features), rounds)


def take_turns(first: Callable[[], object], second: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Middle CPU time of each in milliseconds; two rounds more go before to warm up."""
    times: tuple[list[float], list[float]] = [], []
    for turn in range(rounds + 2):
        for recorded, call in zip(times, (first, second), strict=True):
            start = time.thread_time()  # the progress bar has a thread of its own
            call()
            if turn > 1:
                recorded.append(1e3 * (time.thread_time() - start))
    return statistics.median(times[0]), statistics.median(times[1])


if __name__ == "__main__":
    main()
