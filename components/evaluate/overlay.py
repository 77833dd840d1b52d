"""Slices with the contours of truth and prediction."""

from dataclasses import dataclass
from typing import cast

import numpy as np
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from components.shared.scoring import Mask
from components.shared.volumes import FLAIR, Volume, Voxels

TRUTH_COLOUR = (46, 204, 64)  # green
PREDICTION_COLOUR = (240, 18, 190)  # magenta
_SLICES = 3  # drawn of each volume
_SIDE_PX = 384  # of the drawn slice's longer side: contours stay thin beside the anatomy


@dataclass(frozen=True)
class Overlay:
    """One slice, drawn.

    Attributes:
        pixels: uint8, height x width x 3.
        caption: Which slice (counted from 1) and why this one.
    """

    pixels: Voxels
    caption: str


def largest_tumour_slice(truth: Mask) -> int:
    """The slice (from 0) with most true tumour; the middle one where there is none."""
    areas = truth.sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(truth) // 2


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


def draw_overlays(volume: Volume, predicted: Mask) -> list[Overlay]:
    """Draws the slices of a volume that tell most: largest tumour, most missed, most false.

    A slice is drawn once though it may be two of these; other slices with much tumour make
    up for it.
    """
    return [
        Overlay(draw_slice(volume, predicted, index), f"slice {index + 1}: {reason}")
        for index, reason in _telling_slices(volume.mask > 0, predicted).items()
    ]


def _telling_slices(truth: Mask, predicted: Mask) -> dict[int, str]:
    reasons = {largest_tumour_slice(truth): "largest tumour area" if truth.any() else "middle"}
    missed, false = truth & ~predicted, predicted & ~truth
    for mask, what in ((missed, "most missed tumour"), (false, "most false positives")):
        pixels = mask.sum(axis=(1, 2))
        if pixels.any():
            index = int(pixels.argmax())
            text = f"{what} ({int(pixels[index]):,} px)"
            reasons[index] = f"{reasons[index]}, {text}" if index in reasons else text
    tumour = truth.sum(axis=(1, 2))
    for index in map(int, np.argsort(-tumour, kind="stable")):
        if len(reasons) < _SLICES and tumour[index]:
            reasons.setdefault(index, "much tumour")
    return reasons


def _brighten(flair: Voxels, index: int) -> Voxels:
    # one scale for the volume, so that its slices can be compared
    white = max(float(np.percentile(flair[:, ::4, ::4], 99.5)), 1.0)
    return np.asarray(np.clip(flair[index] * (255 / white), 0, 255), dtype=np.uint8)


def _drawn_size(shape: tuple[int, ...]) -> tuple[int, int]:
    height, width = shape
    scale = _SIDE_PX / max(shape)
    return round(width * scale), round(height * scale)


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
