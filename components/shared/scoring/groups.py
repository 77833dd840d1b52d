"""Groups of patients with scores of their own: sites and thirds by tumour size."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from components.shared.scoring.scores import PatientScore

SIZES = ("small", "medium", "large")

Score = TypeVar("Score", bound=PatientScore)


class Sized(Protocol):
    """A scan with a known tumour size, scored or not."""

    @property
    def volume(self) -> str:
        """Name of the volume."""

    @property
    def patient(self) -> str:
        """Name of the person."""

    @property
    def tumour_pixels(self) -> int:
        """Pixels of the true tumour."""

    @property
    def tumour_ml(self) -> float | None:
        """Size of the true tumour in milliliters; `None` where the geometry is unknown."""


def tumour_sizes(scans: Sequence[Sized]) -> tuple[str, dict[str, float]]:
    """Returns the unit of tumour sizes, and the sizes by volume name.

    The unit is `ml`, or `pixels` if the geometry of a volume is unknown.
    """
    sizes = {one.volume: one.tumour_ml for one in scans if one.tumour_ml is not None}
    if len(sizes) == len(scans):
        return "ml", sizes
    return "pixels", {one.volume: one.tumour_pixels for one in scans}


def size_thirds(scans: Sequence[Sized]) -> dict[str, str]:
    """Assigns each volume to a third of the patients by tumour size.

    The size of a patient's tumour is the mean over the scans.

    Returns:
        `small`, `medium` or `large` by volume name; equal sizes are ordered by name.
    """
    _, sizes = tumour_sizes(scans)

    def place(volumes: Sequence[str]) -> tuple[float, str]:
        return sum(sizes[name] for name in volumes) / len(volumes), min(volumes)

    of_patient: dict[str, list[str]] = {}
    for scan in scans:
        of_patient.setdefault(scan.patient, []).append(scan.volume)
    order = sorted(of_patient.values(), key=place)
    return {
        name: SIZES[rank * len(SIZES) // len(order)]
        for rank, volumes in enumerate(order)
        for name in volumes
    }


def first_of_each_third(scans: Sequence[Sized], count: int) -> list[str]:
    """Picks volumes independently of any model.

    Returns:
        The first `count` names of each third by true tumour size, from small to large.
    """
    thirds = size_thirds(scans)
    return [
        name
        for size in SIZES
        for name in sorted(volume for volume, third in thirds.items() if third == size)[:count]
    ]


def group(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Groups patients by `site/<code>` and by `size/<third>`."""
    thirds = size_thirds(scores)
    sites = sorted({one.site for one in scores})
    by_site = {f"site/{site}": [one for one in scores if one.site == site] for site in sites}
    sizes = [size for size in SIZES if size in thirds.values()]
    return by_site | {
        f"size/{size}": [one for one in scores if thirds[one.volume] == size] for size in sizes
    }
