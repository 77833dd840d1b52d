"""Intervals of a mean over patients."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap


def mean_interval(
    values: Sequence[float], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The two-sided percentile bootstrap interval of the mean of at least two values."""
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        batch=1000,  # bounds the memory for many patients
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
