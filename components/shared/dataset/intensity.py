"""Gray levels of a channel as a data set's manifest has them."""

import numpy as np
import numpy.typing as npt

from components.shared.dataset.gray import black_and_white, to_levels
from components.shared.dataset.manifest import ChannelIntensity
from components.shared.dataset.volumes import Voxels

SAMPLED = np.s_[:, ::4, ::4]  # rows and columns: percentiles move by less than one gray value
_DIGITS = 6  # of a gray level's value: ids must not depend on the processor's rounding


def channel_intensity(channel: Voxels) -> ChannelIntensity:
    """Computes the gray levels of one channel, slices x height x width."""
    black, white = 0.0, 255.0
    sample = channel[SAMPLED]
    if channel.dtype != np.uint8:
        black, white = black_and_white(channel)
        sample = np.rint(to_levels(sample, black, white)).astype(np.uint8)
    histogram = np.bincount(sample.ravel(), minlength=256)
    total = int((histogram * np.arange(256)).sum())
    return ChannelIntensity(
        mean=round(total / int(histogram.sum()), 2),
        p1=_percentile(histogram, 1),
        p50=_percentile(histogram, 50),
        p99=_percentile(histogram, 99),
        black=float(f"{black:.{_DIGITS}g}"),
        white=float(f"{white:.{_DIGITS}g}"),
    )


def _percentile(histogram: npt.NDArray[np.intp], percent: int) -> int:
    """The lowest gray value that at least `percent` % of the voxels do not exceed."""
    return int(np.searchsorted(histogram.cumsum() * 100, percent * int(histogram.sum())))
