"""Outliers among the volumes by robust z-scores."""

from collections.abc import Iterator

import numpy as np

from components.profile.measures import SLICE_SPACING, Measures, Names, Numbers
from components.shared.config import Record
from components.shared.scoring.robust import FARTHEST_SCORE, GRAY_UNIT, usual

_FEWEST_VOLUMES = 8  # fewer do not show the usual range
_SPACING_UNIT = 0.1  # of the median; FARTHEST_SCORE x this is a slice thicker by a third


class Outlier(Record):
    """A measure of a volume that lies far from those of the other volumes.

    Attributes:
        score: Robust z-score, negative if the value is below the usual range.
    """

    volume: str
    measure: str
    value: float
    usual_low: float
    usual_high: float
    score: float


def find_outliers(measures: Measures) -> list[Outlier]:
    """Finds all outliers, the most extreme first.

    The measures are the number of slices, the slice spacing (over volumes that have it), the
    tumour size (over volumes with tumour), and median and 99th percentile of each channel.
    """
    volumes, with_tumour = measures.volume, measures.tumour_pixels > 0
    size, sizes = measures.tumour_size(measures.in_mm)
    found = [
        *_of_one_measure("slices", measures.slices, volumes, 1.0),
        *_of_one_measure(size, sizes[with_tumour], volumes[with_tumour], 1.0),
    ]
    spacing = measures.spacing_mm[:, 0]
    if (known := np.isfinite(spacing)).any():
        unit = _SPACING_UNIT * float(np.median(spacing[known]))
        found += _of_one_measure(SLICE_SPACING, spacing[known], volumes[known], unit)
    for name, values in measures.intensities(measures.channels.names):
        found += _of_one_measure(name, values, volumes, GRAY_UNIT)
    return sorted(found, key=lambda outlier: (-abs(outlier.score), outlier.volume))


def _of_one_measure(
    name: str, values: Numbers, volumes: Names, least_unit: float
) -> Iterator[Outlier]:
    if len(values) < _FEWEST_VOLUMES:
        return
    center, unit = usual(values, least_unit)
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
