"""Error rates of a model by condition and size of embedding: the table of the default model's card.

    python benchmarks/conditions.py runs/conditions                        # the model that comes with voxnest
    python benchmarks/conditions.py runs/conditions --model runs/mine

Clean reading, other languages, learners and children, and single words are the trial lists beside a developer's
checkout; the telephone is a copy of the first, made in the folder. Intervals (95%) draw the speakers anew.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from error_rates import Trials, copy_by_telephone, interval
from voxnest.hub.checkpoint import load_encoder

VOICES, CROWD = Path("../shared/data/voices"), Path("../shared/data/crowd")
SHORT = (1.0, 2.0, 3.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the telephone's copy")
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(options.model)
    conditions = {
        "clean reading (voices)": Trials(VOICES / "trials.txt"),
        **{f"  {seconds:g} s of it": Trials(VOICES / "trials.txt", seconds) for seconds in SHORT},
        "telephone": Trials(copy_by_telephone(VOICES, options.folder / "telephone")),
        "other languages (dev-commonvoice)": Trials(CROWD / "dev-commonvoice.txt"),
        "learners, children (dev-speechocean)": Trials(CROWD / "dev-speechocean.txt"),
        "single words (dev-commands)": Trials(CROWD / "dev-commands.txt"),
    }
    table = Table("EER % of", *map(str, encoder.dims), "95% of the last", box=None)
    for name, trials in conditions.items():
        found = trials.rates(encoder)
        rates = [f"{100 * found[dim][0]:.2f}" if dim in found else "-" for dim in encoder.dims]
        low, high = interval(found[encoder.embedding_dim])
        table.add_row(name, *rates, f"{100 * low:.2f} to {100 * high:.2f}")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
