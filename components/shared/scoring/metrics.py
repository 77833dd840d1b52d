"""Every number over some patients: what it is called, what it means, how it is computed."""

from collections.abc import Sequence

import numpy as np

from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.scores import (
    BINS,
    Reliability,
    VolumeScore,
    calibration_curve,
    dice_of_counts,
    empty_score,
)

DEFINITIONS = {
    "patients": "Patients scored.",
    "patient_dice_mean": "Dice of a patient's whole volume, mean over patients.",
    "patient_dice_mean_ci_low": "Lower end of its 95 % bootstrap interval over patients.",
    "patient_dice_mean_ci_high": "Upper end of the same interval.",
    "patient_dice_median": "Dice of a patient's whole volume, median over patients.",
    "pooled_dice": "Dice of the pixels of all patients together; large tumours weigh most.",
    "tumour_slice_dice_mean": "Dice of a single slice, mean over the slices with true tumour.",
    "slice_dice_mean": "Dice of a single slice, mean over all slices; an empty slice left empty "
    "counts 1, one with any false positive 0.",
    "precision_mean": "True positives / predicted pixels, mean over patients.",
    "precision_undefined": "Patients for whom nothing was predicted: not in the mean.",
    "recall_mean": "True positives / true tumour pixels, mean over patients.",
    "recall_undefined": "Patients without tumour: not in the mean.",
    "hd95_mean": "95th percentile Hausdorff distance in pixels, mean over patients.",
    "hd95_median": "The same distance, median over patients.",
    "hd95_undefined": "Patients with an empty prediction or without tumour: in neither figure.",
    "false_positive_pixels_mean": "Predicted pixels outside the tumour, mean over patients.",
    "calibration_error": "Expected calibration error over the voxels inside the heads: "
    f"|mean probability - share of tumour|, mean over {BINS} bins weighted by voxels.",
    "brier_score": "(probability - truth) squared, mean over the same voxels.",
}
"""What each number of `aggregate` means, in words."""

HEADLINE = ("patient_dice_mean", "patient_dice_median", "pooled_dice")
"""By what people sort lists of runs."""

# those that mean something for a prediction without any pixel
BASELINED = (
    "patient_dice_mean",
    "patient_dice_median",
    "pooled_dice",
    "tumour_slice_dice_mean",
    "slice_dice_mean",
    "calibration_error",
    "brier_score",
)

BASELINE_SUFFIX = "_empty_baseline"


def aggregate(
    scores: Sequence[VolumeScore], resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """All numbers over some patients; `DEFINITIONS` says what each means.

    Those of `BASELINED` come a second time as `<name>_empty_baseline`: what an all-empty
    prediction scores on the same patients. A number that is not defined (a mean over
    nothing, an interval of fewer than two patients) is left out; none is NaN.

    Args:
        scores: At least one.
        resamples: Of the bootstrap over patients.
        seed: Of the bootstrap.
    """
    empty = _measure([empty_score(score) for score in scores])
    baseline = {name + BASELINE_SUFFIX: empty[name] for name in BASELINED if name in empty}
    return _measure(scores) | _interval(scores, resamples, seed) | baseline


def _measure(scores: Sequence[VolumeScore]) -> dict[str, float]:
    dice = [score.dice for score in scores]
    found = {
        "patients": float(len(scores)),
        "patient_dice_mean": float(np.mean(dice)),
        "patient_dice_median": float(np.median(dice)),
        "pooled_dice": dice_of_counts(
            sum(score.true_positives for score in scores),
            sum(score.predicted_pixels for score in scores),
            sum(score.tumour_pixels for score in scores),
        ),
        "false_positive_pixels_mean": float(
            np.mean([score.false_positive_pixels for score in scores])
        ),
    }
    found |= _slice_measures(scores)
    for name in ("precision", "recall", "hd95"):
        found |= _where_defined(name, [getattr(score, name) for score in scores])
    return found | _calibration_measures(calibration_curve(scores))


def _slice_measures(scores: Sequence[VolumeScore]) -> dict[str, float]:
    dice = np.concatenate([score.slice_dice for score in scores])
    tumour = np.concatenate([score.slice_has_tumour for score in scores])
    found = {"slice_dice_mean": float(dice.mean())}
    if tumour.any():
        found["tumour_slice_dice_mean"] = float(dice[tumour].mean())
    return found


def _where_defined(name: str, values: Sequence[float | None]) -> dict[str, float]:
    defined = [value for value in values if value is not None]
    found = {f"{name}_undefined": float(len(values) - len(defined))}
    if defined:
        found[f"{name}_mean"] = float(np.mean(defined))
    if defined and name == "hd95":
        found["hd95_median"] = float(np.median(defined))
    return found


def _calibration_measures(curve: Reliability) -> dict[str, float]:
    total = sum(curve.voxels)
    if not total:
        return {}
    gaps = np.abs(np.subtract(curve.probability, curve.tumour))  # already weighted by voxels
    return {
        "calibration_error": float(gaps.sum() / total),
        "brier_score": curve.squared_error / total,
    }


def _interval(scores: Sequence[VolumeScore], resamples: int, seed: int) -> dict[str, float]:
    if len(scores) < 2:
        return {}
    low, high = mean_interval([score.dice for score in scores], 0.95, resamples, seed)
    return {"patient_dice_mean_ci_low": low, "patient_dice_mean_ci_high": high}
