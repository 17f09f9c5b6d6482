"""Evaluation: trial lists, scoring, error rates, reports and plots."""

from voxnest.corpora.trials import Trial, make_trials, read_trials, write_trials
from voxnest.evaluation.bootstrap import Difference, metric_difference, metric_interval, metric_replicates
from voxnest.evaluation.breakdown import Group, bands, breakdown, pair_groups
from voxnest.evaluation.curve import ErrorCurve
from voxnest.evaluation.det import plot_det
from voxnest.evaluation.evaluating import evaluate
from voxnest.evaluation.identification import IdentificationReport, identify
from voxnest.evaluation.identification_rates import OpenSetPoint, open_set_error, top_k_accuracy
from voxnest.evaluation.metrics import (
    compute_act_dcf,
    compute_cllr,
    compute_eer,
    compute_min_cllr,
    compute_min_dcf,
    error_rates,
    error_rates_at,
)
from voxnest.evaluation.report import DimensionResult, EvaluationReport, OperatingPoint
from voxnest.scoring import as_norm, s_norm, score_trials, t_norm, z_norm

__all__ = [
    "Difference",
    "DimensionResult",
    "ErrorCurve",
    "EvaluationReport",
    "Group",
    "IdentificationReport",
    "OpenSetPoint",
    "OperatingPoint",
    "Trial",
    "as_norm",
    "bands",
    "breakdown",
    "compute_act_dcf",
    "compute_cllr",
    "compute_eer",
    "compute_min_cllr",
    "compute_min_dcf",
    "error_rates",
    "error_rates_at",
    "evaluate",
    "identify",
    "make_trials",
    "metric_difference",
    "metric_interval",
    "metric_replicates",
    "open_set_error",
    "pair_groups",
    "plot_det",
    "read_trials",
    "s_norm",
    "score_trials",
    "t_norm",
    "top_k_accuracy",
    "write_trials",
    "z_norm",
]
