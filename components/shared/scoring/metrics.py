"""Metrics over some patients: one table, one row per metric.

To add a metric, add a row: the aggregation, KFP, MLflow and the reports read this table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from components.shared.scoring.intervals import mean_interval
from components.shared.scoring.measures import (
    Measure,
    brier_score,
    calibration_error,
    mean,
    median,
    pooled_dice,
    slice_dice,
    tumour_slice_dice,
    undefined,
)
from components.shared.scoring.patients import by_patient
from components.shared.scoring.scores import (
    BINS,
    SURFACE_TOLERANCE_MM,
    SURFACE_TOLERANCE_PIXELS,
    VolumeScore,
)

BASELINE_SUFFIX = "_empty_baseline"
LOW_SUFFIX = "_ci_low"
HIGH_SUFFIX = "_ci_high"

THRESHOLD = "threshold"
"""Name of the decision threshold, which evaluate's file has next to the metrics."""

_TUMOUR_ML = "tumour_ml_mean"  # exists wherever the geometry is known
_CONFIDENCE = 0.95  # of the intervals


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Number over some patients.

    Attributes:
        name: Name in files, KFP and MLflow.
        label: Label in reports.
        definition: Definition in words.
        measure: Function of at least one patient's score; `None` where it is not defined.
        counts_patients: `True` for a number of patients.
        baseline: `True` if an empty prediction has a value, `<name>_empty_baseline`.
        interval_of: Figure of a patient, for means with an interval over patients:
            `<name>_ci_low` and `<name>_ci_high`.
        undefined: Name of the metric that counts the patients excluded from this one.
        headline: `True` if reports show it in large print.
        by_group: `True` if it is compared between sites and tumour sizes.
        champion_beats_baseline: `True` if a champion must be better than an empty prediction.
        has_floor: `True` if a champion must reach `register.min_patient_dice`.
        listed: `True` if lists of runs show it, so that they can be sorted by it.
        needs_geometry: `True` if it exists only where the geometry of every volume is known.
    """

    name: str
    label: str
    definition: str
    measure: Measure
    counts_patients: bool = False
    baseline: bool = False
    interval_of: Callable[[VolumeScore], float] | None = None
    undefined: str = ""
    headline: bool = False
    by_group: bool = False
    champion_beats_baseline: bool = False
    has_floor: bool = False
    listed: bool = False
    needs_geometry: bool = False


METRICS = (
    Metric(
        name="patients",
        label="patients",
        definition="Patients scored.",
        measure=lambda scores: float(len(scores)),
        counts_patients=True,
        by_group=True,
    ),
    Metric(
        name="patient_dice_mean",
        label="patient Dice, mean",
        definition="Dice of a patient's whole volume, mean over patients.",
        measure=mean(lambda score: score.dice),
        baseline=True,
        interval_of=lambda score: score.dice,
        headline=True,
        by_group=True,
        champion_beats_baseline=True,
        has_floor=True,
        listed=True,
    ),
    Metric(
        name="patient_dice_median",
        label="patient Dice, median",
        definition="Dice of a patient's whole volume, median over patients.",
        measure=median(lambda score: score.dice),
        baseline=True,
        headline=True,
        by_group=True,
        listed=True,
    ),
    Metric(
        name="pooled_dice",
        label="pooled Dice",
        definition="Dice of the pixels of all patients together; large tumours weigh most.",
        measure=pooled_dice,
        baseline=True,
        headline=True,
        by_group=True,
        champion_beats_baseline=True,
        listed=True,
    ),
    Metric(
        name="tumour_slice_dice_mean",
        label="tumour-slice Dice, mean",
        definition="Dice of a single slice, mean over the slices with true tumour.",
        measure=tumour_slice_dice,
        baseline=True,
        headline=True,
    ),
    Metric(
        name="slice_dice_mean",
        label="all-slice Dice, mean",
        definition="Dice of a single slice, mean over all slices; an empty slice left empty "
        "counts 1, one with any false positive 0.",
        measure=slice_dice,
        baseline=True,
        headline=True,
    ),
    Metric(
        name="surface_dice_mean",
        label="surface Dice, mean",
        definition="Normalized surface Dice (NSD): fraction of the surfaces of prediction and "
        f"tumour at most {SURFACE_TOLERANCE_PIXELS} pixels from the other, mean over patients.",
        measure=mean(lambda score: score.surface_dice),
        baseline=True,
        headline=True,
        by_group=True,
    ),
    Metric(
        name="precision_mean",
        label="precision, mean",
        definition="True positives / predicted pixels, mean over patients.",
        measure=mean(lambda score: score.precision),
        undefined="precision_undefined",
        headline=True,
        by_group=True,
    ),
    Metric(
        name="precision_undefined",
        label="precision undefined",
        definition="Patients for whom nothing was predicted: not in the mean.",
        measure=undefined(lambda score: score.precision),
        counts_patients=True,
    ),
    Metric(
        name="recall_mean",
        label="recall, mean",
        definition="True positives / true tumour pixels, mean over patients.",
        measure=mean(lambda score: score.recall),
        undefined="recall_undefined",
        headline=True,
        by_group=True,
    ),
    Metric(
        name="recall_undefined",
        label="recall undefined",
        definition="Patients without tumour: not in the mean.",
        measure=undefined(lambda score: score.recall),
        counts_patients=True,
    ),
    Metric(
        name="hd95_mean",
        label="HD95 in pixels, mean",
        definition="95th percentile Hausdorff distance in pixels, mean over patients.",
        measure=mean(lambda score: score.hd95),
        undefined="hd95_undefined",
    ),
    Metric(
        name="hd95_median",
        label="HD95 in pixels, median",
        definition="The same distance, median over patients.",
        measure=median(lambda score: score.hd95),
        undefined="hd95_undefined",
        headline=True,
        by_group=True,
    ),
    Metric(
        name="hd95_undefined",
        label="HD95 undefined",
        definition="Patients with an empty prediction or without tumour: in neither figure.",
        measure=undefined(lambda score: score.hd95),
        counts_patients=True,
    ),
    Metric(
        name="false_positive_pixels_mean",
        label="false positive pixels, mean",
        definition="Predicted pixels outside the tumour, mean over patients.",
        measure=mean(lambda score: score.false_positive_pixels),
        headline=True,
        by_group=True,
    ),
    Metric(
        name="volume_difference_pixels_mean",
        label="volume difference in pixels, mean",
        definition="|predicted pixels - true tumour pixels|, mean over patients.",
        measure=mean(lambda score: score.volume_difference_pixels),
        baseline=True,
    ),
    Metric(
        name="relative_volume_difference_mean",
        label="relative volume difference, mean",
        definition="|predicted pixels - true tumour pixels| / true tumour pixels, mean over the "
        "patients with tumour.",
        measure=mean(lambda score: score.relative_volume_difference),
        baseline=True,
        undefined="recall_undefined",  # both are fractions of the true tumour pixels
        headline=True,
    ),
    Metric(
        name="calibration_error",
        label="calibration error",
        definition="Average calibration error over the voxels inside the heads: "
        f"|mean probability - fraction of tumour|, mean over those of {BINS} bins with voxels.",
        measure=calibration_error,
        baseline=True,
        headline=True,
    ),
    Metric(
        name="brier_score",
        label="Brier score",
        definition="(probability - truth) squared, mean over the same voxels.",
        measure=brier_score,
        baseline=True,
    ),
    Metric(
        name="hd95_mm_mean",
        label="HD95 in mm, mean",
        definition="95th percentile Hausdorff distance in millimeters, over the area of the "
        "surfaces, mean over patients.",
        measure=mean(lambda score: score.hd95_mm),
        undefined="hd95_undefined",
        needs_geometry=True,
    ),
    Metric(
        name="hd95_mm_median",
        label="HD95 in mm, median",
        definition="The same distance, median over patients.",
        measure=median(lambda score: score.hd95_mm),
        undefined="hd95_undefined",
        headline=True,
        by_group=True,
        needs_geometry=True,
    ),
    Metric(
        name="assd_mm_mean",
        label="ASSD in mm, mean",
        definition="Average symmetric surface distance in millimeters, mean over patients.",
        measure=mean(lambda score: score.assd_mm),
        undefined="hd95_undefined",
        needs_geometry=True,
    ),
    Metric(
        name="surface_dice_2mm_mean",
        label=f"surface Dice at {SURFACE_TOLERANCE_MM} mm, mean",
        definition="Normalized surface Dice (NSD): fraction of the area of the surfaces of "
        f"prediction and tumour at most {SURFACE_TOLERANCE_MM} mm from the other, mean over "
        "patients.",
        measure=mean(lambda score: score.surface_dice_2mm),
        baseline=True,
        headline=True,
        by_group=True,
        needs_geometry=True,
    ),
    Metric(
        name=_TUMOUR_ML,
        label="tumour in ml, mean",
        definition="Size of the true tumour in milliliters, mean over patients.",
        measure=mean(lambda score: score.tumour_ml),
        needs_geometry=True,
    ),
    Metric(
        name="predicted_ml_mean",
        label="predicted tumour in ml, mean",
        definition="Size of the predicted tumour in milliliters, mean over patients.",
        measure=mean(lambda score: score.predicted_ml),
        needs_geometry=True,
    ),
    Metric(
        name="volume_difference_ml_mean",
        label="volume difference in ml, mean",
        definition="|predicted - true tumour size| in milliliters, mean over patients.",
        measure=mean(lambda score: score.volume_difference_ml),
        baseline=True,
        headline=True,
        needs_geometry=True,
    ),
)
"""Every metric, in the order of the reports."""

HEADLINE = tuple(metric.name for metric in METRICS if metric.listed)
"""Metrics by which lists of runs can be sorted."""


def known_metrics(found: Mapping[str, float]) -> list[Metric]:
    """The rows of `METRICS` that some patients have.

    Args:
        found: Result of `aggregate`.
    """
    return [metric for metric in METRICS if _TUMOUR_ML in found or not metric.needs_geometry]


def aggregate(scores: Sequence[VolumeScore]) -> dict[str, float]:
    """Computes `METRICS` over some patients, with intervals and baselines.

    A number that is not defined (a mean over nothing, an interval of fewer than two patients) is
    omitted. None is NaN. Numbers in millimeters and milliliters need the geometry of all volumes.

    Args:
        scores: Scores of at least one patient. Several scans of a patient are averaged first.
    """
    has_geometry = all(score.tumour_ml is not None for score in scores)
    scores = by_patient(scores)
    empty = [score.empty or score for score in scores]
    found: dict[str, float | None] = {}
    for metric in METRICS:
        if metric.needs_geometry and not has_geometry:
            continue
        found[metric.name] = metric.measure(scores)
        if metric.interval_of and len(scores) > 1:
            values = [metric.interval_of(score) for score in scores]
            low, high = mean_interval(values, confidence=_CONFIDENCE)
            found |= {metric.name + LOW_SUFFIX: low, metric.name + HIGH_SUFFIX: high}
        if metric.baseline:
            found[metric.name + BASELINE_SUFFIX] = metric.measure(empty)
    return {name: value for name, value in found.items() if value is not None}


def aggregate_targets(scores: Mapping[str, Sequence[VolumeScore]]) -> dict[str, float]:
    """Computes `METRICS` of each target.

    Args:
        scores: Scores by target, the first target first.

    Returns:
        Metrics of the first target by their names, those of another one as `NAME/metric`.
    """
    first, *further = scores
    found = aggregate(scores[first])
    for name in further:
        found |= with_target(name, aggregate(scores[name]))
    return found


def with_target(target: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Puts the name of a target before the names of its metrics: `core/pooled_dice`."""
    return {f"{target}/{name}": value for name, value in metrics.items()}


def of_target(target: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Selects the metrics that `with_target` named, and restores their names."""
    start = f"{target}/"
    return {
        name.removeprefix(start): value for name, value in metrics.items() if name.startswith(start)
    }


def interval_in_words(metrics: Mapping[str, float], name: str = "patient_dice_mean") -> str:
    """Describes the interval of a metric.

    Args:
        metrics: Result of `aggregate`.
        name: Name of a metric with an interval.
    """
    if name + LOW_SUFFIX not in metrics:
        return "no interval: it takes two patients"
    low, high = metrics[name + LOW_SUFFIX], metrics[name + HIGH_SUFFIX]
    return f"{100 * _CONFIDENCE:g} % interval {low:.3f} to {high:.3f}"
