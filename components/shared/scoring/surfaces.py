"""Distances between the surfaces of two masks in millimeters, weighted by area.

After Nikolov et al., arXiv:1809.04430, and their package `surface-distance`: where slices are
thicker than pixels are wide, a pixel of the surface stands for more area on one side than on
another.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import distance_transform_edt, find_objects

from components.shared.dataset.volumes import Mask

Numbers = npt.NDArray[np.float64]
SpacingMm = tuple[float, float, float]

_INSIDE = np.array([0, 1, 4, 7, 8]) / 8  # of a face whose 0 to 4 corners are inside
_INSIDE_DIAGONALLY = 2 / 8


@dataclass(frozen=True)
class SurfaceDistancesMm:
    """Distances between the surfaces of two masks in millimeters.

    Attributes:
        from_prediction: Distances from the pieces of the prediction's surface to the nearest of
            the truth's; infinite if there is none.
        from_truth: Distances in the other direction.
        prediction_areas: Area of each piece of the prediction's surface.
        truth_areas: Area of each piece of the true surface.
    """

    from_prediction: Numbers
    from_truth: Numbers
    prediction_areas: Numbers
    truth_areas: Numbers

    @property
    def hd95(self) -> float | None:
        """95th percentile Hausdorff distance, the larger of both directions.

        Within it lie 95 % of the area. `None` if prediction or truth is empty.
        """
        if not self._both:
            return None
        return max(
            _percentile_95(self.from_prediction, self.prediction_areas),
            _percentile_95(self.from_truth, self.truth_areas),
        )

    @property
    def mean(self) -> float | None:
        """Average symmetric surface distance (ASSD): the mean over the area of both surfaces.

        `None` if prediction or truth is empty.
        """
        return float(np.average(self._distances, weights=self._areas)) if self._both else None

    def within(self, tolerance_mm: float) -> float:
        """Surface Dice: the fraction of both areas within a tolerance of the other surface.

        It is 1 if both masks are empty.
        """
        if not self._distances.size:
            return 1.0
        return float(self._areas[self._distances <= tolerance_mm].sum() / self._areas.sum())

    @property
    def _both(self) -> bool:
        return bool(self.from_prediction.size and self.from_truth.size)

    @property
    def _distances(self) -> Numbers:
        return np.concatenate([self.from_prediction, self.from_truth])

    @property
    def _areas(self) -> Numbers:
        return np.concatenate([self.prediction_areas, self.truth_areas])


def surface_distances_mm(predicted: Mask, truth: Mask, spacing_mm: SpacingMm) -> SurfaceDistancesMm:
    """Measures every piece of two masks' surfaces against the other mask's surface.

    A surface lies halfway between the centers of voxels inside and outside. It has a piece in each
    cube of eight centers that it crosses.

    Args:
        predicted: Mask, slices x height x width.
        truth: Mask of the same shape.
        spacing_mm: Distance of slices, rows and columns.
    """
    boxes = find_objects((predicted | truth).view(np.uint8))
    around = boxes[0] if boxes else np.s_[:0, :0, :0]
    ours, theirs = (_cubes(mask[around]) for mask in (predicted, truth))
    ours_cross, theirs_cross = _crossed(ours), _crossed(theirs)
    steps = np.array(spacing_mm)
    return SurfaceDistancesMm(
        from_prediction=_nearest(ours_cross, theirs_cross, steps),
        from_truth=_nearest(theirs_cross, ours_cross, steps),
        prediction_areas=_areas(ours[ours_cross], steps),
        truth_areas=_areas(theirs[theirs_cross], steps),
    )


def _cubes(mask: Mask) -> Mask:
    return sliding_window_view(np.pad(mask, 1), (2, 2, 2))


def _crossed(cubes: Mask) -> Mask:
    corners = [cubes[..., z, y, x] for z, y, x in product((0, 1), repeat=3)]
    crossed: Mask = np.logical_or.reduce(corners) & ~np.logical_and.reduce(corners)
    return crossed


def _nearest(crossed: Mask, others: Mask, steps: Numbers) -> Numbers:
    if not others.any():
        return np.full(np.count_nonzero(crossed), np.inf)
    distances: Numbers = distance_transform_edt(~others, sampling=steps)[crossed]
    return distances


def _areas(cubes: Mask, steps: Numbers) -> Numbers:
    # By the divergence theorem, the area that a surface in a cube shows along an axis is the
    # difference of what is inside of the two faces across the axis.
    across = [np.moveaxis(cubes, axis, 1) for axis in (1, 2, 3)]
    shown = [_inside(faces[:, 1]) - _inside(faces[:, 0]) for faces in across]
    areas: Numbers = np.linalg.norm(np.stack(shown, axis=1) * (steps.prod() / steps), axis=1)
    return areas


def _inside(faces: Mask) -> Numbers:
    corners = faces.sum(axis=(1, 2))
    is_diagonal = (corners == 2) & (faces[:, 0, 0] == faces[:, 1, 1])
    return np.where(is_diagonal, _INSIDE_DIAGONALLY, _INSIDE[corners])


def _percentile_95(distances: Numbers, areas: Numbers) -> float:
    order = distances.argsort()
    below = areas[order].cumsum()
    place = np.searchsorted(below, 0.95 * below[-1])
    return float(distances[order][place])
