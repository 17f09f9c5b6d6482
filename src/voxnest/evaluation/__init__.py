"""Evaluation: trial lists, scoring, error rates, reports and plots."""

from voxnest.corpora.trials import Trial, make_trials, read_trials, write_trials
from voxnest.evaluation.det import plot_det
from voxnest.evaluation.evaluating import evaluate
from voxnest.evaluation.metrics import (
    compute_eer,
    compute_min_dcf,
    eer_interval,
    eer_replicates,
    error_rates,
    error_rates_at,
)
from voxnest.evaluation.report import DimensionResult, EvaluationReport, OperatingPoint
from voxnest.scoring import as_norm, s_norm, score_trials

__all__ = [
    "DimensionResult",
    "EvaluationReport",
    "OperatingPoint",
    "Trial",
    "as_norm",
    "compute_eer",
    "compute_min_dcf",
    "eer_interval",
    "eer_replicates",
    "error_rates",
    "error_rates_at",
    "evaluate",
    "make_trials",
    "plot_det",
    "read_trials",
    "s_norm",
    "score_trials",
    "write_trials",
]
