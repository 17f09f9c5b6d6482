"""How many crops a second a CPU trains on: voxnest against the official ReDimNet, in one run.

    git clone https://github.com/IDRnD/ReDimNet /tmp/ReDimNet
    python benchmarks/training_step.py --reference /tmp/ReDimNet

Both start from the same weights, take the same batches, and use the same loss and optimizer; the losses show that they
learn the same. Steps of the variants take turns, so that a noisy machine disturbs all alike; the middle time counts.
The reference runs as published: eager, float32. Its front end needs torchaudio, which has no CPU build for current
torch: where it is missing, the benchmark puts an equal mel spectrogram in its place.
"""

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from voxnest.frontends import mel_filters
from voxnest.hub import convert
from voxnest.losses import AAMSoftmax

# ReDimNet b0 as wespeaker publishes it, with the official analysis hop.
B0 = {
    "F": 60,
    "C": 10,
    "block_1d_type": "conv+att",
    "block_2d_type": "basic_resnet",
    "stages_setup": [
        (1, 2, 1, [(3, 3)], 30),
        (2, 3, 2, [(3, 3)], 30),
        (1, 3, 3, [(3, 3)], 30),
        (2, 4, 2, [(3, 3)], 10),
        (1, 3, 1, [(3, 3)], 10),
    ],
    "group_divisor": 1,
    "hop_length": 240,
    "global_context_att": True,
}
SPEAKERS = 64


class MelSpectrogram(nn.Module):
    """Stands in for torchaudio's, with the arguments that the reference gives it."""

    filters: Tensor
    window: Tensor

    def __init__(self, n_mels: int, hop_length: int, **_: object) -> None:
        super().__init__()
        self.hop_length = hop_length
        self.register_buffer("filters", mel_filters(n_mels, 512, 16000, 20, 7600))
        self.register_buffer("window", torch.hamming_window(400))

    def forward(self, waveform: Tensor) -> Tensor:
        spectrum = torch.stft(waveform, 512, self.hop_length, 400, self.window, return_complex=True)
        return self.filters.T @ spectrum.abs().square()


def load_reference(folder: Path) -> nn.Module:
    """The official model, built from a checkout of its repository."""
    if not (folder / "redimnet" / "model.py").exists():
        sys.exit(f"{folder}: no redimnet/model.py (expected a clone of https://github.com/IDRnD/ReDimNet)")
    try:
        import torchaudio  # noqa: F401
    except ImportError:
        stub = types.ModuleType("torchaudio")
        stub.transforms = types.SimpleNamespace(MelSpectrogram=MelSpectrogram)  # type: ignore[attr-defined]
        sys.modules["torchaudio"] = stub
    sys.path.insert(0, str(folder))
    from redimnet.model import ReDimNetWrap

    model: nn.Module = ReDimNetWrap(**B0)
    return model


def make_batches(count: int, size: int, seconds: float) -> list[tuple[Tensor, Tensor]]:
    """Crops of made-up speakers: a pulse train of the speaker's pitch through the speaker's own filter, and noise."""
    generator = torch.Generator().manual_seed(0)
    pitch = torch.rand(SPEAKERS, generator=generator) * 150 + 80
    filters = torch.randn(SPEAKERS, 1, 65, generator=generator)
    samples, batches = int(16000 * seconds), []
    for _ in range(count):
        label = torch.randint(0, SPEAKERS, (size,), generator=generator)
        phase = torch.rand(size, 1, generator=generator) + pitch[label, None] / 16000 * torch.arange(samples)
        pulses = (phase.frac() < 0.01).float() + 0.05 * torch.randn(size, samples, generator=generator)
        voice = nn.functional.conv1d(pulses[None], filters[label], padding=32, groups=size)[0]
        batches.append((0.1 * voice / voice.std(dim=1, keepdim=True), label))
    return batches


def make_step(model: nn.Module, *, bfloat16: bool) -> Callable[[Tensor, Tensor], float]:
    """One training step: forward, loss, backward, clip, AdamW."""
    torch.manual_seed(0)
    model.train()
    loss = AAMSoftmax(192, SPEAKERS)
    parameters = [*(p for p in model.parameters() if p.requires_grad), *loss.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1e-3, fused=True)

    def step(waveform: Tensor, label: Tensor) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            embedding = model(waveform)
        value = loss(embedding.float(), label)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        optimizer.zero_grad()
        return value.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="a clone of IDRnD/ReDimNet")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a crop")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--profile", action="store_true", help="also show where the time of a step goes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    torch.manual_seed(0)
    reference = load_reference(options.reference)
    weights = {key: value.clone() for key, value in reference.state_dict().items()}
    steps = {
        "official ReDimNet b0, float32": make_step(reference, bfloat16=False),
        "voxnest redimnet-b0, float32": make_step(convert("redimnet", B0, weights), bfloat16=False),
        "voxnest redimnet-b0, bf16-mixed": make_step(convert("redimnet", B0, weights), bfloat16=True),
    }
    batches = make_batches(options.steps, options.batch_size, options.seconds)
    times: dict[str, list[float]] = {name: [] for name in steps}
    losses: dict[str, list[float]] = {name: [] for name in steps}
    for waveform, label in batches:
        for name, step in steps.items():
            start = time.perf_counter()
            losses[name].append(step(waveform, label))
            times[name].append(time.perf_counter() - start)

    seconds = {name: statistics.median(values[2:]) for name, values in times.items()}
    slowest = seconds["official ReDimNet b0, float32"]
    title = f"{options.batch_size} crops of {options.seconds:g} s, {options.threads} threads, torch {torch.__version__}"
    table = Table("", title=title)
    last = max(1, options.steps // 4)
    for column in ("ms per step", "crops/s", "ratio", "first loss", f"mean of the last {last}"):
        table.add_column(column, justify="right")
    for name, value in seconds.items():
        end = statistics.mean(losses[name][-last:])
        figures = (1e3 * value, options.batch_size / value, slowest / value, losses[name][0], end)
        table.add_row(name, *(f"{figure:.{places}f}" for figure, places in zip(figures, (0, 1, 2, 3, 3), strict=True)))
    Console().print(table)
    if options.profile:
        for name, step in steps.items():
            Console().print(profile(name, partial(step, *batches[0])))


def profile(name: str, step: Callable[[], object]) -> Table:
    """The operators that took most of one step."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        step()
    operators = sorted(profiler.key_averages(), key=lambda item: -item.self_cpu_time_total)
    total = sum(item.self_cpu_time_total for item in operators)
    table = Table("operator", title=f"{name}: {total / 1e3:.0f} ms")
    for column in ("calls", "ms", "%"):
        table.add_column(column, justify="right")
    for item in operators[:8]:
        spent = item.self_cpu_time_total
        table.add_row(item.key, str(item.count), f"{spent / 1e3:.0f}", f"{100 * spent / total:.0f}")
    return table


if __name__ == "__main__":
    main()
