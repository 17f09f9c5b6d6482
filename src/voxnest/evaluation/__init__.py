"""Evaluation: trial lists, scoring, error rates, reports and plots."""

from voxnest.corpora.score_files import Order, ScoredTrials, read_scores, write_scores
from voxnest.corpora.trials import Trial, make_trials, read_trials, write_trials
from voxnest.evaluation.det import plot_det
from voxnest.evaluation.evaluating import evaluate, evaluate_scores
from voxnest.evaluation.metrics import (
    compute_eer,
    compute_min_dcf,
    eer_interval,
    eer_replicates,
    error_rates,
    error_rates_at,
)
from voxnest.evaluation.page import describe_encoder, save_report
from voxnest.evaluation.report import DimensionResult, EvaluationReport, OperatingPoint
from voxnest.evaluation.score_lists import score_list
from voxnest.scoring import as_norm, s_norm, score_trials

__all__ = [
    "DimensionResult",
    "EvaluationReport",
    "OperatingPoint",
    "Order",
    "ScoredTrials",
    "Trial",
    "as_norm",
    "compute_eer",
    "compute_min_dcf",
    "describe_encoder",
    "eer_interval",
    "eer_replicates",
    "error_rates",
    "error_rates_at",
    "evaluate",
    "evaluate_scores",
    "make_trials",
    "plot_det",
    "read_scores",
    "read_trials",
    "s_norm",
    "save_report",
    "score_list",
    "score_trials",
    "write_scores",
    "write_trials",
]
