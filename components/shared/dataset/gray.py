"""Gray levels of images on any scale."""

from typing import cast

import numpy as np
import numpy.typing as npt

from components.shared.dataset.volumes import Voxels

# The network's preprocessing does the same with torch (components.shared.model.preparation).
HISTOGRAM_STRIDE = 4  # every fourth row and column
BINS = 4096
WHITE_FRACTION = 0.999  # of the voxels: what is brighter, e.g. vessels, does not set the scale


def gray_levels(image: Voxels) -> npt.NDArray[np.uint8 | np.float32]:
    """Maps each channel to gray levels from 0 to 255.

    Args:
        image: slices x height x width x channels; uint8 is returned as it is.

    Returns:
        uint8 or float32 of the same shape. 0 is the channel's lowest value, 255 its 99.9th
        percentile and all above.
    """
    if image.dtype == np.uint8:
        return cast(npt.NDArray[np.uint8], image)
    levels = np.empty(image.shape, np.float32)
    for channel in range(image.shape[-1]):
        values = image[..., channel]
        levels[..., channel] = to_levels(values, *black_and_white(values))
    return levels


def to_levels(values: Voxels, black: float, white: float) -> npt.NDArray[np.float32]:
    """Maps values of one channel to gray levels, given the values of 0 and 255."""
    scale = np.float32(255 / (white - black))
    levels: npt.NDArray[np.float32] = (values - np.float32(black)) * scale
    return np.minimum(levels, np.float32(255))


def black_and_white(channel: Voxels) -> tuple[float, float]:
    """Returns the values of gray levels 0 and 255 of one channel, slices x height x width."""
    low, high = float(channel.min()), float(channel.max())
    if low == high:
        return low, low + 1
    sample = channel[:, ::HISTOGRAM_STRIDE, ::HISTOGRAM_STRIDE].ravel().astype(np.float32)
    width = np.float32((high - low) / BINS)
    places = np.minimum((sample - np.float32(low)) / width, BINS - 1).astype(np.int64)
    below = np.bincount(places, minlength=BINS).cumsum()
    edge = int(np.searchsorted(below, WHITE_FRACTION * below[-1])) + 1
    return low, low + edge * float(width)
