"""How fast embeddings are made on this machine, beside the official implementations and beside what it could do.

    git clone https://github.com/IDRnD/ReDimNet /tmp/redimnet
    git clone https://github.com/PalabraAI/redimnet2 /tmp/redimnet2
    python benchmarks/inference.py --clone /tmp/redimnet /tmp/redimnet2 --keep /tmp/graphs

Needs the extras `export` and `openvino`. From waveforms to embeddings, with random weights. Ours are what users have:
`load_encoder(..., runtime=, precision=)`, and of it `embed` and `encode`. The official network computes in float32 and
has our front end before it: its own needs torchaudio. Engines take turns, and ratios are of middle times, so that other
programs on the machine count little.

- Latency: one utterance at a time, on all cores, by the clock.
- Throughput: many utterances, as many at once as there are cores, a thread each, by processor time. By the clock it is
  the same on a machine that does nothing else.
- Share of the peak: floating-point operations of products and convolutions of the network (those of the original form;
  some engines do more) in the processor time of one utterance, over what a product of two large matrices reaches.
- Cosine: smallest, between the engine's embeddings and those of the encoder in PyTorch, over the lengths.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import openvino
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from references import REFERENCES, open_sources
from voxnest import SpeakerEncoder, create_encoder, load_encoder, save_encoder
from voxnest.errors import ConfigError
from voxnest.models.encoding import encode
from voxnest.runtimes.proof import speech

Array = np.ndarray

LENGTHS = (1.0, 3.0, 7.3)
"""Of the utterances that embeddings are compared on, in seconds."""


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clone", type=Path, nargs="+", default=[], help="clones of the official repositories")
    parser.add_argument("--only", nargs="+", default=["redimnet-b0", "redimnet-b2", "redimnet-b6", "redimnet2-b2"])
    parser.add_argument(
        "--keep", type=Path, default=Path("/tmp/voxnest-graphs"), help="exported graphs, made if absent"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--utterances", type=int, default=8, help="of one round of throughput")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the utterances that are timed")
    options = parser.parse_args()
    for name in options.only:
        if not any(reference.name == name and reference.find(options.clone) for reference in REFERENCES):
            sys.exit(f"{name}: no clone of its official implementation (expected with --clone)")
    open_sources(options.clone)
    os.environ["VOXNEST_HOME"] = str(options.keep)
    options.keep.mkdir(parents=True, exist_ok=True)
    cores = torch.get_num_threads()
    console = Console(width=132)
    versions = ", ".join(f"{it.__name__} {it.__version__.partition('-')[0]}" for it in (torch, onnxruntime, openvino))
    console.print(f"{processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}; {versions}")
    peak = gemm_peak(1, time.process_time)
    by_clock = f"{gemm_peak(1):.0f} in one thread and {gemm_peak(cores):.0f} in {cores} by the clock"
    console.print(f"product of two matrices of 512 x 512: {peak:.0f} GFLOP/s of processor time, {by_clock}")
    for name in options.only:
        torch.manual_seed(0)
        encoder = used(create_encoder(name).eval())
        official = Official(
            next(it for it in REFERENCES if it.name == name and it.find(options.clone)).build(), encoder
        )
        ours = embedders(encoder, options.keep)
        console.print(measure(official, ours, options, cores, peak))
        if name.startswith("redimnet2-"):
            console.print(compare_package(official, ours["onnx, float32"], options, cores))


class Official:
    """The official network after our front end, embedding as a `SpeakerEncoder` does.

    Args:
        network: the official one.
        encoder: ours, whose front end and settings it has.
    """

    encode = encode

    def __init__(self, network: nn.Module, encoder: SpeakerEncoder) -> None:
        self.network, self.encoder = network, encoder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.encoder, name)

    def features(self, waveform: Array) -> Array:
        """`[1, samples]` to `[1, bins, frames]`."""
        with torch.inference_mode():
            return self.encoder.frontend(torch.from_numpy(waveform)).numpy()

    def embed(self, waveform: Array) -> Array:
        """See `Embedder`."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(self.features(waveform))).numpy()


class AsPackage(Official):
    """The way of the package redimnet2-onnx, as its graphs cannot be had here: the official network exported as it is.

    Args:
        official: the network.
        path: of the graph, made if absent.
        cores: that one utterance has.
    """

    def __init__(self, official: Official, path: Path, cores: int) -> None:
        super().__init__(official.network, official.encoder)
        if not path.exists():
            free = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
            example = torch.from_numpy(self.features(utterance(official.encoder, 3.0)))
            with torch.no_grad():
                program = torch.onnx.export(
                    official.network, (example,), dynamo=True, opset_version=20, dynamic_shapes=(free,), verbose=False
                )  # fmt: skip
            assert program is not None
            program.save(path)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = cores, 3
        self.session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def embed(self, waveform: Array) -> Array:
        """See `Embedder`."""
        return self.session.run(None, {self.session.get_inputs()[0].name: self.features(waveform)})[0]


