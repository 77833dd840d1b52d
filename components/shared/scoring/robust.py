"""Robust z-scores, which a few outliers do not change.

Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

FARTHEST_SCORE = 3.5  # a modified z-score beyond this marks an outlier
GRAY_UNIT = 2.5  # FARTHEST_SCORE x this is 3 % of the gray scale: less is invisible
_NORMAL_MAD = 0.6745  # median absolute deviation of the standard normal distribution


class Usual(NamedTuple):
    """Center and spread of a measure.

    Attributes:
        unit: Difference from the center that has a score of 1.
    """

    center: float
    unit: float


def usual(values: Numbers, least_unit: float) -> Usual:
    """Computes median and normalized median absolute deviation.

    Args:
        values: Values of a measure, at least one.
        least_unit: Smallest unit: smaller differences are irrelevant.
    """
    center = float(np.median(values))
    deviation = float(np.median(np.abs(values - center)))
    return Usual(center, max(deviation / _NORMAL_MAD, least_unit))
