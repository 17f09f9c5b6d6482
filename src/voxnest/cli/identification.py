"""`voxnest evaluate --task identification`: how often a model names the right one of the speakers it was trained on."""

from __future__ import annotations

from pathlib import Path


def print_identification(
    model: str, utterances: Path, dim: list[int] | None, window: float | None, json: Path | None, device: str
) -> None:
    """Print Top-1 and Top-5 of a model at every dimension."""
    from dataclasses import replace

    from rich.console import Console
    from rich.table import Table

    from voxnest.evaluation.identification import WINDOW, identify
    from voxnest.hub.checkpoint import load_classifier, load_encoder
    from voxnest.progress import progress_bar

    classifier = load_classifier(model, device=device)
    encoder = load_encoder(model, device=device)
    length = WINDOW if window is None else window or None
    with progress_bar("embedding") as progress:
        report = identify(encoder, classifier, utterances, dim, window=length, progress=progress)
    report = replace(report, model=model)
    piped = json is not None and str(json) in ("-", "/dev/stdout")
    console = Console(stderr=piped, markup=False, highlight=False)
    console.print(f"{model} on {utterances}", style="bold", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("dim", "Top-1\n%", "95%\n%", "Top-5\n%", "95%\n%"):
        table.add_column(heading, justify="right", no_wrap=True)
    for size in report.top1:
        cells = []
        for share in (report.top1[size], report.top5[size]):
            low, high = share.interval
            cells += [f"{100 * share.value:.2f}", f"{100 * low:.2f}-{100 * high:.2f}"]
        table.add_row(str(size), *cells)
    console.print(table)
    how = f"windows of {report.window:g} s, averaged" if report.window else "whole recordings"
    console.print(f"{report.utterances:,} recordings of {report.speakers:,} known speakers; {how}")
    console.print(
        f"{report.audio_seconds / 60:.1f} min of audio embedded in {report.embedding_seconds:.1f} s, "
        f"{1 / report.real_time_factor:.0f}x real time"
    )
    if json:
        report.save_json(json)
        if not piped:
            console.print(f"results: {json}", soft_wrap=True)
