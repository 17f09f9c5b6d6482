"""What training recipes do to error rates: each against the same training without it, real speech.

    python benchmarks/recipes.py runs/recipes                     # all: some hours of a core
    python benchmarks/recipes.py runs/recipes --only exits --seeds 0 1 2 --plot exits.svg

Exits are trained from nothing by configs/exits.yaml, students by configs/small.yaml; the others train the model that
comes with voxnest further, by configs/adapt.yaml; `adapters` adapts to a copy of the corpus at 8 kHz, through a
telephone's band and mu-law. What is finished in the folder is not trained again, and what was interrupted goes on. The
weights are the last ones of each training, nothing is chosen on the trials: ten unseen speakers, 450 target trials, so
that one of them is 0.22%; hence also the two seconds in the middle of each recording, where there are more errors to
count. Ratios are of mean error rates over the seeds, with 95% intervals over speakers (drawn anew; the same draws for
both sides).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from error_rates import Rates, Trials, copy_by_telephone, mean_rate, ratio
from voxnest.hub.checkpoint import load_encoder
from voxnest.models.encoder import SpeakerEncoder

VOICES = Path("../shared/data/voices")
ADAPT, LARGE_MARGIN = "configs/adapt.yaml", "configs/large-margin.yaml"
EXITS, SMALL = "configs/exits.yaml", "configs/small.yaml"


@dataclass(frozen=True)
class Recipe:
    """A training: the file of its configuration, and what is set otherwise there."""

    config: str
    settings: tuple[str, ...] = ()


_TELEPHONE = ("data.train={folder}/telephone/train", "trainer.max_steps=120", "trainer.val_every_steps=120")
_MIXED = ("crops.durations={0.75: 1, 1.5: 1}", "trainer.max_steps=160", "trainer.val_every_steps=160")
_STUDENT = ("trainer.max_steps=500", "trainer.val_every_steps=500")
RECIPES = {
    "whole": Recipe(EXITS, ("model.overrides.exits=[]", "model.overrides.dim_exits={}", "loss.self_distillation=0")),
    "early": Recipe(EXITS),
    "mixed": Recipe(ADAPT, _MIXED),
    "durations": Recipe(ADAPT, (*_MIXED, "loss.duration_weights={0.75: [1, 1, 1, 1, 0.5, 0.25, 0.25]}")),
    "telephone": Recipe(ADAPT, _TELEPHONE),
    "lora": Recipe(ADAPT, (*_TELEPHONE, "adapter={rank: 8, alpha: 16, train_norms: true}", "optimizer.lr=0.003")),
    "large-margin": Recipe(
        LARGE_MARGIN,
        (
            *("init_from=default", "data.train=../shared/data/voices/train", "crops.duration=4.0"),
            *("crops.per_epoch=320", "crops.batch_size=32", "data.validation={held_out_speakers: 12, segment: 2.0}"),
            *("augmentation.noise=[../shared/data/voices/noise]", "trainer.accelerator=cpu"),
        ),
    ),
    "student": Recipe(SMALL, _STUDENT),
    "distilled": Recipe(SMALL, (*_STUDENT, "distillation={teachers: [default], cosine: 10}")),
}
EXPERIMENTS: dict[str, tuple[str | None, str]] = {
    "exits": ("whole", "early"),
    "durations": ("mixed", "durations"),
    "distillation": ("student", "distilled"),
    "large-margin": (None, "large-margin"),
    "adapters": ("telephone", "lora"),
}
"""Two trainings each, the first without the recipe; None: the model that comes with voxnest, as it is."""
DIMS = {"exits": (64, 256), "distillation": (64, 256)}


def main() -> None:
    """Train what is missing, measure, and print a table for each experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the trainings")
    parser.add_argument("--only", nargs="+", choices=EXPERIMENTS, default=list(EXPERIMENTS), metavar="EXPERIMENT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trainings at a time, a thread each")
    parser.add_argument("--plot", type=Path, help="draw error rates of exits against their time here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.folder.mkdir(parents=True, exist_ok=True)
    if "adapters" in options.only:
        copy_by_telephone(VOICES, options.folder / "telephone", ("train", "test"))
    wanted = dict.fromkeys(name for each in options.only for name in EXPERIMENTS[each] if name is not None)
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = [pool.submit(train, name, seed, options.folder) for seed in options.seeds for name in wanted]
        try:
            for run in runs:
                run.result()
        except BaseException:  # one has failed, or Ctrl-C: those under way keep a checkpoint, the others do not begin
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for experiment in options.only:
        Console(width=140).print(compare(experiment, options))


def train(name: str, seed: int, folder: Path) -> None:
    """Train, if it is not done yet."""
    recipe, output = RECIPES[name], folder / f"{name}-{seed}"
    if not (output / "result.json").exists():
        settings = (setting.replace("{folder}", str(folder)) for setting in recipe.settings)
        voxnest("train", recipe.config, f"seed={seed}", f"output={output}", *settings, log=Path(f"{output}.log"))


def voxnest(*arguments: str | Path, log: Path) -> None:
    """Run a command in a process of one thread."""
    command = [sys.executable, "-m", "voxnest", *map(str, arguments)]
    with log.open("ab") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(f"{' '.join(command)}: ended with status {done.returncode}; see {log}")


def compare(experiment: str, options: argparse.Namespace) -> Table:
    """Both trainings of an experiment, each exit by itself: error rates at every size, by every judge."""
    base, other = (encoders(name, options) for name in EXPERIMENTS[experiment])
    judges = judges_of(experiment, options.folder)
    table = Table("training", "dimension", title=experiment, title_justify="left")
    for judge in judges:
        table.add_column(f"{judge}: EER %")
        table.add_column("ratio")
    names = [name or "as it comes" for name in EXPERIMENTS[experiment]]
    ways = {names[0]: base, names[1]: other}
    if experiment == "adapters":
        ways["as it comes"] = encoders(None, options)
    for stage in other[0].exits:
        ways[f"{names[1]}, stage {stage}"] = [encoder.at_exit(int(stage)) for encoder in other]
    found = {
        way: [[trials.rates(each) for each in encoders] for trials in judges.values()] for way, encoders in ways.items()
    }
    dims = DIMS.get(experiment, (8, 16, 32, 64, 256))
    for way, by_judge in found.items():
        for dim in sorted(dims, reverse=True):
            cells = [
                (f"{mean_rate(rates, dim):.2%}", ratio(rates, dim, before, dim))
                for rates, before in zip(by_judge, found[names[0]], strict=True)
            ]
            table.add_row(way, str(dim), *(text for pair in cells for text in pair))
    if len(ways) > 2:
        times = seconds_of([each[0] for each in ways.values()])
        of_whole = (f"{way} {seconds / times[0]:.2f}" for way, seconds in zip(ways, times, strict=True))
        table.caption = "time of 3 s on one core, in parts of the first: " + ", ".join(of_whole)
        if options.plot:
            draw(dict(zip(ways, times, strict=True)), {way: rates[-1] for way, rates in found.items()}, options.plot)
    return table


def encoders(name: str | None, options: argparse.Namespace) -> list[SpeakerEncoder]:
    """Of each seed."""
    if name is None:
        return [load_encoder("default")]
    return [load_encoder(options.folder / f"{name}-{seed}" / "last.safetensors") for seed in options.seeds]


def judges_of(experiment: str, folder: Path) -> dict[str, Trials]:
    """What an experiment is judged by."""
    listed = (folder / "telephone" if experiment == "adapters" else VOICES) / "trials.txt"
    lengths = (1.0, 2.0, 3.0, None) if experiment == "durations" else (None, 2.0)
    return {f"{seconds:g} s" if seconds else "whole": Trials(listed, seconds) for seconds in lengths}


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


def draw(times: dict[str, float], found: dict[str, list[Rates]], path: Path) -> None:
    """Error rates against time: a line through the exits for each size of embedding, a cross for the first training."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    first, *others = sorted(times, key=lambda way: (way != next(iter(times)), times[way]))
    for number, dim in enumerate(DIMS["exits"]):
        for ways, style, label in ((others, "o-", f"{dim} numbers"), ([first], "x", None)):
            rates = [100 * mean_rate(found[way], dim) for way in ways]
            axes.plot([1e3 * times[way] for way in ways], rates, style, color=f"C{number}", label=label)
    axes.plot([], [], "kx", label="trained without exits")
    axes.set(xlabel="ms for 3 s of speech, one core", ylabel="EER %", xlim=(0, None), ylim=(0, None))
    axes.legend(frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
