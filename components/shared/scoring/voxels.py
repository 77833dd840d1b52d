"""Figures that only voxels can tell: where the head is, how far two surfaces lie apart."""

import warnings

import numpy as np

from components.shared.dataset.volumes import FLAIR, Mask, Voxels


def inside_head(image: Voxels) -> Mask:
    """The voxels over which the calibration is measured.

    "Above 0" would keep nearly all: the background of real scans holds noise.

    Args:
        image: Slices x height x width x 3.

    Returns:
        Where FLAIR is brighter than a tenth of its 99th percentile in this volume.
    """
    flair = image[..., FLAIR]
    return np.asarray(flair > 0.1 * np.percentile(flair[:, ::4, ::4], 99))


def hausdorff_95(predicted: Mask, truth: Mask) -> float | None:
    """The 95th percentile Hausdorff distance of two masks, in pixels.

    The spacing of the data is unknown: a slice step counts as one pixel.

    Args:
        predicted: Slices x height x width.
        truth: The same shape.

    Returns:
        `None` if either is empty.
    """
    if not predicted.any() or not truth.any():
        return None
    # takes seconds to import: register needs it only where there is a champion to score
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    box = _bounding_box(predicted | truth)  # the same value, in a fraction of the time
    with warnings.catch_warnings():
        # MONAI 1.6 passes an argument that it has itself deprecated
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        distance = compute_hausdorff_distance(
            predicted[box][None, None],
            truth[box][None, None],
            include_background=True,
            percentile=95,
        )
    return float(distance)


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)
