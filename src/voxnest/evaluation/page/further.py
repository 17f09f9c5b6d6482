"""Tables that a report has where there is something to tell: normalised scores, calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from voxnest.evaluation.page.tables import Column, Table

if TYPE_CHECKING:
    from voxnest.evaluation.report import EvaluationReport


def further_tables(reports: Mapping[str, EvaluationReport]) -> list[Table]:
    """Give the tables of `save_report` beside that of all results."""
    return [table for table in (_normalised(reports), _calibration(reports)) if table.rows]


def _normalised(reports: Mapping[str, EvaluationReport]) -> Table:
    rows: list[list[Any]] = []
    priors: list[float] = []
    for label, report in reports.items():
        for dim, result in report.dims.items():
            for name, found in result.normalised.items():
                priors = list(found.min_dcf)
                limits = [100 * limit for limit in found.eer_interval] if found.eer_interval else [None, None]
                rows.append([label, dim, name, 100 * found.eer, *limits, *found.min_dcf.values(), found.threshold])
    columns = [
        *(Column("model"), Column("dim", "d"), Column("scores"), Column("EER %", ".2f", "eer_percent")),
        *(Column("95% from", ".2f", "eer_low_percent"), Column("to", ".2f", "eer_high_percent")),
        *(Column(f"minDCF {prior:g}", ".4f", f"min_dcf_{prior:g}") for prior in priors),
        Column("threshold at EER", ".4f", "threshold"),
    ]
    return Table("Normalised scores", columns, rows, "The same trials, scored against a cohort of other speakers.")


def _calibration(reports: Mapping[str, EvaluationReport]) -> Table:
    rows: list[list[Any]] = []
    priors: list[float] = []
    for label, report in reports.items():
        for dim, result in report.dims.items():
            if found := result.calibration:
                priors = list(found.act_dcf)
                rows.append([label, dim, found.cllr, found.min_cllr, *found.act_dcf.values()])
    columns = [
        *(Column("model"), Column("dim", "d"), Column("Cllr", ".4f", "cllr"), Column("minCllr", ".4f", "min_cllr")),
        *(Column(f"actDCF {prior:g}", ".4f", f"act_dcf_{prior:g}") for prior in priors),
    ]
    note = "Cllr is what the log-likelihood ratios cost, minCllr what they would after the best calibration."
    return Table("Log-likelihood ratios", columns, rows, note)
