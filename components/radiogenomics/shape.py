"""Shape features of a tumour, after Mazurowski et al. 2017 and Buda et al. 2019."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from scipy.ndimage import find_objects, label, uniform_filter1d
from scipy.spatial import ConvexHull, QhullError

from components.shared.dataset.volumes import Mask

Numbers = npt.NDArray[np.float64]
Points = npt.NDArray[np.complex128]

FEATURES: Mapping[str, str] = {
    "angular_sd": "angular standard deviation",
    "ellipsoid_ratio": "bounding ellipsoid volume ratio",
    "margin_fluctuation": "margin fluctuation",
}

_POINTS = 1000  # of an outline, at equal distances: finer than the pixels of a slice
_BINS = 10  # of equal angles
_SMOOTHED = 0.1  # of the perimeter
_TOLERANCE = 1e-3  # of the ellipsoid's Mahalanobis distances


def measure_shape(
    mask: Mask, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
) -> dict[str, float | None]:
    """Measures the largest connected part of a tumour.

    Angular standard deviation and margin fluctuation are those of the outline in the slice with
    the largest area. All features are without unit, and do not depend on the tumour's size.

    Args:
        mask: bool, slices x height x width.
        spacing_mm: Distance of slices, rows and columns. Where it is unknown, pixels count as
            square; the distance of slices changes no feature.

    Returns:
        Value of each of `FEATURES`; `None` where it is undefined: of an empty mask, and the
        ellipsoid ratio of a tumour in one plane.
    """
    tumour = _largest_part(mask)
    if not tumour.any():
        return dict.fromkeys(FEATURES)
    plane = tumour[tumour.sum(axis=(1, 2)).argmax()]
    radii, angles = _radii(_outline(plane, *spacing_mm[1:]))
    return {
        "angular_sd": _angular_sd(radii, angles),
        "ellipsoid_ratio": _ellipsoid_ratio(tumour),
        "margin_fluctuation": _margin_fluctuation(radii),
    }


def _largest_part(mask: Mask) -> Mask:
    parts, _ = label(mask)
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    largest = int(sizes.argmax()) + 1
    found = find_objects(parts)
    part: Mask = parts[found[largest - 1]] == largest if found else mask
    return part


def _outline(plane: Mask, row_mm: float, column_mm: float) -> Points:
    """The longest outline halfway between pixels inside and outside, closed, x + iy."""
    lines = contour_generator(z=np.pad(plane, 1).astype(float)).lines(0.5)
    outlines = [line[:, 0] * column_mm + 1j * line[:, 1] * row_mm for line in map(np.array, lines)]
    return max(outlines, key=lambda points: abs(_areas(points).sum()))


def _areas(points: Points) -> Numbers:
    """Signed areas of the triangles of the origin and two neighbors each."""
    return np.imag(points[:-1].conj() * points[1:]) / 2


def _radii(outline: Points) -> tuple[Numbers, Numbers]:
    """Distances from the centroid, with a mean of 1, and angles of equidistant points."""
    places = np.append(0, np.abs(np.diff(outline)).cumsum())
    points = np.interp(np.linspace(0, places[-1], _POINTS, endpoint=False), places, outline)
    areas = _areas(outline)
    centroid = (areas * (outline[:-1] + outline[1:])).sum() / (3 * areas.sum())
    distances = np.abs(points - centroid)
    return distances / distances.mean(), np.angle(points - centroid)


def _angular_sd(radii: Numbers, angles: Numbers) -> float:
    bins = ((angles / (2 * np.pi) + 0.5) * _BINS).astype(int) % _BINS
    return float(np.mean([radii[bins == each].std() for each in np.unique(bins)]))


def _margin_fluctuation(radii: Numbers) -> float:
    smooth = uniform_filter1d(radii, int(_SMOOTHED * _POINTS), mode="wrap")
    return float((radii - smooth).std())


def _ellipsoid_ratio(tumour: Mask) -> float | None:
    """Volume over that of the smallest ellipsoid around the centers of all voxels.

    The ratio of two volumes is the same in voxels and in millimeters, as is the ellipsoid. With
    the corners of voxels in place of centers it would depend much on the thickness of slices.
    Of a few voxels it may exceed 1.
    """
    centers = np.argwhere(tumour).astype(float)
    try:
        ellipsoid = _ellipsoid_volume(centers[ConvexHull(centers).vertices])
    except QhullError:  # in one plane
        return None
    return len(centers) / ellipsoid


def _ellipsoid_volume(points: Numbers) -> float:
    """Volume of the smallest ellipsoid around points, n x 3, by Khachiyan's algorithm."""
    count, axes = points.shape
    lifted = np.column_stack([points, np.ones(count)])
    weights = np.full(count, 1 / count)
    while True:
        inverse = np.linalg.inv(lifted.T * weights @ lifted)
        distances = ((lifted @ inverse) * lifted).sum(axis=1)
        farthest, largest = distances.argmax(), distances.max()
        if largest <= (1 + _TOLERANCE) * (axes + 1):
            break
        step = (largest - axes - 1) / ((axes + 1) * (largest - 1))
        weights *= 1 - step
        weights[farthest] += step
    # with the lifted coordinate, the squared distance from the weighted mean is one less
    spread = np.cov(points.T, aweights=weights, ddof=0)
    return float(4 / 3 * np.pi * np.sqrt(np.linalg.det(spread) * (largest - 1) ** axes))
