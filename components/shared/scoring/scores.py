"""How a predicted volume is scored against its mask.

Every number is built from counts of pixels, so what an all-empty prediction would score on the
same patients is computed by the same code from the same counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from components.shared.dataset.manifest import VolumeEntry
from components.shared.dataset.volumes import Mask, Probability, Volume
from components.shared.scoring.voxels import inside_head, surface_distances

BINS = 10  # of the calibration, equally wide over 0..1

SURFACE_TOLERANCE_PIXELS = 2  # of the surface Dice


@dataclass(frozen=True)
class Reliability:
    """Predicted probability against truth over the voxels inside the head, by bin.

    Attributes:
        voxels: Voxels in each of the `BINS` bins.
        probability: Sum of their probabilities.
        tumour: How many of them are tumour.
        squared_error: Sum over all voxels of (probability - truth) squared.
    """

    voxels: tuple[int, ...]
    probability: tuple[float, ...]
    tumour: tuple[int, ...]
    squared_error: float


@dataclass(frozen=True)
class PatientScore:
    """Pixel counts of one scored volume, and what follows from them.

    A data set has one volume a patient, so this is one patient's score.

    Attributes:
        tumour_pixels: Pixels that are tumour in truth.
        predicted_pixels: Pixels that are tumour by the model.
        true_positives: Pixels that are both.
        hd95: 95th percentile Hausdorff distance in pixels; `None` where prediction or truth
            is empty.
        surface_dice: Share of both surfaces that lies within `SURFACE_TOLERANCE_PIXELS` of the
            other (normalized surface Dice); empty against empty is 1.
    """

    volume: str
    patient: str
    site: str
    slices: int
    tumour_slices: int
    tumour_pixels: int
    predicted_pixels: int
    true_positives: int
    hd95: float | None
    surface_dice: float

    @property
    def dice(self) -> float:
        """Dice of the whole volume; empty against empty is 1."""
        return dice_of_counts(self.true_positives, self.predicted_pixels, self.tumour_pixels)

    @property
    def precision(self) -> float | None:
        """Share of the predicted pixels that are tumour; `None` where there are none."""
        return _ratio(self.true_positives, self.predicted_pixels)

    @property
    def recall(self) -> float | None:
        """Share of the tumour pixels that are predicted; `None` where there are none."""
        return _ratio(self.true_positives, self.tumour_pixels)

    @property
    def false_positive_pixels(self) -> int:
        """Predicted pixels outside the tumour."""
        return self.predicted_pixels - self.true_positives

    @property
    def volume_difference_pixels(self) -> int:
        """Predicted pixels more or fewer than the tumour has, without sign."""
        return abs(self.predicted_pixels - self.tumour_pixels)

    @property
    def relative_volume_difference(self) -> float | None:
        """The same as a share of the tumour's pixels; `None` where there are none."""
        return _ratio(self.volume_difference_pixels, self.tumour_pixels)


class PatientFigure(NamedTuple):
    """A number of a patient, for tables.

    Attributes:
        name: Of the attribute of `PatientScore`, and of the column in files.
        label: In reports; empty for what only files hold.
    """

    name: str
    label: str = ""


PATIENT_FIGURES = (
    PatientFigure("slices"),
    PatientFigure("tumour_pixels", "tumour"),
    PatientFigure("dice", "Dice"),
    PatientFigure("precision", "precision"),
    PatientFigure("recall", "recall"),
    PatientFigure("hd95", "HD95"),
    PatientFigure("surface_dice", "surface Dice"),
    PatientFigure("tumour_slices"),
    PatientFigure("predicted_pixels", "predicted"),
    PatientFigure("true_positives"),
    PatientFigure("false_positive_pixels", "false"),
    PatientFigure("volume_difference_pixels", "volume difference"),
    PatientFigure("relative_volume_difference", "relative difference"),
)
"""All of them, in the order of files and reports."""


@dataclass(frozen=True)
class VolumeScore(PatientScore):
    """A patient's score with what only the voxels can tell.

    Attributes:
        slice_dice: Dice of each slice; an empty slice left empty counts 1.
        slice_has_tumour: Whether each slice truly has tumour.
        reliability: Counts for the calibration.
    """

    slice_dice: tuple[float, ...]
    slice_has_tumour: tuple[bool, ...]
    reliability: Reliability


def score_volume(
    entry: VolumeEntry, volume: Volume, probability: Probability, predicted: Mask
) -> VolumeScore:
    """Scores one prediction.

    Args:
        entry: The volume's entry in the manifest.
        volume: Its voxels, slices x height x width.
        probability: What a segmenter gave for it; segmenters check that it is one.
        predicted: Where it calls tumour.
    """
    truth = volume.mask.astype(bool)
    tumour = _per_slice(truth)
    marked = _per_slice(predicted)
    common = _per_slice(truth & predicted)
    apart = surface_distances(predicted, truth)
    return VolumeScore(
        volume=entry.volume,
        patient=entry.patient,
        site=entry.site,
        slices=len(truth),
        tumour_slices=sum(count > 0 for count in tumour),
        tumour_pixels=sum(tumour),
        predicted_pixels=sum(marked),
        true_positives=sum(common),
        hd95=apart.hd95,
        surface_dice=apart.within(SURFACE_TOLERANCE_PIXELS),
        slice_dice=tuple(map(dice_of_counts, common, marked, tumour)),
        slice_has_tumour=tuple(count > 0 for count in tumour),
        reliability=_reliability(inside_head(volume.image), truth, probability),
    )


def empty_score(score: VolumeScore) -> VolumeScore:
    """The score that a probability of 0 everywhere gets on the same volume."""
    counts = score.reliability
    nothing = (0,) * (BINS - 1)
    return replace(
        score,
        predicted_pixels=0,
        true_positives=0,
        hd95=None,
        surface_dice=float(not score.tumour_pixels),
        slice_dice=tuple(float(not tumour) for tumour in score.slice_has_tumour),
        reliability=Reliability(
            voxels=(sum(counts.voxels), *nothing),
            probability=(0.0,) * BINS,
            tumour=(sum(counts.tumour), *nothing),
            squared_error=float(sum(counts.tumour)),
        ),
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
    """Dice of two masks by their counts of pixels; empty against empty is 1."""
    return 2 * true_positives / (predicted + tumour) if predicted + tumour else 1.0


def _per_slice(mask: Mask) -> list[int]:
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
