"""What loading a cached checkpoint costs: time, and memory as a multiple of the weights.

    python benchmarks/loading.py

Puts files as the publishers of ReDimNet b0 and b6 make them (with the weights of golden files) in a cache of its own
and loads b6 in fresh processes; the middle of several counts. Memory is the growth of the process's peak resident set,
pages of the mapped file included: over the process that has imported voxnest, and over one that has loaded b0, and so
has all the code in memory that loading needs.
Also how long `import voxnest`, `voxnest --help` and `voxnest verify` take from the shell, and the default model to its
first embedding.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import soundfile
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import golden_files
from voxnest.hub.download import cached_path
from voxnest.hub.releases import find_release
from voxnest.runtimes.proof import speech

GOLDEN = Path(__file__).parent.parent / "tests" / "golden"

LOAD = """
import resource, sys, time, torch, voxnest, voxnest.hub
voxnest.load_encoder, voxnest.SpeakerEncoder, voxnest.hub.load_encoder  # modules, which any program has imported once
import voxnest.foreign.reading
if sys.argv[1:]:
    voxnest.load_encoder(sys.argv[1])
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
start = time.perf_counter()
encoder = voxnest.load_encoder("redimnet-b6")
took = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(took, (peak - before) / sum(value.nbytes for value in encoder.state_dict().values()))
"""

FIRST = """
import sys, time, soundfile, torch
start = time.perf_counter()
import voxnest
voxnest.load_encoder().encode(sys.argv[1])
print(time.perf_counter() - start)
"""


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        os.environ["VOXNEST_HOME"] = folder
        for name in ("redimnet-b0", "redimnet-b6"):
            path = cached_path(find_release(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            golden = golden_files.read(GOLDEN / f"{name}.json.gz")
            torch.save({"model_config": golden["config"], "state_dict": golden_files.make_state_dict(golden)}, path)

        def load(*before: str) -> tuple[float, float]:
            loads = [list(map(float, run([sys.executable, "-c", LOAD, *before])[1].split())) for _ in range(runs)]
            seconds, memory = zip(*loads, strict=True)
            return statistics.median(seconds), statistics.median(memory)

        first, again = load(), load("redimnet-b0")
        imports = [run([sys.executable, "-c", "import torch, voxnest; voxnest.load_encoder"])[0] for _ in range(runs)]
        exported = Path(folder, "default.onnx")
        run([sys.executable, "-m", "voxnest", "export", "default", "-o", str(exported)])
        sounds = [Path(folder, f"{voice}.wav") for voice in range(2)]
        for voice, sound in enumerate(sounds):
            soundfile.write(sound, speech(3.0, 16000, voice), 16000)
        words = [sys.executable, "-m", "voxnest", "verify", *map(str, sounds), "--threshold", "-1"]
        verifying = {
            model: statistics.median(run([*words, "--model", model])[0] for _ in range(runs))
            for model in ("default", str(exported))
        }
        firsts = [float(run([sys.executable, "-c", FIRST, str(sounds[0])])[1]) for _ in range(runs)]
        helps = [run([sys.executable, "-m", "voxnest", "--help"])[0] for _ in range(runs)]
    table = Table("what", "measured", title=f"middle of {runs}", title_justify="left")
    table.add_row("build b6 and load a cached checkpoint", f"{first[0]:.2f} s")
    table.add_row("its memory / its weights, first model of a process", f"{first[1]:.2f}")
    table.add_row("its memory / its weights, b0 loaded before", f"{again[1]:.2f}")
    table.add_row("import torch and voxnest", f"{statistics.median(imports):.2f} s")
    table.add_row("voxnest verify of two 3 s recordings, with torch", f"{verifying['default']:.2f} s")
    table.add_row("voxnest verify of them with an exported model", f"{verifying[str(exported)]:.2f} s")
    table.add_row("the default model and its first embedding, torch imported", f"{statistics.median(firsts):.2f} s")
    table.add_row("voxnest --help", f"{statistics.median(helps):.2f} s")
    Console().print(table)


def run(command: list[str]) -> tuple[float, str]:
    """Run a program; its seconds and what it printed."""
    start = time.perf_counter()
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - start, shown


if __name__ == "__main__":
    main()
