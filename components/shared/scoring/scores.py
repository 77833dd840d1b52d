"""Scores of a predicted volume against its mask.

The same code scores an empty prediction of the same volume, as a baseline.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, get_type_hints

import numpy as np

from components.shared.dataset.geometry import Geometry
from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import Mask, Probability, Volume
from components.shared.scoring.surfaces import SurfaceDistancesMm, surface_distances_mm
from components.shared.scoring.voxels import SurfaceDistances, inside_head, surface_distances

BINS = 10  # of the calibration, equally wide over 0..1

SURFACE_TOLERANCE_PIXELS = 2  # of the surface Dice
SURFACE_TOLERANCE_MM = 2  # of that in millimeters


@dataclass(frozen=True)
class Reliability:
    """Predicted probability against truth over the voxels inside the head, by bin.

    Attributes:
        voxels: Voxels in each of the `BINS` bins.
        probability: Sums of their probabilities.
        tumour: Numbers of them that are tumour.
        squared_error: Sum over all voxels of (probability - truth) squared.
    """

    voxels: tuple[int, ...]
    probability: tuple[float, ...]
    tumour: tuple[int, ...]
    squared_error: float


@dataclass(frozen=True)
class Masks:
    """True and predicted mask of a volume, and their counts of pixels.

    Attributes:
        truth: Slices x height x width.
        predicted: Slices x height x width.
        geometry: Position in space; `None` where it is unknown.
    """

    truth: Mask
    predicted: Mask
    geometry: Geometry | None = None

    @cached_property
    def tumour_by_slice(self) -> list[int]:
        """Pixels of the tumour in each slice."""
        return _by_slice(self.truth)

    @cached_property
    def predicted_by_slice(self) -> list[int]:
        """Predicted pixels in each slice."""
        return _by_slice(self.predicted)

    @cached_property
    def true_positives_by_slice(self) -> list[int]:
        """Predicted pixels of the tumour in each slice."""
        return _by_slice(self.truth & self.predicted)

    @property
    def tumour_pixels(self) -> int:
        """Pixels of the tumour."""
        return sum(self.tumour_by_slice)

    @property
    def predicted_pixels(self) -> int:
        """Predicted pixels."""
        return sum(self.predicted_by_slice)

    @property
    def true_positives(self) -> int:
        """Predicted pixels of the tumour."""
        return sum(self.true_positives_by_slice)

    @property
    def volume_difference(self) -> int:
        """Absolute difference between predicted and tumour pixels."""
        return abs(self.predicted_pixels - self.tumour_pixels)

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        """Distances between the surfaces of both masks."""
        return surface_distances(self.predicted, self.truth)

    @cached_property
    def surfaces_mm(self) -> SurfaceDistancesMm | None:
        """The same in millimeters; `None` where the geometry is unknown."""
        if self.geometry is None:
            return None
        return surface_distances_mm(self.predicted, self.truth, self.geometry.spacing_mm)

    def milliliters(self, pixels: int) -> float | None:
        """Volume of a number of pixels; `None` where the geometry is unknown."""
        return pixels * self.geometry.voxel_ml if self.geometry else None


@dataclass(frozen=True)
class Figure:
    """Annotation of an attribute of `PatientScore`.

    Attributes:
        measure: Function that computes the figure; `None` where it is not defined.
        label: Label in reports; empty for figures that only files have.
        needs_geometry: `True` if it exists only where the geometry is known.
    """

    measure: Callable[[Masks], float | None]
    label: str = ""
    needs_geometry: bool = False


@dataclass(frozen=True)
class PatientScore:
    """Figures of one scored volume, or their means over the scans of a patient.

    To add a figure, add an attribute here: CSV files and reports follow this order.
    """

    volume: str
    patient: str
    site: str
    slices: Annotated[int, Figure(lambda masks: len(masks.truth))]
    tumour_pixels: Annotated[int, Figure(lambda masks: masks.tumour_pixels, "tumour")]
    # of the whole volume; 1 if both masks are empty
    dice: Annotated[
        float,
        Figure(
            lambda masks: dice_of_counts(
                masks.true_positives, masks.predicted_pixels, masks.tumour_pixels
            ),
            "Dice",
        ),
    ]
    precision: Annotated[
        float | None,
        Figure(lambda masks: _ratio(masks.true_positives, masks.predicted_pixels), "precision"),
    ]
    recall: Annotated[
        float | None,
        Figure(lambda masks: _ratio(masks.true_positives, masks.tumour_pixels), "recall"),
    ]
    # 95th percentile Hausdorff distance in pixels; `None` if a mask is empty
    hd95: Annotated[float | None, Figure(lambda masks: masks.surfaces.hd95, "HD95")]
    # normalized surface Dice; 1 if both masks are empty
    surface_dice: Annotated[
        float,
        Figure(lambda masks: masks.surfaces.within(SURFACE_TOLERANCE_PIXELS), "surface Dice"),
    ]
    tumour_slices: Annotated[int, Figure(lambda masks: sum(map(bool, masks.tumour_by_slice)))]
    predicted_pixels: Annotated[int, Figure(lambda masks: masks.predicted_pixels, "predicted")]
    true_positives: Annotated[int, Figure(lambda masks: masks.true_positives)]
    false_positive_pixels: Annotated[
        int, Figure(lambda masks: masks.predicted_pixels - masks.true_positives, "false")
    ]
    volume_difference_pixels: Annotated[
        int, Figure(lambda masks: masks.volume_difference, "volume difference")
    ]
    # as a fraction of the tumour's pixels
    relative_volume_difference: Annotated[
        float | None,
        Figure(
            lambda masks: _ratio(masks.volume_difference, masks.tumour_pixels),
            "relative difference",
        ),
    ]
    # the following are `None` also where the geometry is unknown
    tumour_ml: Annotated[
        float | None,
        Figure(lambda masks: masks.milliliters(masks.tumour_pixels), "tumour, ml", True),
    ]
    predicted_ml: Annotated[
        float | None,
        Figure(lambda masks: masks.milliliters(masks.predicted_pixels), "predicted, ml", True),
    ]
    volume_difference_ml: Annotated[
        float | None,
        Figure(
            lambda masks: masks.milliliters(masks.volume_difference), "volume difference, ml", True
        ),
    ]
    hd95_mm: Annotated[
        float | None,
        Figure(lambda masks: masks.surfaces_mm and masks.surfaces_mm.hd95, "HD95, mm", True),
    ]
    # average symmetric surface distance
    assd_mm: Annotated[
        float | None,
        Figure(lambda masks: masks.surfaces_mm and masks.surfaces_mm.mean, "ASSD, mm", True),
    ]
    surface_dice_2mm: Annotated[
        float | None,
        Figure(
            lambda masks: masks.surfaces_mm and masks.surfaces_mm.within(SURFACE_TOLERANCE_MM),
            "surface Dice, 2 mm",
            True,
        ),
    ]


PATIENT_FIGURES: dict[str, Figure] = {
    name: figure
    for name, annotation in get_type_hints(PatientScore, include_extras=True).items()
    for figure in getattr(annotation, "__metadata__", ())
}
"""All figures of a patient by attribute and column, in the order of files and reports."""


def known_figures(scores: Iterable[PatientScore]) -> dict[str, Figure]:
    """The figures that exist for any of the scores, by attribute."""
    has_geometry = any(score.tumour_ml is not None for score in scores)
    return {
        name: figure
        for name, figure in PATIENT_FIGURES.items()
        if has_geometry or not figure.needs_geometry
    }


@dataclass(frozen=True)
class VolumeScore(PatientScore):
    """A patient's score with figures of slices and voxels.

    Attributes:
        slice_dice: Dice of each slice; an empty slice left empty counts 1.
        slice_has_tumour: Truth of each slice, `True` where it has tumour.
        reliability: Counts for the calibration.
        empty: Score of a probability of 0 everywhere on the same volume; `None` in such a score.
    """

    slice_dice: tuple[float, ...]
    slice_has_tumour: tuple[bool, ...]
    reliability: Reliability
    empty: "VolumeScore | None" = None


def score_volume(
    entry: VolumeEntry,
    volume: Volume,
    probability: Probability,
    predicted: Mask,
    target: int = 0,
) -> VolumeScore:
    """Scores one prediction of one target, and next to it an empty one.

    Args:
        entry: Entry of the volume in the manifest.
        volume: Voxels, slices x height x width.
        probability: Output of a segmenter for the target, which checks that it is a probability.
        predicted: Predicted mask of the target.
        target: Index of the target among those of the volume.
    """
    truth, head = volume.truth[target], inside_head(volume.reference)
    nothing = np.zeros_like(probability)
    marked, unmarked = (
        Masks(truth, mask, volume.geometry) for mask in (predicted, nothing.astype(bool))
    )
    empty = _score(entry, unmarked, _reliability(head, truth, nothing))
    found = _score(entry, marked, _reliability(head, truth, probability))
    return replace(found, empty=empty)


def _score(entry: VolumeEntry, masks: Masks, reliability: Reliability) -> VolumeScore:
    counts = (masks.true_positives_by_slice, masks.predicted_by_slice, masks.tumour_by_slice)
    figures = {name: figure.measure(masks) for name, figure in PATIENT_FIGURES.items()}
    return VolumeScore(
        volume=entry.volume,
        patient=entry.patient,
        site=entry.site,
        slice_dice=tuple(map(dice_of_counts, *counts)),
        slice_has_tumour=tuple(map(bool, masks.tumour_by_slice)),
        reliability=reliability,
        # mypy sees one type for all figures: that each has its own is checked by the tests
        **figures,  # type: ignore[arg-type]
    )


def calibration_curve(scores: Iterable[VolumeScore]) -> Reliability:
    """Adds up the voxels of many volumes."""
    counts = [score.reliability for score in scores]
    return Reliability(
        voxels=tuple(map(sum, zip(*(one.voxels for one in counts), strict=True))),
        probability=tuple(map(sum, zip(*(one.probability for one in counts), strict=True))),
        tumour=tuple(map(sum, zip(*(one.tumour for one in counts), strict=True))),
        squared_error=sum(one.squared_error for one in counts),
    )


def dice_of_counts(true_positives: int, predicted: int, tumour: int) -> float:
    """Returns the Dice of two masks from their counts of pixels; 1 if both are empty."""
    return 2 * true_positives / (predicted + tumour) if predicted + tumour else 1.0


def _by_slice(mask: Mask) -> list[int]:
    counts: list[int] = np.count_nonzero(mask, axis=(1, 2)).tolist()
    return counts


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _reliability(head: Mask, truth: Mask, probability: Probability) -> Reliability:
    tumour = truth[head]
    values = probability[head]
    bins = np.minimum((values * BINS).astype(np.intp), BINS - 1)  # 1.0 belongs to the last
    return Reliability(
        voxels=tuple(np.bincount(bins, minlength=BINS).tolist()),
        probability=tuple(np.bincount(bins, weights=values, minlength=BINS).tolist()),
        tumour=tuple(np.bincount(bins[tumour], minlength=BINS).tolist()),
        squared_error=float(np.square(values - tumour).sum(dtype=np.float64)),
    )
