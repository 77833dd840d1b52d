"""Slices with tumour outlines, drawn alike in every report."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from components.shared.dataset.gray import black_and_white
from components.shared.dataset.volumes import Mask, Pixels, Volume, Voxels
from components.shared.report.page import Gallery, Picture, photograph

TRUTH_COLOR = (46, 204, 64)
PREDICTION_COLOR = (240, 18, 190)
_SIDE_PX = 384  # outlines stay thin compared with the anatomy
_LINE_PX = 2
_SLICES = 3  # of a volume in a gallery


class Outline(NamedTuple):
    """Colors of a target's outlines, with their names."""

    truth: tuple[int, int, int]
    prediction: tuple[int, int, int]
    truth_name: str
    prediction_name: str


OUTLINES = (
    Outline(TRUTH_COLOR, PREDICTION_COLOR, "green", "magenta"),
    Outline((255, 220, 0), (0, 210, 255), "yellow", "cyan"),
    Outline((255, 120, 20), (90, 120, 255), "orange", "blue"),
    Outline((255, 255, 255), (230, 30, 40), "white", "red"),
)
"""Outlines of the targets in their order; further targets are not drawn."""


def largest_tumour_slice(tumour: Mask) -> int:
    """Returns the index of the slice with most tumour; the middle slice if there is none."""
    areas = tumour.sum(axis=(1, 2))
    return int(areas.argmax()) if areas.any() else len(tumour) // 2


def draw_slice(
    volume: Volume, predicted: Mask | None, index: int, side_px: int = _SIDE_PX
) -> Pixels:
    """Draws a slice with the true and the predicted outline of each target, see `OUTLINES`.

    The reference channel is shown. Where the spacing is known, proportions are those of the body.

    Args:
        volume: Voxels with the true masks.
        predicted: Mask of each target, targets x slices x height x width; `None` draws no
            prediction.
        index: Index of the slice, counted from 0.
        side_px: Longer side of the drawing in pixels.

    Returns:
        uint8, height x width x 3.
    """
    drawn = draw_channel(volume, volume.channels.reference_index, index, side_px)
    # the first target is drawn last: where outlines coincide, it is the one that is seen
    for target, outline in reversed(list(enumerate(OUTLINES[: len(volume.targets)]))):
        drawn[_contour(volume.truth[target, index], drawn.shape, inside=False)] = outline.truth
        if predicted is not None:
            drawn[_contour(predicted[target, index], drawn.shape, inside=True)] = outline.prediction
    return drawn


def draw_channel(volume: Volume, channel: int, index: int, side_px: int) -> Pixels:
    """Draws a slice of one channel in gray; arguments and result as for `draw_slice`."""
    pixels = _window(volume.image[..., channel], index)
    spacing = volume.geometry.spacing_mm[1:] if volume.geometry else (1.0, 1.0)
    sides = [count * step for count, step in zip(pixels.shape, spacing, strict=True)]
    scale = side_px / max(sides)
    height, width = (max(1, round(side * scale)) for side in sides)
    drawn = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    return np.repeat(drawn[..., None], 3, axis=-1)


def draw_overlays(volume: Volume, predicted: Mask) -> Gallery:
    """Draws the slices with the largest tumour, most missed tumour and most false positives.

    Tumour is the first target. No slice is drawn twice. If fewer than three are left, slices with
    much tumour are added.
    """
    pictures = []
    for index, reason in _informative_slices(volume.truth[0], predicted[0]).items():
        source = photograph(draw_slice(volume, predicted, index))
        pictures.append(Picture(source, f"slice {index + 1}: {reason}", width_px=320))
    return Gallery(pictures)


def _window(channel: Voxels, index: int) -> Pixels:
    # one scale for the volume, so that its slices can be compared
    black, white = 0.0, max(float(np.percentile(channel[:, ::4, ::4], 99.5)), 1.0)
    if channel.dtype != np.uint8:
        black, white = black_and_white(channel)
    gray = (channel[index] - black) * (255 / (white - black))
    return np.asarray(np.clip(gray, 0, 255), dtype=np.uint8)


def _contour(mask: Mask, shape: tuple[int, ...], *, inside: bool) -> Mask:
    # truth is drawn just outside its edge and prediction just inside, so that neither hides
    # the other where they agree
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    smooth = np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))
    area = np.pad(smooth >= 128, _LINE_PX)  # padded: an area ends where the picture does
    size = 2 * _LINE_PX + 1
    moved = Image.fromarray(area.astype(np.uint8)).filter(
        ImageFilter.MinFilter(size) if inside else ImageFilter.MaxFilter(size)
    )
    line: Mask = area != np.asarray(moved, dtype=bool)
    return line[_LINE_PX:-_LINE_PX, _LINE_PX:-_LINE_PX]


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
