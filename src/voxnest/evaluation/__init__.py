"""Evaluation: trial lists, scoring, error rates, reports and plots."""

from voxnest.corpora.score_files import Order, ScoredTrials, read_scores, write_scores
from voxnest.corpora.trials import Trial, make_trials, read_trials, write_trials
from voxnest.evaluation.bootstrap import Difference, metric_difference, metric_interval, metric_replicates
from voxnest.evaluation.breakdown import Group, bands, breakdown, pair_groups
from voxnest.evaluation.calibrating import calibrate
from voxnest.evaluation.cohorts import Cohort, load_cohort
from voxnest.evaluation.curve import ErrorCurve
from voxnest.evaluation.det import plot_det
from voxnest.evaluation.evaluating import evaluate, evaluate_exits, evaluate_scores
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
from voxnest.evaluation.page import describe_encoder, save_report
from voxnest.evaluation.plda_models import load_plda, save_plda, train_plda
from voxnest.evaluation.protocols import find_protocol, find_protocol_trials
from voxnest.evaluation.report import (
    CalibrationResult,
    DimensionResult,
    EvaluationReport,
    NormalisedResult,
    OperatingPoint,
)
from voxnest.evaluation.score_lists import score_list
from voxnest.evaluation.trial_sets import TrialSet, find_trials, join_trials
from voxnest.scoring import as_norm, s_norm, score_trials, t_norm, z_norm

__all__ = [
    "CalibrationResult",
    "Cohort",
    "Difference",
    "DimensionResult",
    "ErrorCurve",
    "EvaluationReport",
    "Group",
    "IdentificationReport",
    "NormalisedResult",
    "OpenSetPoint",
    "OperatingPoint",
    "Order",
    "ScoredTrials",
    "Trial",
    "TrialSet",
    "as_norm",
    "bands",
    "breakdown",
    "calibrate",
    "compute_act_dcf",
    "compute_cllr",
    "compute_eer",
    "compute_min_cllr",
    "compute_min_dcf",
    "describe_encoder",
    "error_rates",
    "error_rates_at",
    "evaluate",
    "evaluate_exits",
    "evaluate_scores",
    "find_protocol",
    "find_protocol_trials",
    "find_trials",
    "identify",
    "join_trials",
    "load_cohort",
    "load_plda",
    "make_trials",
    "metric_difference",
    "metric_interval",
    "metric_replicates",
    "open_set_error",
    "pair_groups",
    "plot_det",
    "read_scores",
    "read_trials",
    "s_norm",
    "save_plda",
    "save_report",
    "score_list",
    "score_trials",
    "t_norm",
    "top_k_accuracy",
    "train_plda",
    "write_scores",
    "write_trials",
    "z_norm",
]