def embedders(encoder: SpeakerEncoder, folder: Path) -> dict[str, Any]:
    """An encoder in each runtime and precision; in bfloat16 only on a processor that has it, which torch emulates."""
    path = folder / f"{encoder.name}.safetensors"
    save_encoder(encoder, path)
    found: dict[str, Any] = {}
    for precision in ("float32", "bfloat16"):
        for runtime in ("openvino", "onnx", "torch"):
            if runtime == "torch" and f"openvino, {precision}" not in found:
                continue
            try:
                found[f"{runtime}, {precision}"] = load_encoder(path, runtime=runtime, precision=precision)
            except ConfigError as error:
                print(f"{encoder.name} in {runtime}: {error}", file=sys.stderr)
    return found


def measure(official: Official, ours: Mapping[str, Any], options: argparse.Namespace, cores: int, peak: float) -> Table:
    """The table of one architecture: the official implementation first."""
    encoder = official.encoder
    waveforms = [utterance(encoder, seconds) for seconds in (options.seconds, *LENGTHS)]
    features = torch.from_numpy(official.features(waveforms[0]))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder.embed_features(features)
    operations = counter.get_total_flops() / 1e9
    engines = {"official, eager": official, **ours}
    with ExitStack() as stack:
        for engine in engines.values():
            stack.enter_context(engine.ready())
        cosines = {
            name: min(cosine(engine.embed(waveform), encoder.embed(waveform)) for waveform in waveforms)
            for name, engine in ours.items()
        }
        calls = {name: partial(engine.embed, waveforms[0]) for name, engine in engines.items()}
        latency = take_turns(calls, options.rounds)
    batch = [waveforms[0][0]] * options.utterances
    effort = take_turns(
        {name: partial(engine.encode, batch) for name, engine in engines.items()}, options.rounds, time.process_time
    )
    lengths = ", ".join(f"{seconds:g}" for seconds in LENGTHS)
    title = (
        f"{encoder.name} from the waveform: {options.seconds:g} s ({features.shape[-1]} frames), "
        f"{operations:.2f} GFLOP\nlatency: {cores} threads, batch 1; "
        f"throughput: {cores} streams of batch 1, one thread each\n"
        f"middle of {options.rounds}; cosine at {lengths} s"
    )
    table = Table(title=title)
    for column in ("engine", "latency, ms", "ratio", "CPU ms each", "utterances/s", "ratio", "of peak", "cosine"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    for name in engines:
        each = effort[name] / options.utterances
        table.add_row(
            name,
            f"{1e3 * latency[name]:.1f}",
            f"{latency['official, eager'] / latency[name]:.2f}",
            f"{1e3 * each:.1f}",
            f"{cores / each:.1f}",
            f"{effort['official, eager'] / effort[name]:.2f}",
            f"{operations / each / peak:.0%}",
            f"{cosines[name]:.7f}" if name in cosines else "",
        )
    return table


def compare_package(official: Official, exported: Any, options: argparse.Namespace, cores: int) -> Table:
    """The way of the package redimnet2-onnx (features outside, one utterance at a time on all cores), and ours."""
    theirs = AsPackage(official, options.keep / f"{official.name}-official.onnx", cores)
    waveform = utterance(official.encoder, options.seconds)

    def their_way() -> None:
        for _ in range(options.utterances):
            theirs.embed(waveform)

    ways: dict[str, Callable[[], object]] = {
        "as redimnet2-onnx: batch 1, all cores": their_way,
        f"voxnest: {cores} streams": partial(exported.encode, [waveform[0]] * options.utterances),
    }
    clock, effort = (take_turns(ways, options.rounds, by) for by in (time.perf_counter, time.process_time))
    table = Table(title=f"{official.name} from the waveform, {options.seconds:g} s, onnxruntime; of {options.rounds}")
    for column in ("way", "utterances/s", "ratio", "CPU ms each", "ratio"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in ways:
        times = [values[way] / options.utterances for values in (clock, effort)]
        ratios = [f"{next(iter(values.values())) / values[way]:.2f}" for values in (clock, effort)]
        table.add_row(way, f"{1 / times[0]:.1f}", ratios[0], f"{1e3 * times[1]:.1f}", ratios[1])
    return table


def utterance(encoder: SpeakerEncoder, seconds: float) -> Array:
    """What sounds like speech, `[1, samples]`."""
    return speech(seconds, encoder.sample_rate)[None]


def take_turns(
    calls: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Middle time of each in seconds; two rounds more go before to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = clock()
            call()
            if turn > 1:
                times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def gemm_peak(threads: int, clock: Callable[[], float] = time.perf_counter, size: int = 512) -> float:
    """GFLOP/s of the fastest of many products of two matrices."""
    torch.set_num_threads(threads)
    left, right, best = torch.randn(size, size), torch.randn(size, size), float("inf")
    for _ in range(200):
        start = clock()
        left @ right
        best = min(best, clock() - start)
    return 2e-9 * size**3 / best


def used(encoder: SpeakerEncoder) -> SpeakerEncoder:
    """With normalisations that do something, as after training."""
    for module in encoder.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0.0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            if module.weight is not None:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0.0, 0.1)
    return encoder


def cosine(first: Array, second: Array) -> float:
    """Of two embeddings `[1, dim]`."""
    return float((first @ second.T).item() / np.linalg.norm(first) / np.linalg.norm(second))


def processor() -> str:
    """Its name, as Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines: Iterable[str] = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
