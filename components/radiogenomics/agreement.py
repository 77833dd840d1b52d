"""Agreement of two raters on a number for each patient."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import f as fisher

from components.shared.config import Record


class Agreement(Record):
    """Intraclass correlation ICC(2,1) of several raters, with its 95 % interval.

    Two-way random effects, absolute agreement, a single rater: Shrout and Fleiss 1979; the
    interval by McGraw and Wong 1996.

    Attributes:
        patients: Number of patients that all raters have a value for.
        icc: `None` for fewer than three patients, like both ends of the interval.
    """

    patients: int
    icc: float | None = None
    low: float | None = None
    high: float | None = None


def measure_agreement(values: Sequence[Sequence[float]]) -> Agreement:
    """Computes the ICC(2,1) of values, patients x raters."""
    table = np.array(values, dtype=float)
    count = len(table)
    if count < 3:
        return Agreement(patients=count)
    raters = table.shape[1]
    between_patients = raters * table.mean(axis=1).var(ddof=1)
    between_raters = count * table.mean(axis=0).var(ddof=1)
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    error = (residual**2).sum() / ((count - 1) * (raters - 1))
    if between_raters + error < 1e-20:  # equal but for rounding
        return Agreement(patients=count, icc=1.0, low=1.0, high=1.0)
    spread = raters * between_raters + (raters * count - raters - count) * error
    icc = (between_patients - error) / (
        between_patients + (raters - 1) * error + raters * (between_raters - error) / count
    )
    freedom = _freedom(icc, between_raters, error, count, raters)
    above = fisher.ppf(0.975, count - 1, freedom)
    below = fisher.ppf(0.975, freedom, count - 1)
    low = count * (between_patients - above * error) / (above * spread + count * between_patients)
    high = count * (below * between_patients - error) / (spread + count * below * between_patients)
    return Agreement(patients=count, icc=float(icc), low=float(low), high=float(high))


def _freedom(icc: float, between_raters: float, error: float, count: int, raters: int) -> float:
    """Degrees of freedom of the raters' and the error's mean squares together."""
    ours = raters * icc * between_raters
    others = error * (count * (1 + (raters - 1) * icc) - raters * icc)
    both = ours**2 / (raters - 1) + others**2 / ((count - 1) * (raters - 1))
    return float((ours + others) ** 2 / both)
