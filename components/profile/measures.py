"""Measures of all volumes of a data set as arrays, and their quantiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.config import Record
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.volumes import CHANNELS

TUMOUR_SIZE = "tumour size (side of a cube, pixels)"

Numbers = npt.NDArray[np.float64]
Choice = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Measures:
    """Arrays over the volumes (first axis), in the manifest's order.

    Attributes:
        pixels: Number of pixels: slices x height x width.
        median_intensity: Median intensity (0 to 255), volumes x channels.
        bright_intensity: 99th percentile of the intensity, volumes x channels.
        lacks_sequence: True if a channel is a copy of FLAIR.
    """

    volume: Names
    patient: Names
    site: Names
    slices: Numbers
    pixels: Numbers
    tumour_slices: Numbers
    tumour_pixels: Numbers
    median_intensity: Numbers
    bright_intensity: Numbers
    lacks_sequence: Choice

    @property
    def tumour_share(self) -> Numbers:
        """Fraction of each volume's slices with tumour."""
        return self.tumour_slices / self.slices

    @property
    def tumour_size(self) -> Numbers:
        """Side of a cube with the tumour's volume, in pixels."""
        return np.cbrt(self.tumour_pixels)

    def intensities(self) -> Iterator[tuple[str, Numbers]]:
        """Yields median and 99th percentile of each channel with their names."""
        for index, channel in enumerate(CHANNELS):
            yield f"{channel}: median", self.median_intensity[:, index]
            yield f"{channel}: 99th percentile", self.bright_intensity[:, index]


def measure(manifest: Manifest) -> Measures:
    """Collects the arrays from a manifest, without reading voxels."""
    entries = manifest.volumes

    def numbers(values: list[Any]) -> Numbers:
        return np.array(values, dtype=np.float64)

    return Measures(
        volume=np.array([entry.volume for entry in entries]),
        patient=np.array([entry.patient for entry in entries]),
        site=np.array([entry.site for entry in entries]),
        slices=numbers([entry.slices for entry in entries]),
        pixels=numbers([entry.slices * entry.height * entry.width for entry in entries]),
        tumour_slices=numbers([entry.tumour_slices for entry in entries]),
        tumour_pixels=numbers([entry.tumour_pixels for entry in entries]),
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
