"""What a training crop costs: crops per second of one core, by augmentation, from memory and from disk.

    python benchmarks/data_loading.py FOLDER [--duration 1.5]

FOLDER has `<speaker>/<session>/<utterance>` below it. --loaders compares instead the ways to make batches, while
a network keeps all cores busy: time per step with the data made beforehand, in line, in a thread, by a worker.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from voxnest.audio import AUDIO_SUFFIXES, audio_info
from voxnest.corpora.manifest import Utterance
from voxnest.crops.augmentation import Augmentation
from voxnest.crops.dataset import CropDataset
from voxnest.crops.loading import make_loader

OFF = {"noise_probability": 0.0, "reverberation_probability": 0.0, "volume_db": (0, 0)}
SPEEDS = (1.0, 0.9, 1.1)
MEASURED = 960


def variants() -> dict[str, dict[str, object]]:
    """Arguments of CropDataset; 'training' is the usual mix, the others do one thing to every crop."""

    def every(**changes: object) -> dict[str, object]:
        return {"augmentation": Augmentation(**{**OFF, **changes})}  # type: ignore[arg-type]

    return {
        "plain": {},
        "speed (2 of 3)": {"speeds": SPEEDS},
        "coloured noise": every(noise_probability=1.0, noise_kinds={"coloured": 1}),
        "babble": every(noise_probability=1.0, noise_kinds={"babble": 1}),
        "reverberation": every(reverberation_probability=1.0),
        "telephone": every(telephone_probability=1.0),
        "training": {"speeds": SPEEDS, "augmentation": Augmentation()},
        "all, always": {
            "speeds": SPEEDS,
            "augmentation": Augmentation(noise_probability=1.0, reverberation_probability=1.0),
        },
    }


def utterances_of(folder: Path) -> list[Utterance]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return [
        Utterance(str(path), path.relative_to(folder).parts[0], path.parent.name, path, audio_info(path).duration)
        for path in paths
    ]


def milliseconds_per_crop(dataset: CropDataset, count: int) -> float:
    """CPU time, so that other programs on the machine do not count."""
    chosen = np.random.default_rng(0).permutation(len(dataset))[:count]
    start = time.process_time()
    for i in chosen:
        dataset[int(i)]
    return (time.process_time() - start) / len(chosen) * 1000


def costs(utterances: list[Utterance], duration: float, console: Console) -> None:
    table = Table("crop", "memory ms", "memory crops/s", "disk ms", "disk crops/s", title=f"{duration} s crops")
    warm = CropDataset(utterances, duration=duration)
    start = time.process_time()
    for recording in warm._recording:
        warm._store.read(int(recording), 0, 1)
    decoding = time.process_time() - start
    too_small = 0.9 * sum(utterance.duration for utterance in utterances) * 32000 / 1e9
    for name, arguments in variants().items():
        row = [name]
        for cache_gb, count in ((2.0, MEASURED), (too_small, MEASURED // 4)):
            dataset = CropDataset(utterances, duration=duration, cache_gb=cache_gb, **arguments)  # type: ignore[arg-type]
            if cache_gb == too_small:
                for recording in dataset._recording[dataset._pool]:  # babble comes from memory at any size
                    dataset._store.read(int(recording), 0, 1)
            else:
                dataset._store = warm._store
            dataset.plan()
            cost = milliseconds_per_crop(dataset, count)
            row += [f"{cost:.2f}", f"{1000 / cost:.0f}"]
        table.add_row(*row)
    console.print(table)
    hours = sum(utterance.duration for utterance in utterances) / 3600
    console.print(f"decoding the corpus once ({hours:.2f} hours): {decoding:.1f} s of CPU time")


def loaders(utterances: list[Utterance], duration: float, console: Console) -> None:
    """Steps of a convolutional network on all cores, by the way its batches are made."""
    network = torch.nn.Sequential(
        torch.nn.Conv1d(1, 64, 400, 160),
        *[torch.nn.Sequential(torch.nn.Conv1d(64, 64, 9, padding=4), torch.nn.ReLU()) for _ in range(8)],
    )

    def step(waveform: torch.Tensor) -> None:
        network(waveform[:, None]).square().mean().backward()

    dataset = CropDataset(utterances, duration=duration, speeds=SPEEDS, augmentation=Augmentation())
    ways: dict[str, dict[str, object]] = {
        "in line": {"workers": 0},
        "thread": {"workers": 0, "prefetch": True},
        "1 worker": {"workers": 1},
        "2 workers": {"workers": 2},
    }
    for i in range(len(dataset)):
        dataset[i]
    made = torch.from_numpy(np.stack([dataset[i].waveform for i in range(32)]))
    times: dict[str, list[float]] = {name: [] for name in ["made beforehand", *ways]}
    passes = {}
    for name, arguments in ways.items():
        passes[name] = iter(make_loader(dataset, batch_size=32, **arguments))  # type: ignore[arg-type]
    for _ in range(4):  # in turns, so that what else runs on the machine strikes all alike
        for name, recorded in times.items():
            for number in range(9):
                start = time.perf_counter()
                step(next(passes[name])["waveform"] if name in passes else made)
                if number > 3:  # the first batches were made while the others had their turn
                    recorded.append(time.perf_counter() - start)
    table = Table("batches made", "ms per step", "against beforehand", title="32 crops, network on all cores")
    best = float(np.median(times["made beforehand"]))
    for name, recorded in times.items():
        median = float(np.median(recorded))
        table.add_row(name, f"{median * 1000:.1f}", f"{median / best:.3f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--duration", type=float, default=1.5)
    parser.add_argument("--loaders", action="store_true")
    arguments = parser.parse_args()
    console = Console()
    utterances = utterances_of(arguments.folder)
    if arguments.loaders:
        loaders(utterances, arguments.duration, console)
    else:
        torch.set_num_threads(1)
        costs(utterances, arguments.duration, console)


if __name__ == "__main__":
    main()
