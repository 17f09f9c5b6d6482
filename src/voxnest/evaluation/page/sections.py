"""The parts of a page, each from the reports; a part of which nothing is known is None."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from voxnest.evaluation.det import draw_det
from voxnest.evaluation.page.charts import LEAST_IN_BIN, draw_prefixes, draw_reliability, draw_scores, figure_element
from voxnest.evaluation.page.html import Markup, markup, tag
from voxnest.evaluation.page.tables import MISSING, Table
from voxnest.evaluation.page.worst import CLIP_SECONDS, Players, worst_table, worst_trials
from voxnest.evaluation.report import UNKNOWN_SIZE

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

    Reports = Mapping[str, EvaluationReport]


def section(title: str, *children: object, note: str = "") -> Markup:
    """A heading and what is below it."""
    return tag("section", tag("h2", title), tag("p", note, class_="note") if note else None, *children)


def heading(reports: Reports, date: str) -> Markup:
    """What was evaluated, on what, and what makes it doubtful."""
    first = next(iter(reports.values()))
    title = next(iter(reports)) if len(reports) == 1 else f"{len(reports)} models compared"
    trials = f" of {Path(first.trials).name}" if first.trials else ""
    counts = (
        f"{first.targets:,} target and {first.nontargets:,} non-target trials{trials}, "
        f"{first.recordings:,} recordings. {date}."
    )
    warnings = {
        (f"{label}: " if len(reports) > 1 else "") + warning: None
        for label, report in reports.items()
        for warning in report.warnings
    }
    listed = tag("ul", *(tag("li", text) for text in warnings), class_="warnings") if warnings else None
    return markup(tag("header", tag("h1", title), tag("p", counts)), listed)


def tables(given: list[Table]) -> Markup:
    """Tables one below the other, each a section."""
    return markup(*(section(table.title, table.to_html(), note=table.note) for table in given))


def det(reports: Reports, numbers: Iterator[int]) -> Markup:
    """The plot of both error rates."""
    several = len(reports) > 1
    caption = "Each curve is a model, at its largest size." if several else "Each curve is a size of the embedding."
    names = ", ".join(reports)
    plot = figure_element(draw_det(reports), f"Detection error trade-off of {names}", next(numbers), caption)
    note = "False rejects against false accepts at every threshold; a marker is where they are equal. Lower is better."
    return section("Error rates at every threshold", plot, note=note)


def scores(reports: Reports, numbers: Iterator[int]) -> Markup:
    """How the scores of each model are spread."""
    plots = []
    for label, report in reports.items():
        dim = max(report.dims)
        plot = draw_scores(report, dim)
        name = label if dim == UNKNOWN_SIZE else f"{label}, {dim} numbers"
        plots.append(figure_element(plot, f"Scores of trials by {name}", next(numbers), title=name))
    note = "The less the two kinds overlap, the better. A trial is accepted at or above the threshold."
    return section("Scores", tag("div", *plots, class_="charts"), note=note)


def calibration(reports: Reports, numbers: Iterator[int]) -> Markup:
    """Whether the probabilities that follow from the scores come true; or that there are none."""
    title = "Calibration"
    curves = {label: (report.llrs[max(report.llrs)], report.labels) for label, report in reports.items() if report.llrs}
    if not curves:
        return section(title, note="The scores are not calibrated: they are no probabilities, only more or less alike.")
    caption = f"Bins with fewer than {LEAST_IN_BIN} trials are left out."
    plot = figure_element(draw_reliability(curves), f"Reliability of {', '.join(curves)}", next(numbers), caption)
    others = [label for label in reports if label not in curves]
    note = "Of trials with one predicted probability, how many are targets, at even odds; on the diagonal it came true."
    return section(title, plot, note=note + (f" Not calibrated: {', '.join(others)}." if others else ""))


def prefixes(reports: Reports, numbers: Iterator[int]) -> Markup | None:
    """What shorter embeddings cost, if there are several sizes."""
    several = {label: report for label, report in reports.items() if len(report.dims) > 1}
    if not several:
        return None
    caption = (
        "Bars are 95% intervals over speakers."
        if any(result.eer_interval for report in several.values() for result in report.dims.values())
        else ""
    )
    plot = figure_element(draw_prefixes(several), "Equal error rate over embedding size", next(numbers), caption)
    return section("Size of the embedding", plot, note="The equal error rate of prefixes of the embedding.")


def worst(reports: Reports, audio: bool) -> Markup | None:
    """The trials that each model is most wrong about."""
    player = Players() if audio else None
    parts: list[Markup] = []
    for label, report in reports.items():
        found = worst_trials(report, max(report.dims))
        if found:
            table = worst_table(found, player, report.models)
            where = tag("p", table.note, class_="note") if table.note else None
            parts.append(tag("details", tag("summary", label), where, table.to_html(), open=not parts))
    if not parts:
        return None
    note = "Different speakers with the highest scores, then same speakers with the lowest."
    if audio:
        note += f" Players have the first {CLIP_SECONDS:g}\u00a0s of each recording."
    return section("Worst trials", *parts, note=note)


def facts(environment: Mapping[str, str], cards: Mapping[str, Mapping[str, str]]) -> Markup:
    """The command, the versions, the models."""
    rest = {name: text for name, text in environment.items() if name not in ("command", "date")}
    rows = [tag("tr", tag("th", name, scope="row"), tag("td", text)) for name, text in rest.items()]
    versions = tag("div", tag("table", tag("tbody", *rows), class_="facts"), class_="scroll")
    return markup(
        _cards(cards) if cards else None,
        section("How it was made", tag("pre", environment["command"]), versions),
    )


def _cards(cards: Mapping[str, Mapping[str, str]]) -> Markup:
    names = list(dict.fromkeys(name for card in cards.values() for name in card))
    head = tag("tr", tag("td"), *(tag("th", label, scope="col") for label in cards)) if len(cards) > 1 else None
    rows = [
        tag("tr", tag("th", name, scope="row"), *(tag("td", card.get(name, MISSING)) for card in cards.values()))
        for name in names
    ]
    table = tag("table", tag("thead", head) if head else None, tag("tbody", *rows), class_="facts")
    title = "The models" if len(cards) > 1 else "The model"
    return section(title, tag("div", table, class_="scroll"))
