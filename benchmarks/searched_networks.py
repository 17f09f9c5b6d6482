"""Is a searched network better than others of its space, and than ResNets? All are trained on the same data, as long.

    voxnest search configs/autospeech/small.yaml
    python benchmarks/searched_networks.py runs/autospeech-small-search --minutes 30
    python benchmarks/searched_networks.py runs/front/genotype-?.txt --others 0 --steps 1500 --dims 64 256

Trained are the genotypes of searches, three that were drawn at random from the same space, and the ResNets of the
AutoSpeech paper, by configs/autospeech/small_train.yaml. All trainings run at the same time, in processes of one
thread, so that each gets the same share of the processors; what they took of them is in the table. Nothing is chosen on
a test: the weights are the last ones. Top-1 is of recordings of known speakers that were held out (Wilson's 95%
interval), the equal error rate of the trials of unseen speakers (95% by drawing speakers anew).
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from voxnest.corpora.manifest import read_manifest
from voxnest.evaluation import evaluate, identify
from voxnest.evaluation.identification import Accuracy
from voxnest.evaluation.report import DimensionResult
from voxnest.hub.checkpoint import load_classifier, load_encoder
from voxnest.models.genotype import Genotype
from voxnest.nas.derivation import derive
from voxnest.nas.reading import read_genotype
from voxnest.nas.spaces import EDGES, SPACES
from voxnest.training.held_out import split_recordings
from voxnest.training.settings import load_config
from voxnest.zoo.counting import count_macs, count_parameters

CONFIG = "configs/autospeech/small_train.yaml"
TRIALS = "../shared/data/voices/trials.txt"
MACHINE = {"OMP_NUM_THREADS": "1"}


@dataclass
class Run:
    """A training in a process of its own."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]
    cpu_minutes: float = 0.0

    def wait(self) -> None:
        """Until it ends."""
        _, status, usage = os.wait4(self.process.pid, 0)
        if status:
            sys.exit(f"{self.name}: the training failed; see {self.folder}.log")
        self.cpu_minutes = (usage.ru_utime + usage.ru_stime) / 60


def random_genotypes(space: str, count: int, seed: int) -> list[Genotype]:
    """Genotypes of architecture parameters drawn from a normal distribution, as before any search."""
    random = torch.Generator().manual_seed(seed)
    shape = len(EDGES), max(map(len, SPACES[space].normal))
    return [derive(SPACES[space], *(torch.randn(shape, generator=random) for _ in range(2))) for _ in range(count)]


def main() -> None:
    """Train, evaluate, and print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("searches", type=Path, nargs="+", help="folders of finished searches, or files of genotypes")
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--minutes", type=float, default=30, help="of each training, all together")
    limits.add_argument("--steps", type=int, help="of each training, instead")
    parser.add_argument("--dims", type=int, nargs="+", default=[256], help="sizes of the embedding")
    parser.add_argument("--others", type=int, default=3, help="how many random genotypes; 0: no ResNets either")
    parser.add_argument("--space", default="s2", choices=SPACES, help="of the random genotypes")
    parser.add_argument("--output", type=Path, default=Path("runs/searched-networks"))
    arguments = parser.parse_args()

    base, dims = load_config(CONFIG).model, arguments.dims
    genotypes = {_label(search): read_genotype(search) for search in arguments.searches}
    for number, genotype in enumerate(random_genotypes(arguments.space, arguments.others, seed=0), 1):
        genotypes[f"random {number}"] = genotype
    models: dict[str, Mapping[str, Any]] = {
        name: {"name": base.name, "dims": dims, "overrides": {**base.overrides, "genotype": str(genotype)}}
        for name, genotype in genotypes.items()
    }
    shared = {key: base.overrides[key] for key in ("level", "bins", "frontend_options")}
    for name in ("autospeech-resnet18", "autospeech-resnet34") if arguments.others else ():
        models[name] = {"name": name, "dims": dims, "overrides": shared}

    arguments.output.mkdir(parents=True, exist_ok=True)
    limit = [f"trainer.max_minutes={arguments.minutes}"]
    if arguments.steps:
        limit = ["trainer.max_minutes=null", f"trainer.max_steps={arguments.steps}"]
    runs = [_start(name, model, arguments.output, limit) for name, model in models.items()]
    for run in runs:
        run.wait()
    table = Table(title=f"{arguments.minutes:g} minutes together" if not arguments.steps else None)
    rates = [heading for dim in dims for heading in (f"{dim}: Top-1 %", "95%", f"{dim}: EER %", "95%")]
    for column in ("network", "M params", "GMACs", "CPU min", "crops", *rates):
        table.add_column(column, justify="left" if column == "network" else "right")
    for run in runs:
        table.add_row(run.name, *_measure(run))
    Console(width=80 + 40 * len(dims)).print(table)


def _label(search: Path) -> str:
    return f"{search.parent.name}-{search.stem}" if search.suffix else search.name


def _start(name: str, model: Mapping[str, Any], output: Path, limit: Sequence[str]) -> Run:
    folder = output / name.replace(" ", "-")
    settings = [f"model={json.dumps(model)}", f"output={folder}", *limit]
    command = [sys.executable, "-m", "voxnest", "train", CONFIG, *settings]
    with Path(f"{folder}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **MACHINE})
    return Run(name, folder, process)


def _measure(run: Run) -> list[str]:
    encoder, config = load_encoder(run.folder / "last.safetensors"), load_config(run.folder / "config.yaml")
    _, held_out = split_recordings(read_manifest(run.folder / "manifest"), config)
    classifier = load_classifier(run.folder / "last.safetensors")
    named = identify(encoder, classifier, held_out, window=None).top1
    told = evaluate(encoder, TRIALS, interval=True).dims
    step = json.loads((run.folder / "result.json").read_text(encoding="utf-8"))["step"]
    return [
        f"{count_parameters(encoder) / 1e6:.2f}",
        f"{count_macs(encoder, seconds=2.0) / 1e9:.3f}",
        f"{run.cpu_minutes:.1f}",
        f"{step * config.crops.batch_size:,}",
        *(text for dim in encoder.dims for text in _rates(named[dim], told[dim])),
    ]


def _rates(named: Accuracy, told: DimensionResult) -> list[str]:
    assert told.eer_interval is not None
    return [
        f"{100 * named.value:.1f}",
        "{:.1f}-{:.1f}".format(*(100 * limit for limit in named.interval)),
        f"{100 * told.eer:.2f}",
        "{:.2f}-{:.2f}".format(*(100 * limit for limit in told.eer_interval)),
    ]


if __name__ == "__main__":
    main()
