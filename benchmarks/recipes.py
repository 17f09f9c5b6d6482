"""What training recipes do to error rates: each against the same training without it, several seeds, real speech.

    python benchmarks/recipes.py runs/recipes                     # all: hours of a core
    python benchmarks/recipes.py runs/recipes --only exits --seeds 0 --plot exits.svg

The network and the training are those of configs/small.yaml, 600 steps; `adapters` adapts the model that comes with
voxnest to a copy of the corpus at 8 kHz, through a telephone's band and mu-law. What is finished in the folder is not
trained again, and what was interrupted goes on. The weights are the last ones of each training, nothing is chosen on
the trials: ten unseen speakers, 450 target trials, so that one of them is 0.22%. Ratios are of mean error rates over
the seeds, with 95% intervals over speakers (drawn anew; the same draws for both sides).
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table

from error_rates import Rates, Trials, mean_rate, ratio
from voxnest.audio import read_audio
from voxnest.crops.signals import telephone
from voxnest.hub.checkpoint import load_encoder
from voxnest.models.encoder import SpeakerEncoder

VOICES = Path("../shared/data/voices")
SMALL, LARGE_MARGIN = "configs/small.yaml", "configs/large-margin.yaml"
EXITS, DIMS = (2, 3), (16, 64, 256)


@dataclass(frozen=True)
class Recipe:
    """A training.

    Attributes:
        config: its file.
        settings: what is set otherwise there; `{seed}` and `{folder}` are filled in.
        after: the recipe whose weights it starts from.
    """

    config: str
    settings: tuple[str, ...] = ()
    after: str | None = None


_AUGMENTATION = (
    "augmentation.noise=[../shared/data/voices/noise]",
    "augmentation.noise_kinds={files: 1.0, coloured: 1.0, babble: 1.0}",
    "augmentation.noise_probability=0.4",
    "augmentation.reverberation_probability=0.1",
)
_ADAPT = (
    *("init_from=default", "model={name: null}", "data.train={folder}/telephone/train", "crops.durations={}"),
    *("crops.duration=1.5", "crops.batch_size=32", "augmentation.ramp_epochs=[0, 0]", "loss.margin_start=0.2"),
    *("trainer.max_steps=200", "trainer.val_every_steps=200"),
)
RECIPES = {
    "plain": Recipe(SMALL),
    "exits": Recipe(SMALL, (f"model.overrides.exits={list(EXITS)}",)),
    "durations": Recipe(SMALL, ("loss.duration_weights={0.75: [1, 1, 0.25]}",)),
    "distilled": Recipe(
        SMALL,
        ("distillation={teachers: [default], cosine: 10, relational: 100, prefix: 100}",),
    ),
    "sphereface2": Recipe(SMALL, ("loss.kind=sphereface2",)),
    "large-margin": Recipe(
        LARGE_MARGIN,
        (
            *("data.train=../shared/data/voices/train", "data.validation={held_out_speakers: 12, segment: 2.0}"),
            *("crops.duration=4.0", *_AUGMENTATION, "trainer.precision=auto", "trainer.accelerator=cpu"),
        ),
        after="plain",
    ),
    "full": Recipe(SMALL, (*_ADAPT, "optimizer.lr=0.001")),
    "lora": Recipe(SMALL, (*_ADAPT, "adapter={rank: 8, alpha: 16}", "optimizer.lr=0.002")),
}
EXPERIMENTS = {
    "exits": ("plain", "exits"),
    "durations": ("plain", "durations"),
    "distillation": ("plain", "distilled"),
    "losses": ("plain", "sphereface2"),
    "large-margin": ("plain", "large-margin"),
    "adapters": ("full", "lora"),
}


def main() -> None:
    """Train what is missing, measure, and print a table for each experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the trainings")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time, a thread each")
    parser.add_argument("--plot", type=Path, help="draw error rates of exits against their time here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "adapters" in options.only:
        copy_by_telephone(VOICES, options.folder / "telephone")
    wanted = dict.fromkeys(name for experiment in options.only for name in EXPERIMENTS[experiment])
    with ThreadPoolExecutor(options.jobs) as pool:
        waiting = [(name, seed) for seed in options.seeds for name in sorted(wanted, key=_depth)]
        for late in (False, True):  # what starts from other weights waits for all of those
            runs = [run for run in waiting if _depth(run[0]) == late]
            list(pool.map(lambda run: train(run[0], run[1], options.folder), runs))
    encoders = {
        name: [load_encoder(run_folder(name, seed, options.folder) / "last.safetensors") for seed in options.seeds]
        for name in wanted
    }
    console = Console(width=140)
    for experiment in options.only:
        for table in TABLES[experiment](encoders, options):
            console.print(table)


def _depth(name: str) -> bool:
    return RECIPES[name].after is not None


def run_folder(name: str, seed: int, folder: Path) -> Path:
    """Where a training is."""
    return folder / f"{name}-{seed}"


def train(name: str, seed: int, folder: Path) -> None:
    """Train in a process of its own, if it is not done yet."""
    recipe, output = RECIPES[name], run_folder(name, seed, folder)
    if (output / "result.json").exists():
        return
    settings = [
        setting.format(seed=seed, folder=folder) if "{folder}" in setting else setting for setting in recipe.settings
    ]
    if recipe.after:
        settings.append(f"init_from={run_folder(recipe.after, seed, folder)}/last.safetensors")
    command = [sys.executable, "-m", "voxnest", "train", recipe.config, f"seed={seed}", f"output={output}", *settings]
    output.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{output}.log").open("ab") as log:
        status = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode
    if status:
        sys.exit(f"{name}: the training ended with status {status}; see {output}.log")


def copy_by_telephone(source: Path, target: Path) -> None:
    """A copy of the corpus and its trials as a telephone has them: 8 kHz, its band, mu-law in WAV files."""
    listed = target / "trials.txt"
    if listed.exists():
        return
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for path in sorted((source / part).rglob("*.*")):
            made = (target / path.relative_to(source)).with_suffix(".wav")
            made.parent.mkdir(parents=True, exist_ok=True)
            samples = telephone(read_audio(path, sample_rate=8000).samples, rng, 8000)
            soundfile.write(made, samples, 8000, subtype="ULAW")
    lines = (source / "trials.txt").read_text().replace(".flac", ".wav").replace(".opus", ".wav")
    listed.write_text(lines)


Encoders = dict[str, list[SpeakerEncoder]]


@functools.cache
def voices(seconds: float | None = None) -> Trials:
    """The trials of the corpus, or the middle of each recording."""
    return Trials(VOICES / "trials.txt", seconds)


def over(encoders: Sequence[SpeakerEncoder], trials: Trials) -> list[Rates]:
    """Rates of each seed."""
    return [trials.rates(encoder) for encoder in encoders]


def simple(experiment: str, encoders: Encoders, trials: Trials, dims: Sequence[int] = DIMS) -> Table:
    """Two trainings, at every size."""
    base, other = EXPERIMENTS[experiment]
    table = Table("dimension", f"{base}: EER %", f"{other}: EER %", "ratio", title=experiment, title_justify="left")
    found = {name: over(encoders[name], trials) for name in (base, other)}
    for dim in sorted(dims, reverse=True):
        rates = (f"{mean_rate(found[name], dim):.2%}" for name in (base, other))
        table.add_row(str(dim), *rates, ratio(found[other], dim, found[base], dim))
    return table


def exits(encoders: Encoders, options: argparse.Namespace) -> list[Table]:
    """Every exit and size: error rate, time of one utterance, and both against the plain training's."""
    headings = ("exit", "dimension", "EER %", "/ plain, same size", "time / plain, whole")
    table = Table(*headings, title="exits", title_justify="left")
    plain, nested = over(encoders["plain"], voices()), encoders["exits"]
    times = seconds_of([encoders["plain"][0], *(nested[0].at_exit(stage) for stage in EXITS), nested[0]])
    points = {"plain": [(times[0], {dim: mean_rate(plain, dim) for dim in DIMS})]}
    for number, stage in enumerate([*EXITS, None], 1):
        found = over([each if stage is None else each.at_exit(stage) for each in nested], voices())
        for dim in sorted(DIMS, reverse=True):
            rate, share = f"{mean_rate(found, dim):.2%}", f"{times[number] / times[0]:.2f}"
            table.add_row(str(stage or "end"), str(dim), rate, ratio(found, dim, plain, dim), share)
        points.setdefault("with exits", []).append((times[number], {dim: mean_rate(found, dim) for dim in DIMS}))
    if options.plot:
        draw(points, options.plot)
    return [table]


def seconds_of(encoders: Sequence[SpeakerEncoder], duration: float = 3.0, rounds: int = 25) -> list[float]:
    """Seconds of one utterance on one core: medians of encoders in turns."""
    waveform = torch.randn(1, round(duration * encoders[0].sample_rate)) / 20
    taken: list[list[float]] = [[] for _ in encoders]
    with torch.inference_mode():
        for _ in range(rounds):
            for each, encoder in zip(taken, encoders, strict=True):
                start = time.process_time()
                encoder.eval()(waveform)
                each.append(time.process_time() - start)
    return [statistics.median(each[2:]) for each in taken]


def draw(points: dict[str, list[tuple[float, dict[int, float]]]], path: Path) -> None:
    """Error rates against time: a line for each size of embedding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for number, dim in enumerate(DIMS):
        for name, style in (("with exits", "o-"), ("plain", "x")):
            times, rates = [1e3 * time for time, _ in points[name]], [100 * rates[dim] for _, rates in points[name]]
            label = f"{dim} numbers" if name == "with exits" else None
            axes.plot(times, rates, style, color=f"C{number}", label=label)
    axes.plot([], [], "kx", label="trained without exits")
    axes.set(xlabel="ms for 3 s of speech, one core", ylabel="EER %", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


def durations(encoders: Encoders, options: argparse.Namespace) -> list[Table]:
    """With and without duration-aware nesting, on shorter and shorter pieces."""
    tables = []
    for seconds in (1.0, 2.0, 3.0, None):
        table = simple("durations", encoders, voices(seconds))
        table.title = f"durations: {f'{seconds:g} s' if seconds else 'whole recordings'}"
        tables.append(table)
    return tables


def adapters(encoders: Encoders, options: argparse.Namespace) -> list[Table]:
    """The model as it comes, all of it trained on, and an adapter, on trials by telephone."""
    trials = Trials(options.folder / "telephone" / "trials.txt")
    table = simple("adapters", encoders, trials, dims := (8, 64, 256))
    before = trials.rates(load_encoder("default"))
    table.caption = "as it comes: " + ", ".join(f"{before[dim][0]:.2%} at {dim}" for dim in sorted(dims, reverse=True))
    return [table]


def of(experiment: str) -> Callable[[Encoders, argparse.Namespace], list[Table]]:
    """Makes the table of an experiment that has nothing of its own."""
    return lambda encoders, options: [simple(experiment, encoders, voices())]


TABLES: dict[str, Callable[[Encoders, argparse.Namespace], list[Table]]] = {
    **{name: of(name) for name in EXPERIMENTS},
    "exits": exits,
    "durations": durations,
    "adapters": adapters,
}


if __name__ == "__main__":
    main()
