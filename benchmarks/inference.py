"""How fast embeddings are made on this machine, beside the official implementations and beside what it could do.

    git clone https://github.com/IDRnD/ReDimNet /tmp/redimnet
    git clone https://github.com/PalabraAI/redimnet2 /tmp/redimnet2
    python benchmarks/inference.py --clone /tmp/redimnet /tmp/redimnet2 --keep /tmp/graphs

Needs the extras `onnx` and `openvino`. All in float32, with random weights; inputs are features, which both sides
compute alike, and for ReDimNet2 waveforms. Engines take turns, and ratios are of middle times, so that other programs
on the machine count little.

- Latency: one utterance at a time, on all cores, by the clock.
- Throughput: many utterances, as many at once as there are cores, a thread each, by processor time. By the clock it is
  the same on a machine that does nothing else.
- Share of the peak: floating-point operations of products and convolutions (those of the original form; some engines
  do more) in the processor time of one utterance, over what a product of two large matrices reaches.
- Cosine: smallest, between the engine's embeddings and those of the encoder as it is, over the lengths.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from references import REFERENCES, open_sources
from voxnest.models.encoder import SpeakerEncoder
from voxnest.models.folding import fold
from voxnest.runtimes.graph import optimize
from voxnest.zoo.registry import create_encoder

Array = np.ndarray
Run = Callable[[Array], Array]
Many = Callable[[list[Array]], list[Array]]

LENGTHS = (1.0, 3.0, 7.3)
"""Of the utterances that embeddings are compared on, in seconds."""


@dataclass(frozen=True)
class Engine:
    """One way to run a network, on features `[1, bins, frames]` or what else its network takes.

    Attributes:
        name: in the table.
        wide: embeds one input on all cores.
        narrow: embeds one input in one thread.
        many: embeds inputs with a thread per core.
    """

    name: str
    wide: Run
    narrow: Run
    many: Many


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
    options.keep.mkdir(parents=True, exist_ok=True)
    cores = torch.get_num_threads()
    console = Console(width=132)
    versions = ", ".join(f"{it.__name__} {it.__version__.partition('-')[0]}" for it in (torch, onnxruntime, openvino))
    console.print(f"{processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}; {versions}; float32")
    peak = gemm_peak(1, time.process_time)
    by_clock = f"{gemm_peak(1):.0f} in one thread and {gemm_peak(cores):.0f} in {cores} by the clock"
    console.print(f"product of two matrices of 512 x 512: {peak:.0f} GFLOP/s of processor time, {by_clock}")
    for name in options.only:
        console.print(measure(name, options, cores, peak))
        if name.startswith("redimnet2-"):
            console.print(compare_package(name, options, cores))


def measure(name: str, options: argparse.Namespace, cores: int, peak: float) -> Table:
    """The table of one architecture: the reference first."""
    torch.manual_seed(0)
    encoder = used(create_encoder(name).eval())
    inputs = [0.1 * torch.randn(1, int(seconds * encoder.sample_rate)) for seconds in (options.seconds, *LENGTHS)]
    with torch.inference_mode():
        features = [encoder.frontend(waveform).numpy() for waveform in inputs]
        with FlopCounterMode(display=False) as counter:
            encoder.embed_features(torch.from_numpy(features[0]))
    operations = counter.get_total_flops() / 1e9
    expected = [embed(encoder, value) for value in features]
    engines = make_engines(name, encoder, options.keep, cores)
    cosines = {
        engine.name: min(cosine(engine.wide(value), wanted) for value, wanted in zip(features, expected, strict=True))
        for engine in engines[1:]
    }
    latency = take_turns({engine.name: partial(engine.wide, features[0]) for engine in engines}, options.rounds)
    batch = [features[0]] * options.utterances
    effort = take_turns(
        {engine.name: partial(engine.many, batch) for engine in engines}, options.rounds, time.process_time
    )
    frames = features[0].shape[-1]
    title = (
        f"{name}: {options.seconds:g} s ({frames} frames), {operations:.2f} GFLOP; latency: {cores} threads, batch 1; "
    )
    table = Table(title=title + f"throughput: {cores} streams of batch 1, one thread each; middle of {options.rounds}")
    for column in ("engine", "latency, ms", "ratio", "CPU ms each", "utterances/s", "ratio", "of peak", "cosine"):
        table.add_column(column, justify="left" if column == "engine" else "right")
    first = engines[0].name
    for engine in engines:
        each = effort[engine.name] / options.utterances
        table.add_row(
            engine.name,
            f"{1e3 * latency[engine.name]:.1f}",
            f"{latency[first] / latency[engine.name]:.2f}",
            f"{1e3 * each:.1f}",
            f"{cores / each:.1f}",
            f"{effort[first] / effort[engine.name]:.2f}",
            f"{operations / each / peak:.0%}",
            f"{cosines[engine.name]:.7f}" if engine.name in cosines else "",
        )
    return table


def compare_package(name: str, options: argparse.Namespace, cores: int) -> Table:
    """From waveforms: the way of the package redimnet2-onnx, and ours.

    Its way, as its graphs cannot be had here: the official network exported as it is, features computed outside, one
    utterance at a time on all cores. Ours: a thread per core does all of an utterance.
    """
    torch.manual_seed(0)
    encoder = used(create_encoder(name).eval())
    official, folder = options.keep / f"{name}-official.onnx", options.keep
    if not official.exists():
        reference = next(reference for reference in REFERENCES if reference.name == name).build()
        export(reference, torch.randn(1, encoder.config["bins"], 300), official)
    theirs = onnx_engine("", official, cores)
    ours = onnx_engine("", folder / f"{name}-optimized.onnx", cores)
    waveforms = [0.1 * torch.randn(1, int(options.seconds * encoder.sample_rate))] * options.utterances

    def features(waveform: Tensor) -> Array:
        with torch.inference_mode():
            return encoder.frontend(waveform).numpy()

    def their_way() -> None:
        torch.set_num_threads(cores)
        for waveform in waveforms:
            theirs.wide(features(waveform))

    def our_way() -> None:
        with ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(lambda waveform: ours.narrow(features(waveform)), waveforms))

    ways = {"as redimnet2-onnx: batch 1, all cores": their_way, f"voxnest: {cores} streams": our_way}
    clock, effort = (take_turns(ways, options.rounds, by) for by in (time.perf_counter, time.process_time))
    title = f"{name} from the waveform, {options.seconds:g} s, onnxruntime, batch 1; middle of {options.rounds}"
    table = Table(title=title)
    for column in ("way", "utterances/s", "ratio", "CPU ms each", "ratio"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for way in ways:
        times = [values[way] / options.utterances for values in (clock, effort)]
        ratios = [f"{next(iter(values.values())) / values[way]:.2f}" for values in (clock, effort)]
        table.add_row(way, f"{1 / times[0]:.1f}", ratios[0], f"{1e3 * times[1]:.1f}", ratios[1])
    return table


def make_engines(name: str, encoder: SpeakerEncoder, folder: Path, cores: int) -> list[Engine]:
    """The official implementation in eager PyTorch, and all of ours."""
    reference = next(reference for reference in REFERENCES if reference.name == name).build()
    folded = fold(encoder)
    exported, optimized = folder / f"{name}.onnx", folder / f"{name}-optimized.onnx"
    if not exported.exists():
        export(FromFeatures(folded).eval(), torch.randn(2, encoder.config["bins"], 200), exported)
    onnx.save(optimize(onnx.load(exported)), optimized)
    return [
        torch_engine("official, eager", reference, cores),
        torch_engine("voxnest, eager", FromFeatures(encoder), cores),
        torch_engine("voxnest, folded", FromFeatures(folded), cores),
        onnx_engine("onnxruntime, exported", exported, cores),
        onnx_engine("onnxruntime, optimized", optimized, cores),
        openvino_engine("openvino, exported", exported, cores),
        openvino_engine("openvino, optimized", optimized, cores),
    ]


class FromFeatures(nn.Module):
    """An encoder without its front end."""

    def __init__(self, encoder: SpeakerEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, features: Tensor) -> Tensor:
        """Features `[batch, bins, frames]` to embeddings `[batch, dim]`."""
        return self.encoder.embed_features(features)  # type: ignore[return-value]


def embed(encoder: SpeakerEncoder, features: Array) -> Array:
    """One embedding by the encoder as it is."""
    with torch.inference_mode():
        return FromFeatures(encoder)(torch.from_numpy(features)).numpy()


def export(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write the graph of a network, with free batch and length."""
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.onnx.export(
            network, (example,), dynamo=True, opset_version=20, dynamic_shapes=(dynamic,), input_names=["input"],
            verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(path)


def torch_engine(name: str, network: nn.Module, cores: int) -> Engine:
    """PyTorch, eagerly."""

    def run(value: Array) -> Array:
        with torch.inference_mode():
            return network(torch.from_numpy(value)).numpy()

    def on(threads: int, value: Array) -> Array:
        torch.set_num_threads(threads)
        return run(value)

    return Engine(name, partial(on, cores), partial(on, 1), pooled(partial(on, 1), cores))


def pooled(narrow: Run, cores: int) -> Many:
    """Embeds inputs with a thread per core."""

    def many(values: list[Array]) -> list[Array]:
        with ThreadPoolExecutor(cores) as pool:
            return list(pool.map(narrow, values))

    return many


def onnx_engine(name: str, path: Path, cores: int) -> Engine:
    """onnxruntime."""

    def session(threads: int) -> onnxruntime.InferenceSession:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = threads, 3
        return onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run(engine: onnxruntime.InferenceSession, value: Array) -> Array:
        result: Array = engine.run(None, {engine.get_inputs()[0].name: value})[0]
        return result

    narrow = partial(run, session(1))
    return Engine(name, partial(run, session(cores)), narrow, pooled(narrow, cores))


def openvino_engine(name: str, path: Path, cores: int) -> Engine:
    """OpenVINO."""
    core = openvino.Core()
    common = {"INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}
    wide = core.compile_model(path, "CPU", {**common, "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()

    def one(value: Array) -> Array:
        return next(iter(wide.infer([value]).values())).copy()

    streams = {**common, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": cores}
    queue = openvino.AsyncInferQueue(core.compile_model(path, "CPU", streams), cores)

    def many(values: list[Array]) -> list[Array]:
        results: dict[int, Array] = {}
        queue.set_callback(lambda request, index: results.update({index: request.get_output_tensor().data.copy()}))
        for index, value in enumerate(values):
            queue.start_async([value], index)
        queue.wait_all()
        return [results[index] for index in range(len(values))]

    return Engine(name, one, lambda value: many([value])[0], many)


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
