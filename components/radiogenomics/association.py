"""Association of shape features with genomic clusters."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import MonteCarloMethod, fisher_exact
from scipy.stats.contingency import crosstab

from components.shared.config import Record

_TABLES = 99_999  # random ones, for tables other than 2 x 2

Value = float | str


class Association(Record):
    """Fisher's exact test of a feature against the clusters of a subtype.

    Attributes:
        patients: Number of patients with a value of both.
        p: `None` if there is nothing to compare: one cluster only, or one value only.
        corrected: p after Bonferroni's correction for all tests of these masks.
    """

    feature: str
    subtype: str
    patients: int
    p: float | None
    corrected: float | None = None


def find_associations(
    features: Mapping[str, Mapping[str, float]], subtypes: Mapping[str, Mapping[str, Value]]
) -> list[Association]:
    """Tests every feature against every subtype.

    A feature is split at the median of the patients in the test; both are then independent of
    each other under the null hypothesis.

    Args:
        features: Values of patients by feature.
        subtypes: Clusters of patients by subtype.
    """
    found = [
        _test(feature, values, subtype, clusters)
        for feature, values in features.items()
        for subtype, clusters in subtypes.items()
    ]
    tests = sum(one.p is not None for one in found)
    return [
        one if one.p is None else one.model_copy(update={"corrected": min(1.0, tests * one.p)})
        for one in found
    ]


def _test(
    feature: str, values: Mapping[str, float], subtype: str, clusters: Mapping[str, Value]
) -> Association:
    patients = sorted(values.keys() & clusters.keys())
    p = _fisher([values[name] for name in patients], [str(clusters[name]) for name in patients])
    return Association(feature=feature, subtype=subtype, patients=len(patients), p=p)


def _fisher(values: Sequence[float], clusters: Sequence[str]) -> float | None:
    if not values:
        return None
    is_high = np.array(values) > np.median(values)
    table = crosstab(clusters, is_high).count
    if min(table.shape) < 2:
        return None
    method = MonteCarloMethod(n_resamples=_TABLES, rng=np.random.default_rng(0))
    found = fisher_exact(table, method=None if table.shape == (2, 2) else method)
    return float(np.asarray(found.pvalue).item())  # SciPy 1.17 returns an array for few patients
