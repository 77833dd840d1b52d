"""The numbers of all volumes of a data set, one array each."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from components.shared.dataset.manifest import Manifest

Numbers = npt.NDArray[np.float64]
Choice = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Measures:
    """Arrays over the volumes (first axis), in the manifest's order.

    Attributes:
        volume: Names.
        patient: Persons.
        site: Institutions.
        slices: Slices per volume.
        pixels: Slices x height x width.
        tumour_slices: Slices with tumour.
        tumour_pixels: Positive pixels of the masks.
        median_intensity: Volumes x channels, 0 to 255.
        bright_intensity: The 99th percentile, volumes x channels.
        lacks_sequence: Whether a sequence is a copy of FLAIR.
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
        """Share of each volume's slices that show tumour."""
        return self.tumour_slices / self.slices


def measure(manifest: Manifest) -> Measures:
    """Gathers the arrays; reads no voxels."""
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
