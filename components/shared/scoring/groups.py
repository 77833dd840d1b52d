"""Groups of patients whose scores are looked at apart: sites and thirds by tumour size."""

from collections.abc import Sequence
from typing import TypeVar

from components.shared.scoring.scores import PatientScore

SIZES = ("small", "medium", "large")

Score = TypeVar("Score", bound=PatientScore)


def size_thirds(scores: Sequence[PatientScore]) -> dict[str, str]:
    """Assigns each volume to a third of the patients by tumour pixels.

    Returns:
        `small`, `medium` or `large` under the volume's name; equal sizes go by name.
    """
    order = sorted(scores, key=lambda score: (score.tumour_pixels, score.volume))
    return {
        score.volume: SIZES[rank * len(SIZES) // len(order)] for rank, score in enumerate(order)
    }


def group(scores: Sequence[Score]) -> dict[str, list[Score]]:
    """Groups patients under `site/<code>` and `size/<third>`; a patient is in one of each."""
    thirds = size_thirds(scores)
    groups: dict[str, list[Score]] = {f"site/{site}": [] for site in sorted(_sites(scores))}
    groups |= {f"size/{size}": [] for size in SIZES if size in thirds.values()}
    for score in scores:
        groups[f"site/{score.site}"].append(score)
        groups[f"size/{thirds[score.volume]}"].append(score)
    return groups


def _sites(scores: Sequence[PatientScore]) -> set[str]:
    return {score.site for score in scores}
