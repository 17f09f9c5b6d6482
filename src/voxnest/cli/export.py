"""`voxnest export`: a model as one graph, from the waveform to the embedding, for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from voxnest.cli.options import Dim, ModelArgument, Precision, Root

if TYPE_CHECKING:
    from voxnest.models.embedder import Embedder


def export(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to: .onnx, or .pt2 for PyTorch alone.")
    ],
    model: ModelArgument = "default",
    dim: Dim = None,
    precision: Precision = "float32",
    check: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Compare on this recording; may be repeated.", show_default="what sounds like speech"
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE", help="Recordings that int8 learns its ranges from, or a folder; may be repeated."
        ),
    ] = None,
    trials: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Measure what int8 costs in EER on this trial list.")
    ] = None,
    for_size: Annotated[
        bool,
        typer.Option("--for-size", help="Write int8 for its size, even if it is not faster or its EER is worse."),
    ] = False,
    root: Root = None,
) -> None:
    """Write a model as one graph, front end inside, that takes any batch and length.

    It is loaded again and compared with PyTorch on speech of several lengths before it gets its name; voxnest verify,
    embed and evaluate take the file as MODEL, without PyTorch. Beside it lies a script of a few lines that runs it with
    numpy and onnxruntime alone. int8 is written only if it is faster here than the same model in float32 and bfloat16
    and, with --trials, has an EER at most 3% above that of float32.
    """
    from rich.console import Console

    from voxnest.errors import ConfigError
    from voxnest.evaluation import evaluate, find_trials
    from voxnest.files import check_output
    from voxnest.hub.checkpoint import find_metadata, load_encoder
    from voxnest.inference import find_recordings
    from voxnest.progress import progress_bar
    from voxnest.runtimes.export import SUFFIXES, export_encoder
    from voxnest.runtimes.quantization import check_errors
    from voxnest.runtimes.timing import SECONDS

    check_output(output, *SUFFIXES)
    if (trials or for_size) and precision != "int8":
        found = f"given with --precision {precision}"
        raise ConfigError("--trials" if trials else "--for-size", found, "int8: other files give equal embeddings")
    listed = find_trials(trials, root) if trials else None
    recordings = [path for place in calibrate or () for path in find_recordings(place)]
    encoder = load_encoder(model)
    console = Console(markup=False, highlight=False, soft_wrap=True)

    def approve(engine: Embedder) -> None:
        if listed is None:
            return
        rates = []
        for embedder, label in ((encoder, "float32"), (engine, "int8")):
            with progress_bar(f"embedding, {label}") as progress:
                report = evaluate(embedder, listed, dims=engine.dims, progress=progress)
            rates.append({size: result.eer for size, result in report.dims.items()})
        before, after = rates
        for size, old in before.items():
            change = f" ({after[size] / old - 1:+.1%})" if old else ""
            console.print(f"EER of {size} numbers: {old:.3%} in float32, {after[size]:.3%} in int8{change}")
        if not for_size:
            check_errors(output, before, after)

    report = export_encoder(
        encoder, output, dim=dim, precision=precision, check=check or (), calibrate=recordings,
        card={"exported from": model, **find_metadata(model)}, for_size=for_size, approve=approve,
    )  # fmt: skip
    for runtime, cosine in report.cosines.items():
        console.print(f"{runtime}: cosine {cosine:.8f} or more to PyTorch, on {report.waveforms} waveforms")
    for name, seconds in report.seconds.items():
        console.print(f"{name}: {1e3 * seconds:.1f} ms a recording, of the first {SECONDS:g} s of {recordings[0]}")
    console.print(f"{output}: {report.description.name}, {report.description.dims[-1]} numbers, {precision}")
    if report.script:
        console.print(f"{report.script}: runs it")
