"""`voxnest export`: a model as one graph, from the waveform to the embedding, for other runtimes."""

from pathlib import Path
from typing import Annotated

import typer

from voxnest.cli.options import Dim, ModelArgument, Precision, Root


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
        Path | None, typer.Option(metavar="LIST", help="Tell what int8 costs in EER on this trial list.")
    ] = None,
    root: Root = None,
) -> None:
    """Write a model as one graph, front end inside, that takes any batch and length.

    It is loaded again and compared with PyTorch on speech of several lengths before it gets its name; voxnest verify,
    embed and evaluate take the file as MODEL, without PyTorch. Beside it lies a script of a few lines that runs it with
    numpy and onnxruntime alone.
    """
    from rich.console import Console

    from voxnest.errors import ConfigError
    from voxnest.evaluation import evaluate, find_trials
    from voxnest.files import check_output
    from voxnest.hub.checkpoint import find_metadata, load_encoder
    from voxnest.inference import find_recordings
    from voxnest.progress import progress_bar
    from voxnest.runtimes.export import SUFFIXES, export_encoder
    from voxnest.runtimes.loading import load_encoder as load_engine

    check_output(output, *SUFFIXES)
    if trials and precision != "int8":
        raise ConfigError("--trials", f"given with --precision {precision}", "int8: other files give equal embeddings")
    listed = find_trials(trials, root) if trials else None
    recordings = [path for place in calibrate or () for path in find_recordings(place)]
    encoder = load_encoder(model)
    card = {"exported from": model, **find_metadata(model)}
    report = export_encoder(
        encoder, output, dim=dim, precision=precision, check=check or (), calibrate=recordings, card=card
    )
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for runtime, cosine in report.cosines.items():
        console.print(f"{runtime}: cosine {cosine:.8f} or more to PyTorch, on {report.waveforms} waveforms")
    if listed is not None:
        sizes = report.description.dims
        engine = load_engine(output, precision=precision)
        with progress_bar("embedding, float32") as progress:
            before = evaluate(encoder, listed, dims=sizes, progress=progress)
        with progress_bar("embedding, int8") as progress:
            after = evaluate(engine, listed, dims=sizes, progress=progress)
        for size in sizes:
            old, new = before.dims[size].eer, after.dims[size].eer
            change = f" ({new / old - 1:+.1%})" if old else ""
            console.print(f"EER of {size} numbers: {old:.3%} in float32, {new:.3%} in int8{change}")
    console.print(f"{output}: {report.description.name}, {report.description.dims[-1]} numbers, {precision}")
    if report.script:
        console.print(f"{report.script}: runs it")
