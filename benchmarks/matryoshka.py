"""What short prefixes cost in error rate: encoders, several seeds of each, beside the whole embedding of a plain one.

    python benchmarks/matryoshka.py --trials ../shared/data/voices/trials.txt \\
        --plain runs/plain-*/last.safetensors --nested runs/nested-*/last.safetensors --fit ../shared/data/voices/train

Per prefix size: mean EER over the seeds, and its ratio to the mean EER of the plain encoders' whole embeddings and to
that of the nested ones', with 95% confidence intervals over the speakers of the trials (drawn anew; the same draws for
all). The plain encoders are also shown cut off as they are, and rotated (`voxnest matryoshka fit`) on the speech of
`--fit`.

Without `--trials`, each encoder's own held-out speakers are what it is judged by (`validation/trials.txt` of its run,
other speakers for other seeds); rotations are then fitted without them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from voxnest.corpora.manifest import Utterance
from voxnest.corpora.trials import find_root, find_speakers, index_trials, read_trials
from voxnest.corpora.utterances import read_corpus
from voxnest.evaluation import compute_eer, metric_replicates
from voxnest.hub.checkpoint import load_encoder
from voxnest.inference import embed_files
from voxnest.matryoshka import with_dims
from voxnest.matryoshka.fit import Method, fit
from voxnest.models.encoder import SpeakerEncoder
from voxnest.scoring import score_indexed

DIMS = (8, 16, 32, 64, 128)
Rates = dict[int, tuple[float, np.ndarray]]
"""Size of prefix -> EER and its replicates."""


class Trials:
    """A trial list, and the error rates of encoders on it."""

    def __init__(self, path: Path) -> None:
        listed = read_trials(path)
        self.indexed, self.root = index_trials(listed), find_root(path, listed)
        speakers = find_speakers(self.indexed)
        self.sides = speakers[self.indexed.enrollment], speakers[self.indexed.test]

    def without_these_speakers(self, speech: Sequence[Utterance]) -> list[Utterance]:
        """Utterances of others. Folders of a run's held-out speakers are called NUMBER-SPEAKER."""
        own = {name.split("/")[0].partition("-")[2] for name in self.indexed.names}
        return [utterance for utterance in speech if utterance.speaker not in own]

    def rates(self, encoder: SpeakerEncoder) -> Rates:
        """EER of every prefix in `DIMS` and of the whole embedding."""
        embeddings = embed_files(encoder, self.indexed.names, root=self.root)
        dims = [*(dim for dim in DIMS if dim < encoder.embedding_dim), encoder.embedding_dim]
        scores = score_indexed(np.stack([embeddings[name] for name in self.indexed.names]), self.indexed, dims)
        labels = self.indexed.labels
        return {
            dim: (compute_eer(values, labels)[0], metric_replicates(values, labels, *self.sides))
            for dim, values in scores.items()
        }


def main() -> None:
    """Evaluate all encoders, and print a table for each way to make them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=Path, help="instead of the held-out speakers of each run")
    parser.add_argument("--plain", type=Path, nargs="+", required=True, help="encoders of one size")
    parser.add_argument("--nested", type=Path, nargs="*", default=[], help="Matryoshka encoders")
    parser.add_argument("--fit", type=Path, help="speech to fit rotations on")
    options = parser.parse_args()
    common = Trials(options.trials) if options.trials else None
    speech = read_corpus(options.fit) if options.fit else []

    def over(paths: Sequence[Path], method: Method | None = None) -> list[Rates]:
        """Rates of encoders, as they are or rotated."""
        found = []
        for path in paths:
            encoder, trials = load_encoder(path), common or Trials(path.parent / "validation" / "trials.txt")
            if method:
                others = speech if common else trials.without_these_speakers(speech)
                encoder = fit(with_dims(encoder, [encoder.embedding_dim]), others, method=method)
            found.append(trials.rates(encoder))
        return found

    ways = {"plain, cut off": over(options.plain)}
    if speech:
        ways["plain, rotated (PCA)"] = over(options.plain, "pca")
        ways["plain, rotated (discriminative)"] = over(options.plain, "discriminative")
    if options.nested:
        ways["Matryoshka training"] = over(options.nested)
        if speech:
            ways["Matryoshka training, rotated (discriminative)"] = over(options.nested, "discriminative")
    whole = ways["plain, cut off"]
    console = Console()
    for name, found in ways.items():
        console.print(table(f"{name}, {len(found)} seeds", found, whole))


def table(title: str, found: Sequence[Rates], plain: Sequence[Rates]) -> Table:
    """Mean rates of one way, and their ratios to whole embeddings."""
    made = Table("dimension", "EER %", "/ plain, whole", "/ own, whole", title=title, title_justify="left")
    full, own = max(plain[0]), max(found[0])
    for dim in sorted(found[0], reverse=True):
        eer = np.mean([rates[dim][0] for rates in found])
        made.add_row(str(dim), f"{eer:.2%}", ratio(found, dim, plain, full), ratio(found, dim, found, own))
    return made


def ratio(above: Sequence[Rates], dim: int, below: Sequence[Rates], full: int) -> str:
    """Ratio of mean error rates, and its interval over draws of the speakers."""
    value = np.mean([rates[dim][0] for rates in above]) / np.mean([rates[full][0] for rates in below])
    drawn = np.mean([rates[dim][1] for rates in above], axis=0), np.mean([rates[full][1] for rates in below], axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.divide(*drawn)
    low, high = np.nanquantile(ratios, [0.025, 0.975])
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
