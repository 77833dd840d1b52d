"""Position of a volume in space."""

from typing import Self

import numpy as np
import numpy.typing as npt

from components.shared.config import Record

Affine = npt.NDArray[np.float64]
_DECIMALS = 8  # of a millimeter: the same bytes on every machine


class Geometry(Record):
    """Places the voxels of an axial volume: slices go up, rows to the back, columns to the left.

    Attributes:
        spacing_mm: Distance of two slices, rows and columns.
        affine: Three rows of four values: they map (slice, row, column, 1) of a voxel's center to
            millimeters to the left, to the back and up (LPS, the axes of DICOM).
    """

    spacing_mm: tuple[float, float, float]
    affine: tuple[tuple[float, float, float, float], ...]

    @classmethod
    def of_affine(cls, affine: Affine) -> Self:
        """Builds the geometry of an affine, 3 or 4 rows of four values."""
        rounded = np.round(np.asarray(affine, np.float64)[:3], _DECIMALS) + 0.0  # no -0.0
        spacing = np.round(np.linalg.norm(rounded[:, :3], axis=0), 5)
        return cls(
            spacing_mm=tuple(spacing.tolist()),
            affine=tuple(tuple(row) for row in rounded.tolist()),
        )

    @property
    def matrix(self) -> Affine:
        """The affine as an array of 4 x 4."""
        return np.array([*self.affine, (0.0, 0.0, 0.0, 1.0)])

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in milliliters."""
        return abs(float(np.linalg.det(self.matrix[:3, :3]))) / 1000
