"""Feed damaged files to the commands: each must end as documented, without traceback, hang, or more than 2 GiB.

    python tools/fuzz.py --cases 10000 --seed 0 --minutes 60

Every case is a file that was good (recordings in ten formats, checkpoints of ours and of others, configurations, trial
lists, manifests and other lists), changed at random, and a command that reads it. The commands run in forked processes
of this one, so that torch is imported once. The same seed and number make the same case: `--only N` runs one again and
shows what it prints. What fails is kept in the folder `--keep`, with the command.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fuzz_seeds import Seeds, make_seeds

MEMORY = 2 << 30
"""Bytes of a process, all it has mapped of torch included."""
SECONDS = 30.0
"""The longest that a case may take; a loaded machine has its share in that."""

IMPORTED_ONCE = (
    "voxnest.cli.app",
    "voxnest.training.run",
    "voxnest.evaluation",
    "voxnest.matryoshka.fit",
    "torch.utils.tensorboard",
    "matplotlib.backends.backend_svg",
    "rich.progress",
)
"""What commands import at first use; here before anything forks."""

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1]
# fmt: off
WORDS = [
    "nan", "inf", "-inf", "-1", "0", "1e308", "-1e308", "1e-308", "99999999999999999999", "NaN", "Infinity", "0x10",
    "1_000", "2026-01-01", "null", "true", "[]", "{}", "[1]", "{a: 1}", "''", "\x00", "\ufffd", "é", "💥", "..", "/",
    "-", "../../etc/passwd", "~", "!!python/object:os.system", "&a", "*a", "|", ">", "%", "@", "`", "1:2", ",", ";",
    " ", "\t", "\n", "x" * 5000, "9" * 400, "[" * 300, "{" * 300, "\ufeff",
]
# fmt: on


def mutate_bytes(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes of the kinds that break decoders."""
    work = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        size = len(work)
        at = rng.randrange(min(size, 256) if rng.random() < 0.6 else size) if size else 0  # headers above all
        kind = rng.randrange(8)
        if kind == 0:
            work[at : at + 1] = bytes([work[at] ^ (1 << rng.randrange(8))]) if size else b"\0"
        elif kind == 1:
            work[at : at + 4] = rng.randbytes(rng.randrange(1, 9))
        elif kind == 2:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(EXTREMES) & (256**width - 1)
            work[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
        elif kind == 3:
            del work[rng.randrange(size) if size else 0 :]
        elif kind == 4:
            del work[at : at + rng.randrange(1, 512)]
        elif kind == 5:
            work[at:at] = work[at : at + rng.randrange(1, 4096)]
        elif kind == 6:
            work[at : at + rng.randrange(1, 4096)] = bytes(rng.randrange(1, 4096))
        else:
            other = rng.choice(others)
            cut = rng.randrange(len(other)) if other else 0
            work[at:] = other[cut:]
    return bytes(work)


def mutate_text(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Words, lines or bytes replaced, doubled, dropped, swapped."""
    if rng.random() < 0.15:
        return mutate_bytes(data, rng, others)
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(rng.choice((1, 1, 2, 3))):
        lines = text.split("\n")
        index = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind <= 2:
            words = [word for word in _split(lines[index]) if word]
            if words:
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            lines[index] = "".join(words)
        elif kind == 3:
            lines.insert(index, rng.choice(lines))
        elif kind == 4:
            del lines[index]
        elif kind == 5:
            lines[index] = lines[index][rng.randrange(len(lines[index]) + 1) :]
        else:
            other = rng.randrange(len(lines))
            lines[index], lines[other] = lines[other], lines[index]
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogateescape")


def _split(line: str) -> list[str]:
    """Words and what is between them."""
    pieces, last = [""], ""
    for character in line:
        kind = "w" if character.isalnum() or character in "._-+" else "s"
        if kind != last:
            pieces.append("")
        pieces[-1] += character
        last = kind
    return pieces


@dataclass(frozen=True)
class Outcome:
    """How a case ended: what is wrong with it, or nothing, and what it printed."""

    kind: str
    status: int
    problem: str
    seconds: float
    memory: int
    printed: str


def make_case(number: int, seed: int, seeds: Seeds, folder: Path) -> tuple[str, list[str]]:
    """Write the damaged file of a case into `folder`; its kind and command."""
    rng = random.Random(f"{seed}-{number}")
    kind = rng.choice(list(seeds.recipes))
    recipe = seeds.recipes[kind]
    sample = rng.choice(recipe.samples)
    change = mutate_text if recipe.text else mutate_bytes
    others = [other.content for other in recipe.samples]
    content = change(sample.content, rng, others)
    path = folder / sample.name
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, extra in recipe.beside.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(extra)
    path.write_bytes(content)
    command = rng.choice(recipe.commands)
    return kind, [word.format(file=path, folder=folder, parent=path.parent, **seeds.places) for word in command]


def run_case(words: list[str], folder: Path) -> Outcome:
    """Run a command in a forked process, and judge how it ended."""
    output = folder / ".printed"
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(words, folder, output)
    deadline, status, usage = start + SECONDS, None, None
    while status is None:
        done, code, usage = os.wait4(child, os.WNOHANG)
        if done:
            status = code
        elif time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
        else:
            time.sleep(0.005)
    seconds = time.monotonic() - start
    printed = output.read_text("utf-8", "replace") if output.exists() else ""
    left = [path.name for path in folder.rglob(".*") if path.name not in (".printed", ".lock") and path.is_file()]
    code = os.waitstatus_to_exitcode(status)
    assert usage is not None  # as there is a status
    memory = usage.ru_maxrss * 1024
    allowed = (0, 1, 2) if words[0] == "verify" else (0, 2)
    problem = ""
    if seconds > SECONDS:
        problem = f"took more than {SECONDS:g} s"
    elif code not in allowed:
        problem = f"exit status {code}"
    elif "Traceback" in printed or "failed with" in printed:
        problem = "a traceback"
    elif "out of memory" in printed or memory > MEMORY:
        problem = f"{memory >> 20} MiB"
    elif code == 2 and "error:" not in printed:
        problem = "status 2 without a line that says why"
    elif left:
        problem = f"left {', '.join(left[:3])}"
    return Outcome("", code, problem, seconds, memory, printed)


def _child(words: list[str], folder: Path, output: Path) -> None:
    """Be the command line: never returns."""
    status = 99
    try:
        os.chdir(folder)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        # Somewhat above what is allowed, so that a case fails rather than the machine.
        resource.setrlimit(resource.RLIMIT_DATA, (3 * MEMORY, 3 * MEMORY))
        from voxnest.cli import main
        from voxnest.cli.app import app

        sys.argv = ["voxnest", *words]
        status = main.run(lambda: app(words, standalone_mode=False))
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def main() -> int:
    """Run the cases; the exit status tells whether all ended well."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60.0, help="Stop after so long.")
    parser.add_argument("--only", type=int, help="Run this case alone, and show it.")
    parser.add_argument("--kind", help="Cases of this kind alone.")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        os.environ["VOXNEST_HOME"] = str(work / "home")
        for module in IMPORTED_ONCE:
            import_module(module)
        seeds = make_seeds(work / "seeds", options.kind)
        if options.only is not None:
            kind, words = make_case(options.only, options.seed, seeds, work / "case")
            outcome = run_case(words, work / "case")
            print(kind, *words, f"\n{outcome.printed}\nstatus {outcome.status} {outcome.problem}")
            return bool(outcome.problem)
        return _run_all(options, seeds, work)


Result = tuple[int, str, list[str], Outcome] | None


def _run_all(options: argparse.Namespace, seeds: Seeds, work: Path) -> int:
    end = time.monotonic() + 60 * options.minutes
    totals: Counter[tuple[str, int]] = Counter()
    failed, slowest, largest, done = 0, 0.0, 0, 0
    run = functools.partial(_run_one, end, options.seed, options.keep, seeds, work)
    # Processes, not threads: what is forked from a process with threads may find a lock held for ever.
    with multiprocessing.get_context("fork").Pool(options.jobs) as pool:
        for result in pool.imap(run, range(options.cases)):
            if result is None:
                continue
            number, kind, words, outcome = result
            done += 1
            totals[kind, outcome.status] += 1
            slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.memory)
            if outcome.problem:
                failed += 1
                last = outcome.printed.strip().splitlines()[-1:] or [""]
                print(f"case {number} ({kind}: {words[0]}): {outcome.problem}: {last[0][:300]}", flush=True)
    for (kind, status), count in sorted(totals.items()):
        print(f"{kind:12} status {status}: {count:6}")
    print(f"{done} cases of {options.cases}, {failed} failed; longest {slowest:.1f} s, most memory {largest >> 20} MiB")
    return bool(failed or not done)


def _run_one(end: float, seed: int, keep: Path, seeds: Seeds, work: Path, number: int) -> Result:
    """Run a case; keep its folder if it fails."""
    if time.monotonic() > end:
        return None
    folder = work / f"case-{number}"
    folder.mkdir()
    try:
        kind, words = make_case(number, seed, seeds, folder)
        outcome = run_case(words, folder)
        if outcome.problem:
            kept = keep / f"{seed}-{number}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder, kept, symlinks=True)
            (kept / "COMMAND").write_text(" ".join(words) + "\n", encoding="utf-8", errors="backslashreplace")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return number, kind, words, outcome


if __name__ == "__main__":
    sys.exit(main())
