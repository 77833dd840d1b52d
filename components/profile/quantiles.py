"""Five numbers that sum up many."""

from collections.abc import Sequence

import numpy as np

from components.profile.measures import Numbers
from components.shared.config import Record


class Quantiles(Record):
    """Minimum, quartiles and maximum."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float


def quantiles(values: Sequence[float] | Numbers) -> Quantiles | None:
    """Sums up values; `None` where there are none."""
    if len(values) == 0:
        return None
    return Quantiles.model_validate(
        dict(
            zip(
                Quantiles.model_fields,
                np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist(),
                strict=True,
            )
        )
    )
