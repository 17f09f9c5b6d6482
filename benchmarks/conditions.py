"""Error rates of a model by condition and size of embedding: the table of the default model's card.

    python benchmarks/conditions.py runs/conditions                        # the model that comes with voxnest
    python benchmarks/conditions.py runs/conditions --model runs/mine --json runs/conditions.json

Clean reading, other languages, learners and children, and single words are the trial lists beside a developer's
checkout. Copies of them are made in the folder: by telephone, and those of development speakers also of 2 s, for
`voxnest calibrate`. Intervals (95%) draw the speakers anew. A second table has ratios of prefixes to whole embeddings.
"""

import argparse
import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from error_rates import Rates, Trials, copy_by_telephone, copy_middles, interval, ratio
from voxnest.hub.checkpoint import load_encoder

VOICES, CROWD = Path("../shared/data/voices"), Path("../shared/data/crowd")
SHORT = (1.0, 2.0, 3.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for the copies")
    parser.add_argument("--model", default="default")
    parser.add_argument("--json", type=Path, help="write the error rates here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    encoder = load_encoder(options.model)
    found = {name: trials.rates(encoder) for name, trials in conditions(options.folder).items()}
    if options.json:
        options.json.write_text(json.dumps(as_numbers(found), indent=2) + "\n")
    sizes = sorted({dim for rates in found.values() for dim in rates})
    for table in (rates_table(found, sizes), ratios_table(found, sizes)):
        Console(width=140).print(table)


def rates_table(found: dict[str, Rates], sizes: list[int]) -> Table:
    """EER by condition and size, and the interval of the largest."""
    table = Table("EER % of", *map(str, sizes), f"95% of {sizes[-1]}", box=None)
    for name, rates in found.items():
        low, high = interval(rates[sizes[-1]])
        cells = (f"{100 * rates[dim][0]:.2f}" for dim in sizes)
        table.add_row(name, *cells, f"{100 * low:.2f} to {100 * high:.2f}")
    return table


def ratios_table(found: dict[str, Rates], sizes: list[int]) -> Table:
    """Ratios of shorter sizes to the largest, each with its interval."""
    *shorter, whole = sizes
    table = Table(f"EER / EER at {whole}", *map(str, shorter), box=None)
    for name, rates in found.items():
        table.add_row(name, *(ratio([rates], dim, [rates], whole) for dim in shorter))
    return table


def conditions(folder: Path) -> dict[str, Trials]:
    """What is measured, by name; the copies are made in the folder."""
    copies = copy_by_telephone(VOICES, folder / "telephone")
    copies += copy_by_telephone(CROWD, folder / "dev-telephone", ("dev",))
    by_telephone = {path.name: path for path in copies}
    copy_middles(CROWD, folder / "dev-2s", ("dev",), 2.0)
    lists = {
        "clean reading": VOICES / "trials.txt",
        "other languages": CROWD / "dev-commonvoice.txt",
        "learners, children": CROWD / "dev-speechocean.txt",
        "single words": CROWD / "dev-commands.txt",
    }
    found = {}
    for name, path in lists.items():
        found[name] = Trials(path)
        found |= {f"{name}, {seconds:g} s": Trials(path, seconds) for seconds in SHORT}
        found[f"{name}, telephone"] = Trials(by_telephone[path.name])
    return found


def as_numbers(found: dict[str, Rates]) -> dict[str, dict[str, object]]:
    """For a file: condition -> size -> EER and its interval, as fractions."""
    return {
        name: {str(dim): {"eer": rates[dim][0], "interval_95": interval(rates[dim])} for dim in rates}
        for name, rates in found.items()
    }


if __name__ == "__main__":
    main()
