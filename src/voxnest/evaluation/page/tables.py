"""Tables that can be a part of a page, of Markdown and of JSON; and the one of all results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from voxnest.evaluation.page.html import Markup, tag
from voxnest.evaluation.report import UNKNOWN_SIZE

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport

MISSING = "\u2013"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        form: how its numbers are written, such as ".2f"; None for a column of text.
        key: its name in JSON; the heading if empty.
    """

    name: str
    form: str | None = None
    key: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of values under headings: error rates by gender, two models compared, or whatever there is to tell.

    Attributes:
        title: what it shows.
        columns: from left to right.
        rows: of one value for each column: a number, a text, `Markup`, or None where there is none.
        note: what must be known to read it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    def to_html(self) -> Markup:
        """As an element that the page's script makes sortable."""
        head = [tag("th", column.name, scope="col", class_=column.form and "number") for column in self.columns]
        body = [tag("tr", *map(_cell, self.columns, row)) for row in self.rows]
        table = tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body), class_="sortable")
        return tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=self.title)

    def to_markdown(self) -> str:
        """As lines of text with bars."""
        rows = [
            [column.name for column in self.columns],
            ["---:" if column.form else "---" for column in self.columns],
            *(
                [write_value(column, value) for column, value in zip(self.columns, row, strict=True)]
                for row in self.rows
            ),
        ]
        return "".join(f"| {' | '.join(map(_plain, cells))} |\n" for cells in rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values: a list of rows, of which each is `{key: value}`."""
        keys = [column.key or column.name for column in self.columns]
        rows = [dict(zip(keys, row, strict=True)) for row in self.rows]
        return {"title": self.title, "note": self.note, "rows": rows}


def write_value(column: Column, value: Any) -> str:
    """The text of a cell."""
    if value is None:
        return MISSING
    return format(value, column.form) if column.form and not isinstance(value, str) else str(value)


def results_table(reports: Mapping[str, EvaluationReport]) -> Table:
    """A row for each model and prefix size; columns that nothing is known for are left out."""
    results = [result for report in reports.values() for result in report.dims.values()]
    priors = sorted({prior for result in results for prior in result.min_dcf})
    columns = [
        Column("model", key="model"),
        Column("dim", "d", "dim"),
        Column("EER %", ".2f", "eer_percent"),
        Column("95% from", ".2f", "eer_low_percent"),
        Column("to", ".2f", "eer_high_percent"),
        *(Column(f"minDCF {prior:g}", ".4f", f"min_dcf_{prior:g}") for prior in priors),
        Column("threshold at EER", ".4f", "threshold"),
        Column("verify's threshold", ".4f", "verify_threshold"),
        Column("false accepts %", ".2f", "false_accepts_percent"),
        Column("false rejects %", ".2f", "false_rejects_percent"),
    ]
    rows = []
    for label, report in reports.items():
        for dim, result in report.dims.items():
            limits = [100 * limit for limit in result.eer_interval] if result.eer_interval else [None, None]
            point = result.verify
            at_verify = (point.threshold, 100 * point.false_accept_rate, 100 * point.false_reject_rate) if point else ()
            costs = [result.min_dcf.get(prior) for prior in priors]
            row = [label, None if dim == UNKNOWN_SIZE else dim, 100 * result.eer, *limits, *costs, result.threshold]
            rows.append([*row, *(at_verify or (None, None, None))])
    known = [any(row[place] is not None for row in rows) for place in range(len(columns))]
    return Table(
        "Results",
        [column for column, keep in zip(columns, known, strict=True) if keep],
        [[value for value, keep in zip(row, known, strict=True) if keep] for row in rows],
    )


def _cell(column: Column, value: Any) -> Markup:
    if isinstance(value, Markup):
        return tag("td", value)
    number = column.form is not None and value is not None and not isinstance(value, str)
    text = write_value(column, value)
    missing = value is None or None
    return tag("td", text, class_=column.form and "number", data_value=value if number else None, data_missing=missing)


def _plain(text: str) -> str:
    """A text that neither ends a cell nor a line of Markdown, nor is markup in it."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("`", "\\`").replace("*", "\\*").replace("_", "\\_")
