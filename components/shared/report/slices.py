"""The most informative slices of a predicted volume."""

import numpy as np

from components.shared.dataset.volumes import Mask, Volume
from components.shared.report.overlay import draw_slice, largest_tumour_slice
from components.shared.report.page import Gallery, Picture, photograph

_SLICES = 3  # per volume


def draw_overlays(volume: Volume, predicted: Mask) -> Gallery:
    """Draws the slices with the largest tumour, most missed tumour and most false positives.

    No slice is drawn twice. If fewer than three are left, slices with much tumour are added.
    """
    pictures = []
    for index, reason in _informative_slices(volume.mask > 0, predicted).items():
        source = photograph(draw_slice(volume, predicted, index))
        pictures.append(Picture(source, f"slice {index + 1}: {reason}", width_px=320))
    return Gallery(pictures)


def _informative_slices(truth: Mask, predicted: Mask) -> dict[int, str]:
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
