"""Is a score calibrated on one corpus evidence on another? Cllr against minCllr, false accepts at a learnt threshold.

The calibration of a model is fitted on the development lists of `crowd`, each and all together, and tried on the trials
of `voices`, whose ten speakers and recordings are others. Then it is fitted on half of the speakers of one corpus and
tried on the other half, for many divisions.

    python benchmarks/calibration.py [MODEL] [--data ../shared/data]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from voxnest.corpora.trials import IndexedTrials, Trial, read_trials
from voxnest.evaluation import compute_cllr, compute_min_cllr, find_trials
from voxnest.evaluation.bootstrap import metric_interval
from voxnest.evaluation.curve import ErrorCurve
from voxnest.evaluation.trial_sets import EmbeddedTrials, embed_trials
from voxnest.hub.checkpoint import load_encoder
from voxnest.inference.cache import EmbeddingCache
from voxnest.scoring import Calibration, FalseAcceptThreshold

LISTS = ("dev-commonvoice.txt", "dev-speechocean.txt", "dev-commands.txt")
RATE = 0.01
DIVISIONS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="default")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model)
    cache, dim, crowd = EmbeddingCache(encoder), encoder.embedding_dim, arguments.data / "crowd"

    def embed(trials: Sequence[Trial], root: Path) -> EmbeddedTrials:
        return embed_trials(encoder, find_trials(trials, root), cache=cache)

    voices = embed(read_trials(arguments.data / "voices" / "trials.txt"), arguments.data / "voices" / "test")
    lists = {name: read_trials(crowd / name) for name in LISTS}
    lists["all three"] = [trial for trials in lists.values() for trial in trials]
    table = Table(title=f"{arguments.model}, {dim} numbers, on voices", box=None)
    for heading in ("fitted on", "measures", "Cllr", "minCllr", "ratio", "threshold", "FAR % (95%)"):
        table.add_column(heading)
    for name, trials in lists.items():
        known = embed(trials, crowd / "dev")
        for measures in ((), ("duration",)):
            fitted = fit(known, dim, measures)
            table.add_row(name, ", ".join(measures) or "-", *describe(fitted, voices, dim))
    console = Console(width=120)
    console.print(table)
    divide("voices", voices, dim, console)
    divide(LISTS[0], embed(lists[LISTS[0]], crowd / "dev"), dim, console)


def fit(known: EmbeddedTrials, dim: int, measures: Sequence[str] = ()) -> Calibration:
    scores = known.score((dim,))[dim]
    return Calibration.fit(scores, known.trials.pairs, known.matrix(dim), known.seconds(), measures)


def describe(fitted: Calibration, voices: EmbeddedTrials, dim: int) -> list[str]:
    """Cllr, minCllr, their ratio, and the false accepts at the learnt threshold."""
    pairs, labels = voices.trials.pairs, voices.trials.pairs.labels
    llrs = fitted.llrs(voices.score((dim,))[dim], pairs, voices.matrix(dim), voices.seconds())
    cllr, least = compute_cllr(llrs, labels), compute_min_cllr(llrs, labels)
    found = fitted.false_accepts(RATE)
    assert isinstance(found, FalseAcceptThreshold)
    threshold = found.threshold
    speakers = speakers_of(pairs)
    sides = speakers[pairs.enrollment], speakers[pairs.test]
    low, high = metric_interval(llrs, labels, *sides, lambda curve: false_accepts_at(curve, threshold))
    share = np.mean(llrs[~labels] >= threshold)
    return [
        *(f"{cllr:.4f}", f"{least:.4f}", f"{cllr / least:.3f}", f"{threshold:+.2f}"),
        f"{100 * share:.2f} ({100 * low:.2f}-{100 * high:.2f})",
    ]


def false_accepts_at(curve: ErrorCurve, threshold: float) -> float:
    return float(curve.fpr[np.searchsorted(curve.thresholds, threshold)])


def speakers_of(pairs: IndexedTrials) -> np.ndarray:
    """The speaker of each recording, the folder above its session."""
    return np.unique([Path(name).parts[-3] for name in pairs.names], return_inverse=True)[1]


def divide(name: str, voices: EmbeddedTrials, dim: int, console: Console) -> None:
    """Fit on half of the speakers, try on the other half."""
    pairs, scores = voices.trials.pairs, voices.score((dim,))[dim]
    speakers = speakers_of(pairs)
    random, costs = np.random.default_rng(0), []
    for _ in range(DIVISIONS):
        chosen = random.permutation(speakers.max() + 1)[: (speakers.max() + 1) // 2]
        inside = np.isin(speakers, chosen)
        first, second = inside[pairs.enrollment], inside[pairs.test]
        parts = []
        for kept in (first & second, ~first & ~second):
            part = IndexedTrials(pairs.names, pairs.enrollment[kept], pairs.test[kept], pairs.labels[kept])
            parts.append((scores[kept], part))
        fitted = Calibration.fit(*parts[0], voices.matrix(dim), voices.seconds())
        values, part = parts[1]
        llrs = fitted.llrs(values, part, voices.matrix(dim), voices.seconds())
        costs.append((compute_cllr(llrs, part.labels), compute_min_cllr(llrs, part.labels)))
    cllr, least = np.mean(costs, axis=0)
    console.print(
        f"{name}, half of the speakers tried on the other half, {DIVISIONS} divisions: mean Cllr {cllr:.4f}, "
        f"mean minCllr {least:.4f}, ratio {cllr / least:.3f}"
    )


if __name__ == "__main__":
    main()
