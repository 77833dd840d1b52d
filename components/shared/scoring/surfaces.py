"""Distances between the surfaces of two masks in millimeters, weighted by area.

After Nikolov et al., arXiv:1809.04430, and their package `surface-distance`: where slices are
thicker than pixels are wide, a pixel of the surface stands for more area on one side than on
another.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from components.shared.dataset.volumes import Mask

Numbers = npt.NDArray[np.float64]
SpacingMm = tuple[float, float, float]

_INSIDE = np.array([0, 1, 4, 7, 8]) / 8  # of a face whose 0 to 4 corners are inside
_INSIDE_DIAGONALLY = 2 / 8


@dataclass(frozen=True)
class Surface:
    """The surface of a mask, in a piece for each cube of eight voxel centers that it crosses.

    Attributes:
        places: Center of each cube in millimeters, pieces x 3.
        areas: Area of each piece in square millimeters.
    """

    places: Numbers
    areas: Numbers


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

    Args:
        predicted: Mask, slices x height x width.
        truth: Mask of the same shape.
        spacing_mm: Distance of slices, rows and columns.
    """
    ours, theirs = find_surface(predicted, spacing_mm), find_surface(truth, spacing_mm)
    return SurfaceDistancesMm(
        from_prediction=_nearest(ours.places, theirs.places),
        from_truth=_nearest(theirs.places, ours.places),
        prediction_areas=ours.areas,
        truth_areas=theirs.areas,
    )


def find_surface(mask: Mask, spacing_mm: SpacingMm) -> Surface:
    """Finds the surface of a mask, halfway between centers inside and outside."""
    steps = np.array(spacing_mm)
    boxes = find_objects(mask.view(np.uint8))
    if not boxes:
        return Surface(np.empty((0, 3)), np.empty(0))
    cubes = sliding_window_view(np.pad(mask[boxes[0]], 1), (2, 2, 2))
    inside = cubes.sum(axis=(3, 4, 5), dtype=np.uint8)
    crossed = (inside > 0) & (inside < 8)
    corner = np.array([side.start - 0.5 for side in boxes[0]])
    return Surface((np.argwhere(crossed) + corner) * steps, _areas(cubes[crossed], steps))


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
    return float(distances[order][min(place, len(order) - 1)])


def _nearest(places: Numbers, others: Numbers) -> Numbers:
    if not len(others):
        return np.full(len(places), np.inf)
    distances: Numbers = KDTree(others).query(places)[0]
    return distances
