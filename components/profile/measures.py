"""Measures of all volumes of a data set as arrays, and their quantiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.config import Record
from components.shared.dataset.channels import Channels
from components.shared.dataset.manifest import Manifest

SLICE_SPACING = "slice spacing, mm"

Numbers = npt.NDArray[np.float64]
Choice = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Measures:
    """Arrays over the volumes (first axis), in the manifest's order.

    Attributes:
        channels: Channels of all images.
        pixels: Number of pixels: slices x height x width.
        tumour_ml: Size of the tumour in milliliters; NaN where the spacing is unknown.
        spacing_mm: Distance of slices, rows and columns, volumes x 3; NaN where unknown.
        median_intensity: Median intensity (0 to 255), volumes x channels.
        bright_intensity: 99th percentile of the intensity, volumes x channels.
        lacks_sequence: True if a channel is a copy of the reference.
    """

    channels: Channels
    volume: Names
    patient: Names
    site: Names
    slices: Numbers
    pixels: Numbers
    tumour_slices: Numbers
    tumour_pixels: Numbers
    tumour_ml: Numbers
    spacing_mm: Numbers
    median_intensity: Numbers
    bright_intensity: Numbers
    lacks_sequence: Choice

    @property
    def tumour_share(self) -> Numbers:
        """Fraction of each volume's slices with tumour."""
        return self.tumour_slices / self.slices

    @property
    def in_mm(self) -> bool:
        """True if the spacing of every volume is known."""
        return bool(np.isfinite(self.spacing_mm).all())

    def tumour_size(self, in_mm: bool) -> tuple[str, Numbers]:
        """Side of a cube with the tumour's volume, with its name, in millimeters or pixels."""
        size = 1000 * self.tumour_ml if in_mm else self.tumour_pixels
        return f"tumour size (side of a cube, {'mm' if in_mm else 'pixels'})", np.cbrt(size)

    def intensities(self, channels: Sequence[str]) -> Iterator[tuple[str, Numbers]]:
        """Yields median and 99th percentile of the channels with their names."""
        for channel in channels:
            index = self.channels.names.index(channel)
            yield f"{channel}: median", self.median_intensity[:, index]
            yield f"{channel}: 99th percentile", self.bright_intensity[:, index]


def measure(manifest: Manifest) -> Measures:
    """Collects the arrays from a manifest, without reading voxels."""
    entries = manifest.volumes

    def numbers(values: list[Any]) -> Numbers:
        return np.array(values, dtype=np.float64)

    unknown = (np.nan, np.nan, np.nan)
    return Measures(
        channels=manifest.channels,
        volume=np.array([entry.volume for entry in entries]),
        patient=np.array([entry.patient for entry in entries]),
        site=np.array([entry.site for entry in entries]),
        slices=numbers([entry.slices for entry in entries]),
        pixels=numbers([entry.slices * entry.height * entry.width for entry in entries]),
        tumour_slices=numbers([entry.tumour_slices for entry in entries]),
        tumour_pixels=numbers([entry.tumour_pixels for entry in entries]),
        tumour_ml=numbers([entry.tumour_ml for entry in entries]),
        spacing_mm=numbers(
            [entry.geometry.spacing_mm if entry.geometry else unknown for entry in entries]
        ),
        median_intensity=numbers([[c.p50 for c in entry.intensity] for entry in entries]),
        bright_intensity=numbers([[c.p99 for c in entry.intensity] for entry in entries]),
        lacks_sequence=np.array([bool(entry.missing) for entry in entries]),
    )


class Quantiles(Record):
    """Minimum, quartiles and maximum."""

    minimum: float
    lower_quartile: float
    median: float
    upper_quartile: float
    maximum: float


def quantiles(values: Sequence[float] | Numbers) -> Quantiles | None:
    """Computes minimum, quartiles and maximum; `None` without values."""
    if len(values) == 0:
        return None
    found = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return Quantiles.model_validate(dict(zip(Quantiles.model_fields, found, strict=True)))
