"""How a predicted volume is scored against its mask, and scores of patients against each other.

Every number is built from counts of pixels, so what an all-empty prediction would score on the
same patients is computed by the same code from the same counts.
"""

import csv
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap

from components.shared.errors import UserError
from components.shared.manifest import VolumeEntry
from components.shared.segmenter import Probability
from components.shared.volumes import FLAIR, Volume, Voxels

Mask = npt.NDArray[np.bool_]

BINS = 10  # of the calibration, equally wide over 0..1
SIZES = ("small", "medium", "large")

DEFINITIONS = {
    "patients": "Patients scored.",
    "patient_dice_mean": "Dice of a patient's whole volume, mean over patients.",
    "patient_dice_mean_ci_low": "Lower end of its 95 % bootstrap interval over patients.",
    "patient_dice_mean_ci_high": "Upper end of the same interval.",
    "patient_dice_median": "Dice of a patient's whole volume, median over patients.",
    "pooled_dice": "Dice of the pixels of all patients together; large tumours weigh most.",
    "tumour_slice_dice_mean": "Dice of a single slice, mean over the slices with true tumour.",
    "slice_dice_mean": "Dice of a single slice, mean over all slices; an empty slice left empty "
    "counts 1, one with any false positive 0.",
    "precision_mean": "True positives / predicted pixels, mean over patients.",
    "precision_undefined": "Patients for whom nothing was predicted: not in the mean.",
    "recall_mean": "True positives / true tumour pixels, mean over patients.",
    "recall_undefined": "Patients without tumour: not in the mean.",
    "hd95_mean": "95th percentile Hausdorff distance in pixels, mean over patients.",
    "hd95_median": "The same distance, median over patients.",
    "hd95_undefined": "Patients with an empty prediction or without tumour: in neither figure.",
    "false_positive_pixels_mean": "Predicted pixels outside the tumour, mean over patients.",
    "calibration_error": "Expected calibration error over the voxels inside the heads: "
    f"|mean probability - share of tumour|, mean over {BINS} bins weighted by voxels.",
    "brier_score": "(probability - truth) squared, mean over the same voxels.",
}
"""What each number of `aggregate` means, in words."""

# those that mean something for a prediction without any pixel
BASELINED = (
    "patient_dice_mean",
    "patient_dice_median",
    "pooled_dice",
    "tumour_slice_dice_mean",
    "slice_dice_mean",
    "calibration_error",
    "brier_score",
)
BASELINE_SUFFIX = "_empty_baseline"


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

    @property
    def dice(self) -> float:
        """Dice of the whole volume; empty against empty is 1."""
        return _dice(self.true_positives, self.predicted_pixels, self.tumour_pixels)

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


Score = TypeVar("Score", bound=PatientScore)


def score_volume(
    entry: VolumeEntry, volume: Volume, probability: Probability, threshold: float
) -> VolumeScore:
    """Scores one prediction.

    Args:
        entry: The volume's entry in the manifest.
        volume: Its voxels, slices x height x width.
        probability: Tumour probability in 0..1, slices x height x width.
        threshold: A pixel is predicted as tumour from this probability on.

    Raises:
        UserError: If the probability has another shape or leaves 0..1.
    """
    _check_probability(entry.volume, volume, probability)
    truth = volume.mask.astype(bool)
    predicted = probability >= threshold
    tumour = _per_slice(truth)
    marked = _per_slice(predicted)
    common = _per_slice(truth & predicted)
    return VolumeScore(
        volume=entry.volume,
        patient=entry.patient,
        site=entry.site,
        slices=len(truth),
        tumour_slices=sum(count > 0 for count in tumour),
        tumour_pixels=sum(tumour),
        predicted_pixels=sum(marked),
        true_positives=sum(common),
        hd95=hausdorff_95(predicted, truth),
        slice_dice=tuple(map(_dice, common, marked, tumour)),
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
        slice_dice=tuple(float(not tumour) for tumour in score.slice_has_tumour),
        reliability=Reliability(
            voxels=(sum(counts.voxels), *nothing),
            probability=(0.0,) * BINS,
            tumour=(sum(counts.tumour), *nothing),
            squared_error=float(sum(counts.tumour)),
        ),
    )


