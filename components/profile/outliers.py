"""Volumes that differ from the others, by robust z-scores."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from components.profile.measures import Choice, Measures, Numbers
from components.shared.config import Record
from components.shared.dataset.volumes import CHANNELS

# Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): a modified z-score beyond this is
# an outlier's.
FARTHEST_SCORE = 3.5
_NORMAL_MAD = 0.6745
_FEWEST_VOLUMES = 8  # below this a median says little about what is usual
_GREY_UNIT = 2.5  # FARTHEST_SCORE x this is 3 % of the grey scale: less is not seen


class Outlier(Record):
    """One measure of one volume that lies far from those of the others.

    Attributes:
        volume: The volume.
        measure: What is unusual.
        value: Its value.
        usual_low: Lower end of the usual range.
        usual_high: Upper end of the usual range.
        score: Robust z-score; its sign tells low from high.
    """

    volume: str
    measure: str
    value: float
    usual_low: float
    usual_high: float
    score: float


def find_outliers(measures: Measures) -> list[Outlier]:
    """All outliers, the most extreme first.

    Looked at are the number of slices, the tumour's size (as the side of a cube of that
    volume, without volumes that have none) and each channel's median and brightest intensity.
    """
    found = [
        outlier
        for name, values, chosen, least_unit in _looked_at(measures)
        for outlier in _of_one_measure(name, values[chosen], measures.volume[chosen], least_unit)
    ]
    return sorted(found, key=lambda outlier: (-abs(outlier.score), outlier.volume))


def _looked_at(
    measures: Measures,
) -> Iterator[tuple[str, Numbers, Choice, float]]:
    everyone, with_tumour = np.full(len(measures.volume), True), measures.tumour_pixels > 0
    yield "slices", measures.slices, everyone, 1.0
    yield "tumour size (side of a cube, pixels)", np.cbrt(measures.tumour_pixels), with_tumour, 1.0
    for index, channel in enumerate(CHANNELS):
        yield f"{channel}: median", measures.median_intensity[:, index], everyone, _GREY_UNIT
        yield (
            f"{channel}: 99th percentile",
            measures.bright_intensity[:, index],
            everyone,
            _GREY_UNIT,
        )


def _of_one_measure(
    name: str, values: Numbers, volumes: npt.NDArray[np.str_], least_unit: float
) -> Iterator[Outlier]:
    if len(values) < _FEWEST_VOLUMES:
        return
    centre, unit = float(np.median(values)), max(_unit(values), least_unit)
    scores = (values - centre) / unit
    for index in np.flatnonzero(np.abs(scores) > FARTHEST_SCORE):
        yield Outlier(
            volume=str(volumes[index]),
            measure=name,
            value=float(values[index]),
            usual_low=max(0.0, centre - FARTHEST_SCORE * unit),
            usual_high=centre + FARTHEST_SCORE * unit,
            score=float(scores[index]),
        )


def _unit(values: Numbers) -> float:
    """The spread of the bulk, in the unit of a standard deviation."""
    return float(np.median(np.abs(values - np.median(values)))) / _NORMAL_MAD
