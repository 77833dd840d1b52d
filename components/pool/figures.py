"""The numbers over all patients of a cross-validation."""

from collections.abc import Sequence

import numpy as np

from components.pool.folds import Fold
from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.measures import pooled_dice
from components.shared.scoring.metrics import BASELINE_SUFFIX, HIGH_SUFFIX, LOW_SUFFIX

_MEAN = "patient_dice_mean"


def pooled_figures(folds: Sequence[Fold]) -> dict[str, float]:
    """Mean, median and standard deviation over patients, each predicted by its own fold's model.

    The names are those of `components.shared.scoring.metrics` where they mean the same.

    Args:
        folds: At least two patients together.
    """
    scores = [score for fold in folds for score in fold.scores]
    dice = [score.dice for score in scores]
    low, high = mean_interval(dice)
    means = [float(np.mean([score.dice for score in fold.scores])) for fold in folds]
    return {
        "patients": float(len(scores)),
        "folds": float(len(folds)),
        _MEAN: float(np.mean(dice)),
        _MEAN + LOW_SUFFIX: low,
        _MEAN + HIGH_SUFFIX: high,
        _MEAN + BASELINE_SUFFIX: float(np.mean([not score.tumour_pixels for score in scores])),
        "patient_dice_median": float(np.median(dice)),
        "patient_dice_sd": float(np.std(dice, ddof=1)),
        "fold_dice_sd": float(np.std(means, ddof=1)) if len(means) > 1 else 0.0,
        "pooled_dice": pooled_dice(scores),
    }
