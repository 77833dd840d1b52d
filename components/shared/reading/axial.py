"""Images of any orientation as axial LPS arrays: turned by flips and transpositions alone."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.dataset.geometry import Affine, Geometry
from components.shared.dataset.volumes import size_text
from components.shared.reading.scans import BadScanError

Array = npt.NDArray[Any]

_SHEAR = 1e-3  # cosine of the angle between two axes; rounding in files stays below 1e-5
_MOST_STRETCH = 3.0  # ratio of a row's to a column's spacing; sagittal scans have more
_TOLERANCE = 0.1  # of the smallest spacing: corners that are nearer are at the same place


@dataclass(frozen=True)
class Turn:
    """Flips and transposition from an array of any orientation to slices x rows x columns.

    Attributes:
        axes: The array's axes that become slices, rows and columns.
        flipped: Whether each of them is reversed.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]

    @classmethod
    def of_affine(cls, affine: Affine) -> "Turn":
        """Finds the turn of an array whose affine maps its indices to LPS millimeters.

        Raises:
            BadScanError: If the affine is sheared, has no volume or is not finite.
        """
        directions = _directions(affine)
        best = _best_axes(np.abs(directions))
        flipped = tuple(bool(directions[world, axis] < 0) for world, axis in best)
        slices, rows, columns = (axis for _, axis in best)
        return cls((slices, rows, columns), (flipped[0], flipped[1], flipped[2]))

    def apply(self, voxels: Array) -> Array:
        """Returns a view of an array with three or more axes, slices x rows x columns first."""
        others = range(3, voxels.ndim)
        return np.flip(voxels.transpose(*self.axes, *others), self._reversed)

    def undo(self, voxels: Array) -> Array:
        """Returns a view of an axial array in the orientation of the original one."""
        return np.flip(voxels, self._reversed).transpose(np.argsort(self.axes))

    def turned_affine(self, affine: Affine, shape: tuple[int, ...]) -> Affine:
        """The affine of the turned array.

        Args:
            affine: 4 x 4, of the original array.
            shape: Lengths of the original array's axes.
        """
        turn = np.zeros((4, 4))
        turn[3, 3] = 1
        for new, (axis, flip) in enumerate(zip(self.axes, self.flipped, strict=True)):
            turn[axis, new] = -1 if flip else 1
            turn[axis, 3] = shape[axis] - 1 if flip else 0
        return affine @ turn

    @property
    def _reversed(self) -> tuple[int, ...]:
        return tuple(axis for axis, flip in enumerate(self.flipped) if flip)


@dataclass(frozen=True)
class AxialImage:
    """An array of slices x rows x columns, from below, from the front and from the right.

    Attributes:
        voxels: Values as a file holds them; with a fourth axis if it holds several images.
        geometry: Position in space.
        slope: Factor of the values.
        intercept: Value of a stored 0.
    """

    voxels: Array
    geometry: Geometry
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_scaled(self) -> bool:
        """Whether the stored values are not the values themselves."""
        return (self.slope, self.intercept) != (1.0, 0.0)

    def chosen(self, index: int | None) -> "AxialImage":
        """Returns one image.

        Args:
            index: Number of the image along the fourth axis; `None` if it is the only one.

        Raises:
            BadScanError: If there is no such image, or there are several and `index` is `None`.
        """
        count = self.voxels.shape[3] if self.voxels.ndim == 4 else 1
        if index is None and count > 1:
            raise BadScanError(
                f"it holds {count} images; name one for each channel: `path#0`, `path#1`, ..."
            )
        if (index or 0) >= count:
            raise BadScanError(f"it holds {count} images, none with number {index}")
        return replace(self, voxels=self.voxels[..., index or 0]) if count > 1 else self


def turn_axial(
    voxels: Array, affine: Affine, slope: float = 1.0, intercept: float = 0.0
) -> AxialImage:
    """Turns an array to axial LPS; no value is interpolated.

    Args:
        voxels: Array of three axes in any order; a fourth one remains the last.
        affine: 4 x 4, from its indices to LPS millimeters.
        slope: See `AxialImage`.
        intercept: See `AxialImage`.

    Raises:
        BadScanError: If the affine is sheared or singular, or the image is not axial.
    """
    turn = Turn.of_affine(affine)
    geometry = Geometry.of_affine(turn.turned_affine(affine, voxels.shape))
    _, row, column = geometry.spacing_mm
    if max(row, column) > _MOST_STRETCH * min(row, column):
        raise BadScanError(
            f"its axial slices have pixels of {row:g} x {column:g} mm: it was not acquired in "
            "axial slices"
        )
    return AxialImage(turn.apply(voxels), geometry, slope, intercept)


def distance_mm(one: Affine, other: Affine, shape: tuple[int, ...]) -> float:
    """Largest distance between the same corner of two arrays of one shape.

    Args:
        one: 3 or 4 rows of an affine.
        other: Likewise.
        shape: Lengths of the three axes.
    """
    corners = np.array(
        [(*(np.array(corner) * (np.array(shape[:3]) - 1)), 1) for corner in np.ndindex(2, 2, 2)]
    )
    apart = (np.asarray(one)[:3] - np.asarray(other)[:3]) @ corners.T
    return float(np.linalg.norm(apart, axis=0).max())


def tolerance_mm(affine: Affine) -> float:
    """Distance of two corners that counts as rounding: a tenth of the smallest spacing."""
    return _TOLERANCE * float(np.linalg.norm(np.asarray(affine)[:3, :3], axis=0).min())


def check_same_grid(image: AxialImage, reference: AxialImage, name: str, of: str) -> None:
    """Refuses an image whose voxels are at other places than those of the reference.

    Args:
        image: An image after turning.
        reference: The one that it is compared with.
        name: Description of the image, e.g. `label`.
        of: Description of the reference.

    Raises:
        BadScanError: With the distance of the corners.
    """
    if image.voxels.shape != reference.voxels.shape:
        raise BadScanError(
            f"{name} has {size_text(image.voxels.shape)} voxels, {of} has "
            f"{size_text(reference.voxels.shape)}; resample them to one grid first"
        )
    places = (image.geometry.matrix, reference.geometry.matrix)
    distance = distance_mm(*places, image.voxels.shape)
    if distance > tolerance_mm(reference.geometry.matrix):
        raise BadScanError(
            f"{name} lies on another grid than {of}: their corners are up to {distance:.3g} mm "
            "apart; resample them to one grid first"
        )


def _directions(affine: Affine) -> Affine:
    """Unit vectors of the array's axes, as columns."""
    matrix = np.asarray(affine, np.float64)[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0) if np.isfinite(affine).all() else np.zeros(3)
    if lengths.min() < 1e-6 or lengths.max() > 1e4:
        raise BadScanError("its affine is singular or not finite, so its voxels have no size")
    directions: Affine = matrix / lengths
    cosines = np.abs(directions.T @ directions - np.eye(3)).max()
    if cosines > _SHEAR:
        degrees = np.degrees(np.arcsin(min(cosines, 1.0)))
        raise BadScanError(
            f"its affine is sheared by {degrees:.2g} degrees (gantry tilt?); resample it to a "
            "rectangular grid first"
        )
    return directions


def _best_axes(strength: Affine) -> list[tuple[int, int]]:
    """The array's axis nearest to each of up, back and left, as pairs of world axis and axis."""
    # the largest sum: for a rotation of up to 45 degrees there is no doubt
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    best = max(orders, key=lambda order: sum(strength[w, a] for w, a in enumerate(order)))
    return [(world, best[world]) for world in (2, 1, 0)]
