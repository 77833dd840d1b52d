"""Values of images and label maps: what is accepted, and how it is stored."""

from collections.abc import Mapping, Sequence

import numpy as np

from components.shared.dataset.volumes import LabelMap, Voxels
from components.shared.reading.axial import Array, AxialImage
from components.shared.reading.scans import BadScanError

_FRACTION = 1e-3  # of a label's value: scaled integers do not come out whole
_BELOW = 0.05  # of the range: interpolation leaves small values below the background
_DOMINANT = 0.5  # of the border: less is no background but tissue at the edge
_SHOWN = 5


def check_image(image: AxialImage, name: str) -> None:
    """Refuses an image without finite, varying values above its background.

    Raises:
        BadScanError: With the name of the image.
    """
    low, high = _range(image, name)
    if low == high:
        raise BadScanError(f"{name} is constant, all voxels are {low:g}")
    background = _background(image)
    if background is not None and background - low > _BELOW * (high - low):
        raise BadScanError(
            f"{name} has its background at {background:g} in a range from {low:g} to {high:g}; "
            "set the background to the lowest value (z-scores: normalize without it, or skip the "
            "normalization)"
        )


def stack_channels(images: Sequence[AxialImage]) -> Voxels:
    """Stores images side by side: as int16 where all are integers that fit, else as float32.

    Args:
        images: Checked images on one grid.

    Returns:
        slices x rows x columns x channels.
    """
    dtype = np.int16 if all(map(_fits_int16, images)) else np.float32
    stacked = np.empty((*images[0].voxels.shape, len(images)), dtype)
    for index, planes in enumerate(stacked):  # a slice at a time stays in the processor's cache
        for channel, image in enumerate(images):
            plane = image.voxels[index]
            planes[..., channel] = _values(plane, image) if image.is_scaled else plane
    return stacked


def label_map(image: AxialImage, labels: Mapping[str, int]) -> LabelMap:
    """Converts a label image to declared values.

    Args:
        image: Label image of any type.
        labels: Value of each label; 0 is the background.

    Raises:
        BadScanError: If a value is not whole or not declared.
    """
    _range(image, "label")
    found = np.empty(image.voxels.shape, np.uint8)
    known = np.zeros(256, np.bool_)
    known[[0, *labels.values()]] = True
    for index, plane in enumerate(image.voxels):
        values = _values(plane, image)
        whole = values if values.dtype.kind in "iu" else np.rint(values)
        if whole is not values and np.abs(values - whole).max() > _FRACTION:
            raise BadScanError(
                f"label has values that are not whole, e.g. {_odd(values, whole)}: was it "
                "interpolated?"
            )
        if whole.min() < 0 or whole.max() > 255 or not known[whole.astype(np.uint8)].all():
            raise BadScanError(_undeclared(image, labels))
        found[index] = whole
    return found


def _range(image: AxialImage, name: str) -> tuple[float, float]:
    ends = np.array([image.voxels.min(), image.voxels.max()], np.float64)
    low, high = sorted((ends * image.slope + image.intercept).tolist())
    # NaN, too, is not within the range of the stored type
    if not max(-low, high) <= float(np.finfo(np.float32).max):
        raise BadScanError(f"{name} has voxels that are NaN or infinite")
    return low, high


def _values(plane: Array, image: AxialImage) -> Array:
    if not image.is_scaled and plane.dtype.kind in "iu":
        return plane
    return plane.astype(np.float64) * image.slope + image.intercept


def _fits_int16(image: AxialImage) -> bool:
    if image.is_scaled or image.voxels.dtype.kind not in "iu":
        return False
    limits = np.iinfo(np.int16)
    return bool(image.voxels.min() >= limits.min and image.voxels.max() <= limits.max)


def _background(image: AxialImage) -> float | None:
    """The commonest value at the edges of the slices; `None` if none is dominant."""
    sides = (np.s_[:, 0], np.s_[:, -1], np.s_[:, :, 0], np.s_[:, :, -1])
    border = np.concatenate([image.voxels[side].ravel() for side in sides])
    values, counts = np.unique(border, return_counts=True)
    if counts.max() < _DOMINANT * border.size:
        return None
    return float(values[counts.argmax()]) * image.slope + image.intercept


def _odd(values: Array, whole: Array) -> str:
    return f"{values.ravel()[np.abs(values - whole).argmax()]:g}"


def _undeclared(image: AxialImage, labels: Mapping[str, int]) -> str:
    found = {int(value) for plane in image.voxels for value in np.unique(_values(plane, image))}
    others = sorted(found - {0, *labels.values()})
    shown = ", ".join(map(str, others[:_SHOWN])) + (", ..." if len(others) > _SHOWN else "")
    declared = ", ".join(f"{name}={value}" for name, value in labels.items())
    return f"label has the undeclared value {shown}; declared are {declared} (layout.labels)"
