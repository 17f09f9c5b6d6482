"""Scores of trials, from embeddings in memory: comparing, normalising, calibrating, fusing. No file paths here."""

from voxnest.scoring.calibration import (
    FalseAcceptThreshold,
    TooFewTrials,
    bayes_threshold,
    false_accept_threshold,
    fit_calibration,
    pair_measures,
    probability,
)
from voxnest.scoring.cosine import cosine_similarity, score_crops, score_indexed, score_trials, similarity
from voxnest.scoring.fusion import fit_fusion
from voxnest.scoring.logistic import LinearLLR
from voxnest.scoring.model_calibration import MEASURES, Calibration
from voxnest.scoring.normalisation import (
    as_norm,
    cohort_statistics,
    normalise,
    s_norm,
    speaker_means,
    subtract_mean,
    t_norm,
    z_norm,
)
from voxnest.scoring.plda import PLDA, fit_plda

__all__ = [
    "MEASURES",
    "PLDA",
    "Calibration",
    "FalseAcceptThreshold",
    "LinearLLR",
    "TooFewTrials",
    "as_norm",
    "bayes_threshold",
    "cohort_statistics",
    "cosine_similarity",
    "false_accept_threshold",
    "fit_calibration",
    "fit_fusion",
    "fit_plda",
    "normalise",
    "pair_measures",
    "probability",
    "s_norm",
    "score_crops",
    "score_indexed",
    "score_trials",
    "similarity",
    "speaker_means",
    "subtract_mean",
    "t_norm",
    "z_norm",
]
