"""Numbers over some patients from their scores; `None` where a number is not defined."""

from collections.abc import Callable, Sequence

import numpy as np

from components.shared.scoring.scores import (
    PatientScore,
    VolumeScore,
    calibration_curve,
    dice_of_counts,
)

Value = Callable[[VolumeScore], float | None]

Measure = Callable[[Sequence[VolumeScore]], float | None]


def mean(value: Value) -> Measure:
    """Returns the mean of a figure over the patients for whom it is defined."""
    return _over_defined(value, np.mean)


def median(value: Value) -> Measure:
    """Returns the median of a figure over the patients for whom it is defined."""
    return _over_defined(value, np.median)


def undefined(value: Value) -> Measure:
    """Returns the number of patients for whom a figure is not defined."""
    return lambda scores: float(len(scores) - len(_defined(value, scores)))


def pooled_dice(scores: Sequence[PatientScore]) -> float:
    """Dice of the pixels of all patients together."""
    return dice_of_counts(
        sum(score.true_positives for score in scores),
        sum(score.predicted_pixels for score in scores),
        sum(score.tumour_pixels for score in scores),
    )


def slice_dice(scores: Sequence[VolumeScore]) -> float:
    """Mean Dice of all slices."""
    return float(np.concatenate([score.slice_dice for score in scores]).mean())


def tumour_slice_dice(scores: Sequence[VolumeScore]) -> float | None:
    """Mean Dice of the slices with true tumour."""
    dice = np.concatenate([score.slice_dice for score in scores])
    tumour = np.concatenate([score.slice_has_tumour for score in scores])
    return float(dice[tumour].mean()) if tumour.any() else None


def calibration_error(scores: Sequence[VolumeScore]) -> float | None:
    """Average calibration error over the voxels inside the heads.

    Every bin counts alike (Neumann et al. 2018, https://arxiv.org/abs/1812.05720). Weighted by
    voxels, 97 of 100 of which are of a probability near 0, the error says nothing of tumours.
    """
    curve = calibration_curve(scores)
    gaps = [
        abs(probability - tumour) / voxels
        for probability, tumour, voxels in zip(
            curve.probability, curve.tumour, curve.voxels, strict=True
        )
        if voxels
    ]
    return float(np.mean(gaps)) if gaps else None


def brier_score(scores: Sequence[VolumeScore]) -> float | None:
    """Mean squared error of the probability over the same voxels."""
    curve = calibration_curve(scores)
    total = sum(curve.voxels)
    return curve.squared_error / total if total else None


def _over_defined(value: Value, summarize: Callable[[list[float]], np.floating]) -> Measure:
    def measure(scores: Sequence[VolumeScore]) -> float | None:
        defined = _defined(value, scores)
        return float(summarize(defined)) if defined else None

    return measure


def _defined(value: Value, scores: Sequence[VolumeScore]) -> list[float]:
    return [found for score in scores if (found := value(score)) is not None]
