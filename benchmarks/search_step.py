"""One step of an architecture search: the sampled form of voxnest against the dense one, in one run.

    python benchmarks/search_step.py

A step is what the original makes of two batches: forward, backward and Adam for the architecture on one, the same for
the weights on the other; 16 channels, 8 layers, space s2, batch 2, input 300 x 257, 1251 speakers, as in
exps/search.yaml of AutoSpeech. The dense rendering runs all operations of every edge in both, weighs them with the
sample, and lets autograd do the rest, as the original does. Both are measured in processes of their own, which take
turns; the first step of each is left out, the middle of the others counts. Processor time is that of all threads,
which other programs on the machine disturb less than they do wall time. Memory is the largest resident set
(ru_maxrss), less what the process had when the network and its optimizers were made.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

from voxnest.nas.spaces import SPACES
from voxnest.nas.supernet import Supernet

SPEAKERS = 1251


def peak() -> float:
    """The largest resident set so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(form: str, steps: int, threads: int, shape: list[int]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = Supernet(SPACES["s2"])
    if form == "dense, plain layout":
        net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    classifier = nn.Linear(net.out_channels, SPEAKERS)
    weights = [*net.weights(), *classifier.parameters()]
    optimizers = [torch.optim.Adam(net.alphas.parameters(), 1e-3), torch.optim.Adam(weights, 1e-2)]
    features, label = torch.randn(2, shape[1], shape[0]), torch.arange(2)
    dense = form.startswith("dense")

    def loss(architecture: bool) -> Tensor:
        sample = net.sample()
        pooled = net.dense(features, sample.weights) if dense else net(features, sample, architecture=architecture)
        return F.cross_entropy(classifier(pooled), label, label_smoothing=0.1)

    before, wall, processor = peak(), [], []
    for _ in range(steps + 1):
        start, busy = time.perf_counter(), time.process_time()
        for architecture, optimizer in zip((True, False), optimizers, strict=True):
            for parameter in weights:
                parameter.requires_grad_(dense or not architecture)
            for each in optimizers:
                each.zero_grad()
            loss(architecture).backward()
            optimizer.step()
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - busy)
    return {"wall": wall[1:], "processor": processor[1:], "memory": peak() - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2, help="how often the forms take turns")
    parser.add_argument("--steps", type=int, default=2, help="of each turn, after the first")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", type=int, nargs=2, default=[300, 257], metavar=("FRAMES", "BINS"))
    parser.add_argument("--form", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.form:
        shape = list(options.shape)
        print(json.dumps(measure(options.form, options.steps, options.threads, shape)))
        return
    forms = ("dense, plain layout", "dense", "sampled")
    found: dict[str, list[dict[str, Any]]] = {form: [] for form in forms}
    for _ in range(options.rounds):
        for form in forms:
            command = [sys.executable, *sys.argv, "--form", form]
            found[form].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    table = Table("form", "wall s", "processor s", "peak MiB", title="A search step", title_justify="left")
    rows = {}
    for form, runs in found.items():
        wall, processor = (statistics.median(value for run in runs for value in run[k]) for k in ("wall", "processor"))
        rows[form] = wall, processor, max(run["memory"] for run in runs)
        table.add_row(form, *(f"{value:,.2f}" for value in rows[form]))
    Console().print(table)
    for form in forms[:2]:
        wall, processor, memory = (ours / theirs for ours, theirs in zip(rows["sampled"], rows[form], strict=True))
        print(f"{form} / sampled: wall {1 / wall:.1f}x, processor {1 / processor:.1f}x, memory {memory:.2f} of it")


if __name__ == "__main__":
    main()
