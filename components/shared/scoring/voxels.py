"""Figures from voxels: the head's region, and distances between surfaces."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, find_objects
from scipy.spatial import KDTree

from components.shared.dataset.gray import gray_levels
from components.shared.dataset.volumes import Mask, Voxels


def inside_head(channel: Voxels) -> Mask:
    """Returns the voxels over which the calibration is measured.

    "Above 0" would keep nearly all: the background of real scans holds noise.

    Args:
        channel: Reference channel of a volume, slices x height x width.

    Returns:
        Mask of voxels with a gray level above a tenth of the volume's 99th percentile.
    """
    gray = gray_levels(channel[..., None])[..., 0]
    return np.asarray(gray > 0.1 * np.percentile(gray[:, ::4, ::4], 99))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances between the surfaces of two masks in pixels.

    The surface of a mask is its pixels with one of their six neighbors outside it. The spacing
    of the data is unknown: a slice step counts as one pixel.

    Attributes:
        from_prediction: Distances from surface pixels of the prediction to the nearest of the
            truth; infinite if there is none.
        from_truth: Distances in the other direction.
    """

    from_prediction: npt.NDArray[np.float64]
    from_truth: npt.NDArray[np.float64]

    @property
    def hd95(self) -> float | None:
        """95th percentile Hausdorff distance, the larger of both directions.

        `None` if prediction or truth is empty.
        """
        if not (self.from_prediction.size and self.from_truth.size):
            return None
        return max(
            float(np.percentile(self.from_prediction, 95)),
            float(np.percentile(self.from_truth, 95)),
        )

    def within(self, tolerance_pixels: float) -> float:
        """Surface Dice: the fraction of both surfaces within a tolerance of the other.

        Nikolov et al., arXiv:1809.04430, with pixels counted in place of areas. It is 1 if both
        masks are empty.
        """
        distances = np.concatenate([self.from_prediction, self.from_truth])
        return float(np.mean(distances <= tolerance_pixels)) if distances.size else 1.0


def surface_distances(predicted: Mask, truth: Mask) -> SurfaceDistances:
    """Measures every surface pixel of two masks against the other mask's surface.

    Args:
        predicted: Mask, slices x height x width.
        truth: Mask of the same shape.
    """
    ours, theirs = _surface(predicted), _surface(truth)
    return SurfaceDistances(_nearest(ours, theirs), _nearest(theirs, ours))


def _surface(mask: Mask) -> npt.NDArray[np.intp]:
    """Returns the indices of the surface's pixels, pixels x axes."""
    boxes = find_objects(mask.view(np.uint8))  # one around the mask: less to look at
    if not boxes:
        return np.empty((0, mask.ndim), np.intp)
    inside = mask[boxes[0]]
    corner = np.array([side.start for side in boxes[0]])
    places: npt.NDArray[np.intp] = np.argwhere(inside & ~binary_erosion(inside)) + corner
    return places


def _nearest(places: npt.NDArray[np.intp], others: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
    if not len(others):
        return np.full(len(places), np.inf)
    distances: npt.NDArray[np.float64] = KDTree(others).query(places)[0]
    return distances
