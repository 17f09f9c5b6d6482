"""Write docs/zoo.md and docs/zoo.png: size, cost, published error rates and measured time of every model.

    python tools/zoo.py            # after python tools/zoo.py --counts, if an architecture or a card changed
    python tools/zoo.py --counts   # the counts alone, which `voxnest models` shows

Time is that of a processor core in one thread (not that of the clock, so other jobs matter little), of one utterance
of 3 s from waveform to embedding, float32 without compilation: the median of several runs.
"""

import argparse
import json
import re
import statistics
import time
from itertools import groupby
from pathlib import Path

import torch

from voxnest.files import atomic_write
from voxnest.zoo.card import VOX1
from voxnest.zoo.counting import KEPT, count_model, kept_counts
from voxnest.zoo.picture import plot_models
from voxnest.zoo.registry import CARDS, create_encoder

DOCS = Path(__file__).parent.parent / "docs"
SECONDS = 3.0
NOT_SHOWN = ("redimnet-tiny",)
"""Models for tests."""

HEAD = """# The zoo

Every architecture that voxnest builds, with what is published about it and what it costs here. Each is a
`SpeakerEncoder` like any other: `voxnest.create_encoder(name)` builds it, `voxnest train` trains it,
`voxnest.load_encoder` reads its published checkpoints where there are any ([pretrained.md](pretrained.md)).

![Error rates and costs](zoo.png)

- *M params* and *GMACs* (multiply-accumulates from the features on, for 2 s of speech) are counted on the models built
  here. `voxnest models check` compares them with the published counts and says why they differ where they do.
- *EER* in percent on VoxCeleb1-O, E and H as published, in brackets with adaptive score normalisation. Nothing here was
  trained by us; the sources are below the table.
- *ms* is the time that one core takes from the waveform of 3 s to its embedding, one at a time, in float32 and one
  thread; *RTF* is that as a part of the 3 s. Measured on {machine}.
  [results.md](results.md#architectures) compares these times with those of the reference implementations.

This page is written by `python tools/zoo.py`; `voxnest models plot zoo.png` draws the figure alone.
"""


def main() -> None:
    """Count, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", action="store_true", help="Count all models, and write src/.../counts.json.")
    if parser.parse_args().counts:
        counts = (f"  {json.dumps(name)}: {json.dumps(count_model(name))}" for name in CARDS)
        with atomic_write(KEPT) as path:
            path.write_text("{\n" + ",\n".join(counts) + "\n}\n", encoding="utf-8")
        return
    torch.set_num_threads(1)
    lines = [HEAD.format(machine=machine())]
    lines += ["| model | M params | GMACs | O | E | H | ms | RTF |", "| --- " + "| ---: " * 7 + "|"]
    shown = {name: card for name, card in CARDS.items() if name not in NOT_SHOWN}
    for family, names in groupby(shown, key=lambda name: shown[name].family):
        lines.append(f"| **{family}** | | | | | | | |")
        for name in names:
            took = seconds(name)
            counts = (f"{count:.2f}" for count in kept_counts(name))
            rates = (shown[name].published.rate(item) for item in VOX1)
            cells = [f"`{name}`", *counts, *rates, f"{1000 * took:.0f}", f"{took / SECONDS:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    lines += ["", "## Sources", ""]
    for family, names in groupby(shown, key=lambda name: shown[name].family):
        for source, group in groupby(names, key=lambda name: shown[name].published.source):
            lines.append(f"- {family}, {', '.join(f'`{name}`' for name in group)}: {source or 'no figures published'}.")
    plot_models(DOCS / "zoo.png")
    with atomic_write(DOCS / "zoo.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def seconds(name: str) -> float:
    """Processor time that an utterance takes."""
    encoder = create_encoder(name).eval()
    waveform = 0.1 * torch.randn(1, round(SECONDS * encoder.sample_rate))
    taken: list[float] = []
    with torch.inference_mode():
        encoder(waveform)
        while len(taken) < 5 or (len(taken) < 21 and sum(taken) < 3):
            start = time.process_time()
            encoder(waveform)
            taken.append(time.process_time() - start)
    return statistics.median(taken)


def machine() -> str:
    """The processor and the library."""
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    return f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__.split('+')[0]}"


if __name__ == "__main__":
    main()
