"""What `voxnest train --dry-run` says of memory, against what the training then takes.

    python benchmarks/memory.py

Each training runs in a process of its own, on noise; what it took is the largest resident set of that process.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

CONFIG = "configs/comparison.yaml"
COMMON = ("loss.dim_weights=null", "data.validation=null", "trainer.max_steps=6", "augmentation={}")
RUNS = {
    "default's network, 32 crops of 1.5 s": ("crops.batch_size=32", "model.dims=[256]"),
    "redimnet-b2, 16 crops of 2 s": (
        *("crops.batch_size=16", "crops.duration=2.0"),
        *("model.name=redimnet-b2", "model.overrides={}", "model.dims=[192]"),
    ),
    "ecapa-tdnn-512, 16 crops of 2 s": (
        *("crops.batch_size=16", "crops.duration=2.0", "optimizer={name: adamw}"),
        *("model.name=ecapa-tdnn-512", "model.overrides={}", "model.dims=[192]"),
    ),
}


def main() -> None:
    """Plan and train each, and print both figures."""
    table = Table("training", "estimate, GB", "taken, GB", "estimate / taken")
    with tempfile.TemporaryDirectory() as folder:
        draw = np.random.default_rng(0)
        for number in range(60):
            path = Path(folder) / "speech" / f"{number % 20}" / f"{number}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, 0.1 * draw.standard_normal(64000), 16000)
        for name, settings in RUNS.items():
            place = (f"data.train={folder}/speech", f"output={folder}/{name[:10]}")
            printed, _ = train(*COMMON, *settings, *place, "--dry-run")
            found = re.search(r"memory\s+([\d.]+) GB", printed)
            if found is None:
                sys.exit(printed)
            estimate, taken = float(found[1]), train(*COMMON, *settings, *place)[1] / 1e9
            print(f"{name}: {estimate:.2f} and {taken:.2f} GB", file=sys.stderr)
            table.add_row(name, f"{estimate:.2f}", f"{taken:.2f}", f"{estimate / taken:.2f}")
    Console().print(table)


def train(*settings: str) -> tuple[str, int]:
    """What `voxnest train` printed, and the most bytes it held."""
    command = [sys.executable, "-m", "voxnest", "train", CONFIG, *settings]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        output.seek(0)
        printed = output.read()
    if status:
        sys.exit(printed)
    return printed, usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
