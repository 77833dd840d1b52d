"""Figures over all patients of a cross-validation."""

from collections.abc import Sequence

import numpy as np

from components.aggregate.folds import Fold
from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.measures import pooled_dice
from components.shared.scoring.metrics import (
    BASELINE_SUFFIX,
    HIGH_SUFFIX,
    LOW_SUFFIX,
    with_target,
)
from components.shared.scoring.patients import by_patient, patient_means

_MEAN = "patient_dice_mean"


def aggregate_figures(folds: Sequence[Fold]) -> dict[str, float]:
    """Computes figures over patients, each predicted by the model of the patient's fold.

    Figures that `components.shared.scoring.metrics` defines have the same names there. Those of a
    target other than the first have its name before them.

    Args:
        folds: Folds with at least two patients in total.
    """
    first, *further = folds[0].targets
    figures = _figures(folds, first)
    for target in further:
        figures |= with_target(target, _figures(folds, target))
    return figures


def _figures(folds: Sequence[Fold], target: str) -> dict[str, float]:
    scans = [score for fold in folds for score in fold.targets[target]]
    scores = by_patient(scans)
    dice = [score.dice for score in scores]
    low, high = mean_interval(dice)
    mean, median, deviation = spread(dice)
    assert deviation is not None  # at least two patients
    of_folds = [by_patient(fold.targets[target]) for fold in folds]
    means = [spread([score.dice for score in scores])[0] for scores in of_folds]
    empty = patient_means(scans, lambda scan: float(not scan.tumour_pixels))
    _, _, between_folds = spread(means)
    return {
        "patients": float(len(scores)),
        "folds": float(len(folds)),
        _MEAN: mean,
        _MEAN + LOW_SUFFIX: low,
        _MEAN + HIGH_SUFFIX: high,
        _MEAN + BASELINE_SUFFIX: float(np.mean(empty)),
        "patient_dice_median": median,
        "patient_dice_sd": deviation,
        "fold_dice_sd": between_folds or 0.0,
        "pooled_dice": pooled_dice(scores),
    }


def spread(values: Sequence[float]) -> tuple[float, float, float | None]:
    """Computes mean, median and standard deviation; the latter is `None` for a single value."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), float(np.median(values)), deviation
