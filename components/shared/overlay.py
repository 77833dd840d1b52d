"""A slice with the contours of tumour on it, the same in every report."""

from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from components.shared.volumes import FLAIR, Volume, Voxels

Mask = npt.NDArray[np.bool_]

TRUTH_COLOUR = (46, 204, 64)  # green
PREDICTION_COLOUR = (240, 18, 190)  # magenta
_SIDE_PX = 384  # of the drawn slice's longer side: contours stay thin beside the anatomy


def largest_tumour_slice(tumour: Mask) -> int:
    """The slice (from 0) with most tumour; the middle one where there is none."""
    areas = tumour.sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(tumour) // 2


def draw_slice(volume: Volume, predicted: Mask, index: int) -> Voxels:
    """Draws a slice of FLAIR, truth outlined in green, prediction in magenta.

    Returns:
        uint8, height x width x 3.
    """
    flair = _brighten(volume.image[..., FLAIR], index)
    size = _drawn_size(flair.shape)
    pixels = np.array(Image.fromarray(flair).resize(size, Image.Resampling.BICUBIC))
    drawn = np.repeat(pixels[..., None], 3, axis=-1)
    drawn[_contour(volume.mask[index] > 0, size, inside=False)] = TRUTH_COLOUR
    drawn[_contour(predicted[index], size, inside=True)] = PREDICTION_COLOUR
    return drawn


def _brighten(flair: Voxels, index: int) -> Voxels:
    # one scale for the volume, so that its slices can be compared
    white = max(float(np.percentile(flair[:, ::4, ::4], 99.5)), 1.0)
    return np.asarray(np.clip(flair[index] * (255 / white), 0, 255), dtype=np.uint8)


def _drawn_size(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    scale = _SIDE_PX / max(shape)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _contour(mask: Mask, size: tuple[int, int], *, inside: bool) -> Mask:
    # truth is drawn just outside its edge and prediction just inside, so that neither hides
    # the other where they agree
    smooth = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    area = np.asarray(smooth) >= 128
    line = (
        area & ~binary_erosion(area, iterations=2)
        if inside
        else binary_dilation(area, iterations=2) & ~area
    )
    return cast(Mask, line)
