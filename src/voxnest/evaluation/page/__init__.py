"""The report of an evaluation: a page that needs nothing beside it, JSON, and a table of Markdown."""

from voxnest.evaluation.page.facts import describe_encoder
from voxnest.evaluation.page.further import further_tables
from voxnest.evaluation.page.tables import Column, Table
from voxnest.evaluation.page.writing import check_report, save_report

__all__ = ["Column", "Table", "check_report", "describe_encoder", "further_tables", "save_report"]
