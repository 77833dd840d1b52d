"""Outliers among the volumes by robust z-scores."""

from collections.abc import Iterator

import numpy as np

from components.profile.measures import TUMOUR_SIZE, Choice, Measures, Names, Numbers
from components.shared.config import Record

# Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): a modified z-score beyond this
# marks an outlier.
FARTHEST_SCORE = 3.5
_NORMAL_MAD = 0.6745
_FEWEST_VOLUMES = 8  # fewer do not show the usual range
_GRAY_UNIT = 2.5  # FARTHEST_SCORE x this is 3 % of the gray scale: less is invisible


class Outlier(Record):
    """A measure of a volume that lies far from those of the other volumes.

    Attributes:
        volume: Name of the volume.
        measure: Name of the measure.
        value: Value of the measure.
        usual_low: Lower end of the usual range.
        usual_high: Upper end of the usual range.
        score: Robust z-score, negative if the value is low.
    """

    volume: str
    measure: str
    value: float
    usual_low: float
    usual_high: float
    score: float


def find_outliers(measures: Measures) -> list[Outlier]:
    """Finds all outliers, the most extreme first.

    The measures are the number of slices, the tumour size (over volumes with tumour), and
    median and 99th percentile of each channel.
    """
    found = [
        outlier
        for name, values, chosen, least_unit in _compared(measures)
        for outlier in _of_one_measure(name, values[chosen], measures.volume[chosen], least_unit)
    ]
    return sorted(found, key=lambda outlier: (-abs(outlier.score), outlier.volume))


def _compared(measures: Measures) -> Iterator[tuple[str, Numbers, Choice, float]]:
    everyone, with_tumour = np.full(len(measures.volume), True), measures.tumour_pixels > 0
    yield "slices", measures.slices, everyone, 1.0
    yield TUMOUR_SIZE, measures.tumour_size, with_tumour, 1.0
    for name, values in measures.intensities():
        yield name, values, everyone, _GRAY_UNIT


def _of_one_measure(
    name: str, values: Numbers, volumes: Names, least_unit: float
) -> Iterator[Outlier]:
    if len(values) < _FEWEST_VOLUMES:
        return
    center, unit = float(np.median(values)), max(_unit(values), least_unit)
    scores = (values - center) / unit
    for index in np.flatnonzero(np.abs(scores) > FARTHEST_SCORE):
        yield Outlier(
            volume=str(volumes[index]),
            measure=name,
            value=float(values[index]),
            usual_low=max(0.0, center - FARTHEST_SCORE * unit),
            usual_high=center + FARTHEST_SCORE * unit,
            score=float(scores[index]),
        )


def _unit(values: Numbers) -> float:
    """Computes the scaled median absolute deviation, in units of a standard deviation."""
    return float(np.median(np.abs(values - np.median(values)))) / _NORMAL_MAD