def aggregate(
    scores: Sequence[VolumeScore], resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """All numbers over some patients; `DEFINITIONS` says what each means.

    Those of `BASELINED` come a second time as `<name>_empty_baseline`: what an all-empty
    prediction scores on the same patients. A number that is not defined (a mean over
    nothing, an interval of fewer than two patients) is left out; none is NaN.

    Args:
        scores: At least one.
        resamples: Of the bootstrap over patients.
        seed: Of the bootstrap.
    """
    empty = _measure([empty_score(score) for score in scores])
    baseline = {name + BASELINE_SUFFIX: empty[name] for name in BASELINED if name in empty}
    return _measure(scores) | _interval(scores, resamples, seed) | baseline


def mean_interval(
    values: Sequence[float], confidence: float, resamples: int, seed: int
) -> tuple[float, float]:
    """The two-sided percentile bootstrap interval of the mean of at least two values."""
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        batch=1000,  # bounds the memory for many patients
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def calibration_curve(scores: Iterable[VolumeScore]) -> Reliability:
    """Adds up the voxels of many volumes."""
    counts = [score.reliability for score in scores]
    return Reliability(
        voxels=tuple(map(sum, zip(*(one.voxels for one in counts), strict=True))),
        probability=tuple(map(sum, zip(*(one.probability for one in counts), strict=True))),
        tumour=tuple(map(sum, zip(*(one.tumour for one in counts), strict=True))),
        squared_error=sum(one.squared_error for one in counts),
    )


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


def inside_head(image: Voxels) -> Mask:
    """The voxels over which the calibration is measured.

    "Above 0" would keep nearly all: the background of real scans holds noise.

    Args:
        image: Slices x height x width x 3.

    Returns:
        Where FLAIR is brighter than a tenth of its 99th percentile in this volume.
    """
    flair = image[..., FLAIR]
    return np.asarray(flair > 0.1 * np.percentile(flair[:, ::4, ::4], 99))


def hausdorff_95(predicted: Mask, truth: Mask) -> float | None:
    """The 95th percentile Hausdorff distance of two masks, in pixels.

    The spacing of the data is unknown: a slice step counts as one pixel.

    Args:
        predicted: Slices x height x width.
        truth: The same shape.

    Returns:
        `None` if either is empty.
    """
    if not predicted.any() or not truth.any():
        return None
    # takes seconds to import: register needs it only where there is a champion to score
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    box = _bounding_box(predicted | truth)  # the same value, in a fraction of the time
    with warnings.catch_warnings():
        # MONAI 1.6 passes an argument that it has itself deprecated
        warnings.filterwarnings(
            "ignore", message=".*always_return_as_numpy", category=FutureWarning
        )
        distance = compute_hausdorff_distance(
            predicted[box][None, None],
            truth[box][None, None],
            include_background=True,
            percentile=95,
        )
    return float(distance)


_COLUMNS = (
    *("volume", "patient", "site", "slices", "tumour_pixels", "dice", "precision", "recall"),
    *("hd95", "tumour_slices", "predicted_pixels", "true_positives", "false_positive_pixels"),
)


def write_patient_scores(scores: Sequence[PatientScore], path: Path) -> None:
    """Writes one CSV row a patient; what is undefined stays blank."""
    thirds = size_thirds(scores)
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*_COLUMNS, "size_third"))
        for score in scores:
            row = [getattr(score, column) for column in _COLUMNS]
            writer.writerow((*row, thirds[score.volume]))


