"""Groups of patients with scores of their own: sites and thirds by tumour size."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

from components.shared.scoring.scores import PatientScore

SIZES = ("small", "medium", "large")

Score = TypeVar("Score", bound=PatientScore)


class Sized(Protocol):
    """A patient with a known tumour size, scored or not."""

    @property
    def volume(self) -> str:
        """Name of the volume."""

    @property
    def tumour_pixels(self) -> int:
        """Pixels of the true tumour."""

    @property
    def tumour_ml(self) -> float | None:
        """Size of the true tumour in milliliters; `None` where the geometry is unknown."""


def tumour_sizes(patients: Sequence[Sized]) -> tuple[str, dict[str, float]]:
    """Returns the unit of tumour sizes, and the sizes by volume name.

    The unit is `ml`, or `pixels` if the geometry of a volume is unknown.
    """
    sizes = {one.volume: one.tumour_ml for one in patients if one.tumour_ml is not None}
    if len(sizes) == len(patients):
        return "ml", sizes
    return "pixels", {one.volume: one.tumour_pixels for one in patients}


def size_thirds(patients: Sequence[Sized]) -> dict[str, str]:
    """Assigns each volume to a third of the patients by tumour size.

    Returns:
        `small`, `medium` or `large` by volume name; equal sizes are ordered by name.
    """
    _, sizes = tumour_sizes(patients)
    order = sorted(patients, key=lambda one: (sizes[one.volume], one.volume))
    return {one.volume: SIZES[rank * len(SIZES) // len(order)] for rank, one in enumerate(order)}


def first_of_each_third(patients: Sequence[Sized], count: int) -> list[str]:
    """Picks patients independently of any model.

    Returns:
        The first `count` names of each third by true tumour size, from small to large.
    """
    thirds = size_thirds(patients)
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
