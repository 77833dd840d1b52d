"""The slices of a volume that tell most about its prediction."""

from dataclasses import dataclass

import numpy as np

from components.shared.dataset.volumes import Mask, Volume, Voxels
from components.shared.report.overlay import draw_slice, largest_tumour_slice

_SLICES = 3  # drawn of each volume


@dataclass(frozen=True)
class Overlay:
    """One slice, drawn.

    Attributes:
        pixels: uint8, height x width x 3.
        caption: Which slice (counted from 1) and why this one.
    """

    pixels: Voxels
    caption: str


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
