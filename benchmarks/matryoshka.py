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

from rich.console import Console
from rich.table import Table

from error_rates import Rates, Trials, mean_rate, ratio
from voxnest.corpora.utterances import read_corpus
from voxnest.hub.checkpoint import load_encoder
from voxnest.matryoshka import with_dims
from voxnest.matryoshka.fit import Method, fit


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
        made.add_row(
            str(dim), f"{mean_rate(found, dim):.2%}", ratio(found, dim, plain, full), ratio(found, dim, found, own)
        )
    return made


if __name__ == "__main__":
    main()
