"""Evaluations as a page, as JSON and as a table of Markdown."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from voxnest.evaluation.page import sections
from voxnest.evaluation.page.facts import environment
from voxnest.evaluation.page.html import Markup, markup, tag
from voxnest.evaluation.page.tables import Table, results_table
from voxnest.evaluation.page.worst import worst_trials
from voxnest.files import atomic_write, check_output, writing

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

PAGE, JSON, MARKDOWN = "report.html", "report.json", "report.md"


def check_report(folder: str | Path) -> None:
    """Refuse a folder that could not be written, before hours are spent on what should be in it.

    Raises:
        ConfigError: it says why.
    """
    for name in (PAGE, JSON, MARKDOWN):
        check_output(Path(folder, name))


def save_report(
    reports: Mapping[str, EvaluationReport],
    folder: str | Path,
    *,
    tables: Sequence[Table] = (),
    cards: Mapping[str, Mapping[str, str]] | None = None,
    audio: bool = False,
) -> None:
    """Write `report.html`, `report.json` and `report.md` about one or several models into a folder.

    The page is one file that loads nothing: plots, sound and script are in it, and its policy forbids all else.

    Args:
        reports: what `evaluate` gave, by the names that the models shall have in it.
        folder: is made if need be; older files of these names are replaced.
        tables: more to show, such as a breakdown by gender.
        cards: name -> facts of each model (see `describe_encoder`).
        audio: put players of the worst trials' recordings into the page.

    Raises:
        VoxnestError: it cannot be written.
        ValueError: no reports.
    """
    if not reports:
        raise ValueError("a report of no evaluations")
    facts = environment()
    every = [results_table(reports), *tables]
    contents = {
        PAGE: make_page(reports, every, facts, cards or {}, audio),
        JSON: json.dumps(_values(reports, tables, facts, cards or {}), indent=2, default=_number) + "\n",
        MARKDOWN: "\n".join(f"## {table.title}\n\n{table.to_markdown()}" for table in every),
    }
    for name, text in contents.items():
        path = Path(folder, name)
        with writing(path), atomic_write(path) as temporary:  # a name on the command line may be no UTF-8
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def make_page(
    reports: Mapping[str, EvaluationReport],
    tables: Sequence[Table],
    facts: Mapping[str, str],
    cards: Mapping[str, Mapping[str, str]],
    audio: bool,
) -> str:
    """The text of the page."""
    numbers = count()
    main = markup(
        sections.heading(reports, facts["date"]),
        sections.tables(list(tables[:1])),
        sections.det(reports, numbers),
        sections.scores(reports, numbers),
        sections.calibration(reports, numbers),
        sections.prefixes(reports, numbers),
        sections.tables(list(tables[1:])),
        sections.worst(reports, audio),
        sections.facts(facts, cards),
    )
    style, script = _resource("style.css"), _resource("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Nothing is loaded, and no script runs but this one, whatever the names of files hold.
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; media-src data:; img-src data:"
    )
    title = f"{', '.join(reports)}: speaker verification"
    head = markup(
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = markup(tag("main", main), tag("script", Markup(script)))
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"


def _number(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    return value.item()


def _resource(name: str) -> str:
    return files("voxnest.evaluation.page").joinpath(name).read_text(encoding="utf-8")


def _values(
    reports: Mapping[str, EvaluationReport],
    tables: Sequence[Table],
    facts: Mapping[str, str],
    cards: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    """What JSON holds; rates are fractions, but in columns that say percent."""
    models = []
    for label, report in reports.items():
        worst = [trial._asdict() for trial in worst_trials(report, max(report.dims))]
        models.append({"label": label, **report.to_dict(), "card": cards.get(label, {}), "worst_trials": worst})
    return {"environment": dict(facts), "models": models, "tables": [table.to_dict() for table in tables]}
