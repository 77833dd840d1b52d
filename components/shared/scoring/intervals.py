"""Confidence interval of a mean over patients."""

from collections.abc import Sequence

import numpy as np
from scipy.special import expit, logit
from scipy.stats import t as student


def mean_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Returns the two-sided t interval of a mean, computed on the logit scale.

    Dice is bounded, and a few bad patients pull its mean down. A sample without them has too high
    a mean and too small a spread. On the logit scale the interval extends further to the far bound
    and never beyond one. With 5 to 50 patients of such a population, 95 % intervals cover 91 to
    94 %. Those of the percentile bootstrap cover 76 to 93, plain t intervals 87 to 93.
    `python -m tests.benchmarks.intervals` compares more.

    The standard error on the logit scale is that of the mean, s, by the delta method: the slope of
    logit at p is 1 / (p (1 - p)), so it is s / (p (1 - p)).

    Args:
        values: Two or more values within the bounds.
        confidence: Confidence of both ends together. One end alone, as a one-sided bound, has
            (1 + confidence) / 2.
        bounds: Range of a value: 0 to 1 for Dice, -1 to 1 for a difference.

    Returns:
        Both ends; they are equal if all values are.
    """
    low, high = bounds
    mean, error = float(np.mean(values)), standard_error(values)
    place = (mean - low) / (high - low)
    if error == 0 or not 0 < place < 1:
        return mean, mean
    reach = student.ppf((1 + confidence) / 2, len(values) - 1) * error / (high - low)
    ends = expit(logit(place) + np.array([-reach, reach]) / (place * (1 - place)))
    first, last = (low + (high - low) * ends).tolist()
    return first, last


def standard_error(values: Sequence[float]) -> float:
    """Returns the standard error of the mean of at least two values."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values)))
