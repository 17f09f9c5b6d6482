"""`voxnest calibrate`: what the scores of a model mean, kept in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.options import Cache, Device, Json, ModelArgument, Root


def calibrate(
    model: ModelArgument,
    trials: Annotated[
        list[Path],
        typer.Option(
            metavar="LIST", help="Trial list of speakers who are in no test; may be repeated, for conditions."
        ),
    ],
    root: Root = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Where to write the model (.safetensors).", show_default="NAME-calibrated beside it"
        ),
    ] = None,
    measures: Annotated[
        str,
        typer.Option(metavar="LIST", help="What else evidence depends on: duration, norm, cohort, with commas."),
    ] = "",
    cohort: Annotated[
        Path | None, typer.Option(metavar="PLACE", help="Other speakers, for --measures cohort: as for evaluate.")
    ] = None,
    cache: Cache = True,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Make scores evidence: fit log-likelihood ratios on trials, at every dimension and exit, and keep them in a new
    model file.

    voxnest verify then tells how likely one speaker is, and accepts at a wanted rate of false accepts; voxnest evaluate
    measures what that is worth. A file that is there already is never replaced.
    """
    from rich.console import Console
    from rich.table import Table

    from voxnest.cli.results import give_json
    from voxnest.errors import ConfigError
    from voxnest.evaluation import calibrate as run
    from voxnest.evaluation import find_trials, join_trials, load_cohort
    from voxnest.files import check_output, is_stream
    from voxnest.hub.checkpoint import load_encoder, own_file, save_changed
    from voxnest.inference.cache import EmbeddingCache
    from voxnest.models.exits import named
    from voxnest.progress import progress_bar
    from voxnest.scoring import TooFewTrials

    own = own_file(model)
    if output is None:
        if own is None:
            raise ConfigError("--output", "nothing", f"where to write the model: {model} is no file of yours")
        output = own.with_name(f"{own.stem}-calibrated{own.suffix}")
    check_output(output, ".safetensors")
    if output.exists() and not is_stream(output):
        raise ConfigError(output, "is there already", "another --output, or that file removed")
    if json:
        check_output(json, ".json")
    wanted = [name.strip() for name in measures.split(",") if name.strip()]
    if ("cohort" in wanted) != (cohort is not None):
        raise ConfigError("--cohort", "without --measures cohort" if cohort else "nothing", "both, or neither of them")
    encoder = load_encoder(model, device=device)
    lists = list(dict.fromkeys(trials))
    listed = join_trials([find_trials(path, root) for path in lists])
    for stage, part in encoder.parts().items():
        kept = EmbeddingCache(part) if cache else None
        others = None
        if cohort:
            with progress_bar("embedding the cohort") as progress:
                others = load_cohort(part, cohort, cache=kept, progress=progress)
        with progress_bar("embedding") as progress:
            fitted = run(part, listed, measures=wanted, cohort=others, cache=kept, progress=progress)
        encoder.ends[stage].calibration = fitted
    save_changed(encoder, model, output, {"calibration": {"trials": [str(path) for path in lists], "measures": wanted}})
    found = named({stage: end.calibration for stage, end in encoder.ends.items()})
    first = next(iter(found.values()))
    if give_json({size: calibration.llr.to_dict() for size, calibration in found.items()}, json):
        return
    console = Console(stderr=is_stream(output), markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("dim", "score at\neven odds", "llr for\n1% FA", "llr for\n0.1% FA"):
        table.add_column(heading, justify="right", no_wrap=True)
    for size, calibration in found.items():
        llr = calibration.llr
        even = f"{-llr.offset / llr.weights['score']:.4f}" if not calibration.measures else "-"
        limits = [calibration.false_accepts(rate) for rate in (0.01, 0.001)]
        cells = ("too few" if isinstance(limit, TooFewTrials) else f"{limit.threshold:+.2f}" for limit in limits)
        table.add_row(size, even, *cells)
    console.print(table)
    console.print(f"fitted on {first.llr.targets:,} target and {first.llr.nontargets:,} non-target trials")
    console.print(f"{output}: {model}, calibrated")