def read_patient_scores(path: Path) -> list[PatientScore]:
    """Reads what `write_patient_scores` wrote.

    Raises:
        UserError: If the file is not of that form.
    """
    with open(path, newline="", encoding="utf-8") as stream:
        try:
            return [_parse_row(row) for row in csv.DictReader(stream)]
        except (KeyError, ValueError, TypeError) as error:
            raise UserError(
                f"{path} is not a table of patient scores as evaluate writes it: {error!r}"
            ) from error


def _parse_row(row: dict[str, str]) -> PatientScore:
    parse: dict[object, Callable[[str], object]] = {
        str: str,
        int: int,
        float | None: lambda text: float(text) if text else None,
    }
    return PatientScore(
        **{field.name: parse[field.type](row[field.name]) for field in fields(PatientScore)}  # type: ignore[arg-type]
    )


def _check_probability(name: str, volume: Volume, probability: Probability) -> None:
    if probability.shape != volume.mask.shape:
        raise UserError(
            f"{name}: the model gave {probability.shape}, not {volume.mask.shape} (slices, height, "
            "width)"
        )
    low, high = float(probability.min()), float(probability.max())
    if not (low >= 0 and high <= 1):  # NaN fails both
        raise UserError(
            f"{name}: the model gave values from {low} to {high}, not probabilities in 0..1; "
            "train it again or check what it exports"
        )


def _per_slice(mask: Mask) -> list[int]:
    counts: list[int] = np.count_nonzero(mask, axis=(1, 2)).tolist()
    return counts


def _dice(true_positives: int, predicted: int, tumour: int) -> float:
    return 2 * true_positives / (predicted + tumour) if predicted + tumour else 1.0


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _bounding_box(mask: Mask) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    return tuple(box)


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


def _measure(scores: Sequence[VolumeScore]) -> dict[str, float]:
    dice = [score.dice for score in scores]
    found = {
        "patients": float(len(scores)),
        "patient_dice_mean": float(np.mean(dice)),
        "patient_dice_median": float(np.median(dice)),
        "pooled_dice": _dice(
            sum(score.true_positives for score in scores),
            sum(score.predicted_pixels for score in scores),
            sum(score.tumour_pixels for score in scores),
        ),
        "false_positive_pixels_mean": float(
            np.mean([score.false_positive_pixels for score in scores])
        ),
    }
    found |= _slice_measures(scores)
    for name in ("precision", "recall", "hd95"):
        found |= _where_defined(name, [getattr(score, name) for score in scores])
    return found | _calibration_measures(calibration_curve(scores))


def _slice_measures(scores: Sequence[VolumeScore]) -> dict[str, float]:
    dice = np.concatenate([score.slice_dice for score in scores])
    tumour = np.concatenate([score.slice_has_tumour for score in scores])
    found = {"slice_dice_mean": float(dice.mean())}
    if tumour.any():
        found["tumour_slice_dice_mean"] = float(dice[tumour].mean())
    return found


def _where_defined(name: str, values: Sequence[float | None]) -> dict[str, float]:
    defined = [value for value in values if value is not None]
    found = {f"{name}_undefined": float(len(values) - len(defined))}
    if defined:
        found[f"{name}_mean"] = float(np.mean(defined))
    if defined and name == "hd95":
        found["hd95_median"] = float(np.median(defined))
    return found


def _calibration_measures(curve: Reliability) -> dict[str, float]:
    total = sum(curve.voxels)
    if not total:
        return {}
    gaps = np.abs(np.subtract(curve.probability, curve.tumour))  # already weighted by voxels
    return {
        "calibration_error": float(gaps.sum() / total),
        "brier_score": curve.squared_error / total,
    }


def _interval(scores: Sequence[VolumeScore], resamples: int, seed: int) -> dict[str, float]:
    if len(scores) < 2:
        return {}
    low, high = mean_interval([score.dice for score in scores], 0.95, resamples, seed)
    return {"patient_dice_mean_ci_low": low, "patient_dice_mean_ci_high": high}


def _sites(scores: Sequence[PatientScore]) -> set[str]:
    return {score.site for score in scores}
