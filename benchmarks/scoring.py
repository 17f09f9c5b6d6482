"""What scoring a large list costs: embeddings in memory to the EER with AS-norm, and its interval over speakers.

    python benchmarks/scoring.py [--only ours|usual|interval]

Embeddings are drawn at random, of the size of VoxCeleb1-E: 145,160 utterances of 1,251 speakers x 192 numbers, 579,818
trials, a cohort of 6,000, of which the nearest 300 count. Ours is compared with the usual form: for the
utterances of either side of the list, similarities to the cohort are computed in one matrix and sorted whole; then a
Python loop takes one line of the list after the other. Each part runs in a process of its own; memory is the growth of
its peak resident set over the embeddings. On a machine with other work, the seconds of processor time say more.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from voxnest.corpora.trials import IndexedTrials
from voxnest.evaluation import compute_eer, metric_interval
from voxnest.scoring import normalise, score_indexed

UTTERANCES, SPEAKERS, SIZE, TRIALS, COHORT, TOP_N = 145_160, 1_251, 192, 579_818, 6_000, 300
REPLICATES = 1000


def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray, IndexedTrials]:
    """Embeddings, speakers, cohort, trials; every utterance is in some trial, on both sides."""
    random = np.random.default_rng(0)
    speakers = np.arange(UTTERANCES) % SPEAKERS
    embeddings = random.standard_normal((SPEAKERS, SIZE), dtype=np.float32)[speakers]
    for start in range(0, UTTERANCES, 4096):
        rows = embeddings[start : start + 4096]
        rows += 2 * random.standard_normal(rows.shape, dtype=np.float32) + np.float32(0.3)
    cohort = 2.2 * random.standard_normal((COHORT, SIZE), dtype=np.float32) + np.float32(0.3)
    first = np.concatenate([np.arange(UTTERANCES), random.integers(UTTERANCES, size=TRIALS - UTTERANCES)])
    second = random.permutation(first)
    same = random.random(TRIALS) < 0.5
    steps = random.integers(1, UTTERANCES // SPEAKERS, TRIALS) * SPEAKERS
    second = np.where(same, (first + steps) % (UTTERANCES - UTTERANCES % SPEAKERS), second)
    names = [f"id{speaker:05d}/{number:06d}" for number, speaker in enumerate(speakers)]
    return embeddings, speakers, cohort, IndexedTrials(names, first, second, speakers[first] == speakers[second])


def ours() -> dict[str, float]:
    embeddings, _, cohort, trials = draw()
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    scores = score_indexed(embeddings, trials, (SIZE,))[SIZE]
    cosines = time.perf_counter()
    scores = normalise(scores, embeddings, trials, cohort, "as", TOP_N)
    normalised = time.perf_counter()
    eer = compute_eer(scores, trials.labels)[0]
    end = time.perf_counter()
    return {
        "seconds": end - start,
        "processor": time.process_time() - busy,
        "cosine": cosines - start,
        "AS-norm": normalised - cosines,
        "EER": end - normalised,
        "gigabytes": (peak() - before) / 2**30,
        "eer": eer,
    }


def usual() -> dict[str, float]:
    """As recipes do it, with a table of lines and dictionaries by name."""
    embeddings, _, cohort, trials = draw()
    names = np.array(trials.names)
    lines = list(zip(names[trials.enrollment].tolist(), names[trials.test].tolist(), strict=True))
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    table = dict(zip(trials.names, embeddings, strict=True))
    cohort = cohort / np.linalg.norm(cohort, axis=1, keepdims=True)
    sides = []
    for side in range(2):
        wanted = sorted({line[side] for line in lines})
        rows = np.stack([table[name] for name in wanted])
        similarities = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ cohort.T
        nearest = np.sort(similarities, axis=1)[:, ::-1][:, :TOP_N]
        sides.append(dict(zip(wanted, zip(nearest.mean(axis=1), nearest.std(axis=1), strict=True), strict=True)))
        del similarities, nearest
    scores = []
    for enrollment, test in lines:
        first, second = table[enrollment], table[test]
        score = np.dot(first, second) / (np.linalg.norm(first) * np.linalg.norm(second))
        (mean, deviation), (other_mean, other_deviation) = sides[0][enrollment], sides[1][test]
        scores.append(0.5 * ((score - mean) / deviation + (score - other_mean) / other_deviation))
    eer = compute_eer(scores, trials.labels)[0]
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return {"seconds": seconds, "processor": busy, "gigabytes": (peak() - before) / 2**30, "eer": eer}


def interval() -> dict[str, float]:
    embeddings, speakers, _, trials = draw()
    scores = score_indexed(embeddings, trials, (SIZE,))[SIZE]
    sides = speakers[trials.enrollment], speakers[trials.test]
    before, start, busy = peak(), time.perf_counter(), time.process_time()
    metric_interval(scores, trials.labels, *sides, replicates=REPLICATES)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    return {"seconds": seconds, "processor": busy, "gigabytes": (peak() - before) / 2**30}


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


PARTS = {"ours": ours, "usual": usual, "interval": interval}


def main() -> None:
    """Measure each part in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    if only:
        print(json.dumps(PARTS[only]()))
        return
    found = {}
    for part in PARTS:
        command = [sys.executable, __file__, "--only", part]
        found[part] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    table = Table(
        "what", "s", "processor s", "GiB above the embeddings", title=f"{TRIALS:,} trials", title_justify="left"
    )
    titles = "EER with AS-norm", "the same, usual form", f"interval of the EER, {REPLICATES:,} replicates"
    for title, part in zip(titles, found.values(), strict=True):
        table.add_row(title, f"{part['seconds']:.1f}", f"{part['processor']:.1f}", f"{part['gigabytes']:.2f}")
    Console().print(table)
    steps = ", ".join(f"{step} {found['ours'][step]:.2f} s" for step in ("cosine", "AS-norm", "EER"))
    ratios = [found["usual"][unit] / found["ours"][unit] for unit in ("seconds", "processor")]
    print(f"{ratios[0]:.1f} times faster, {ratios[1]:.1f} times less processor time ({steps})")
    print(f"EER {found['ours']['eer']:.6f}, usual form {found['usual']['eer']:.6f}")


if __name__ == "__main__":
    main()
