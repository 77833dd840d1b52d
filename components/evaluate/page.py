"""The evaluation report: one HTML page that needs no network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from components.evaluate.charts import reliability, training_curves
from components.evaluate.results import Evaluation, ranked_volumes
from components.evaluate.settings import EvaluateSettings
from components.shared.report.dice_charts import dice_by_group, dice_by_size
from components.shared.report.learning_rate import search_blocks
from components.shared.report.page import (
    Block,
    Cell,
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    photograph,
    render_page,
    show,
)
from components.shared.report.slices import Overlay
from components.shared.report.training_history import TrainingHistory
from components.shared.scoring.decision import decision_text
from components.shared.scoring.groups import group, size_thirds
from components.shared.scoring.metrics import BASELINE_SUFFIX, METRICS, Metric, interval_in_words
from components.shared.scoring.scores import (
    BINS,
    PATIENT_FIGURES,
    SURFACE_TOLERANCE_PIXELS,
    PatientScore,
    calibration_curve,
)


@dataclass(frozen=True)
class Origin:
    """What was evaluated, for the head of the page."""

    dataset_id: str
    split_id: str
    mlflow_run_id: str


def render_evaluation(
    evaluation: Evaluation,
    overlays: Mapping[str, Sequence[Overlay]],
    history: TrainingHistory,
    origin: Origin,
    settings: EvaluateSettings,
) -> str:
    """Renders the report.

    Args:
        evaluation: The scores and all numbers.
        overlays: Drawn slices of the volumes that `ranked_volumes` picks.
        history: Of the training.
        origin: What was evaluated.
        settings: Of the step.
    """
    scores = evaluation.scores
    return render_page(
        "Evaluation on held-out patients",
        f"{len(scores)} test patients, data set {origin.dataset_id}, split {origin.split_id}, "
        f"MLflow run {origin.mlflow_run_id}",
        [
            Section("Headline", _headline(evaluation.metrics)),
            Section("All figures", _all_figures(evaluation.metrics)),
            Section("By tumour size and site", _groups(evaluation)),
            Section("Best, median and worst", _overlays(evaluation, overlays, settings)),
            Section("Patients", _patients(scores)),
            Section("Calibration", _calibration(evaluation)),
            *_training(history),
            Section("How each number is defined", _definitions(evaluation, settings)),
        ],
    )


def _headline(metrics: Mapping[str, float]) -> list[Block]:
    cards = [
        (metric.label, show(metrics.get(metric.name)), _note(metric, metrics))
        for metric in METRICS
        if metric.headline
    ]
    blocks: list[Block] = [Figures(cards)]
    mean = metrics["patient_dice_mean"]
    baseline = metrics["patient_dice_mean" + BASELINE_SUFFIX]
    if mean <= baseline:
        blocks.append(
            Notice(
                "bad",
                f"The mean patient Dice of {mean:.3f} is not above the {baseline:.3f} of a "
                "prediction that marks nothing: this model has not learnt to find tumours.",
            )
        )
    return blocks


def _note(metric: Metric, metrics: Mapping[str, float]) -> str:
    notes = []
    if metric.interval_of:
        notes.append(interval_in_words(metrics, metric.name))
    if metric.name + BASELINE_SUFFIX in metrics:
        notes.append(f"all-empty prediction {show(metrics[metric.name + BASELINE_SUFFIX])}")
    undefined = metrics.get(metric.undefined, 0)
    if undefined:
        notes.append(f"undefined for {undefined:.0f} of {metrics['patients']:.0f}")
    return "; ".join(notes)


def _all_figures(metrics: Mapping[str, float]) -> list[Block]:
    empty_share = metrics["slice_dice_mean" + BASELINE_SUFFIX]
    return [
        Notice(
            "warning",
            "slice_dice_mean is high for every model and not comparable with the Dice of patients: "
            "most slices have no tumour, and each that is left empty counts 1. Marking nothing at "
            f"all scores {empty_share:.3f} on these patients. It is here to compare with reports "
            "that use it; the headline is the patient Dice.",
        ),
        Table(
            ("figure", "value", "all-empty prediction", "definition"),
            [
                (
                    metric.name,
                    _cell(metric, metrics),
                    metrics.get(metric.name + BASELINE_SUFFIX),
                    _definition(metric, metrics),
                )
                for metric in METRICS
            ],
        ),
    ]


def _cell(metric: Metric, metrics: Mapping[str, float]) -> Cell:
    value = metrics.get(metric.name)
    return int(value) if metric.counts_patients and value is not None else value


def _definition(metric: Metric, metrics: Mapping[str, float]) -> str:
    if not metric.interval_of:
        return metric.definition
    return f"{metric.definition} Here: {interval_in_words(metrics, metric.name)}."


def _groups(evaluation: Evaluation) -> list[Block]:
    without = sum(not score.tumour_pixels for score in evaluation.scores)
    note = f" Patients without tumour, not shown: {without}." if without else ""
    compared = [metric for metric in METRICS if metric.by_group]
    rows = [
        (name.replace("/", " "), *(_cell(metric, found) for metric in compared))
        for name, found in evaluation.groups.items()
    ]
    return [
        Picture(
            draw(dice_by_size(evaluation.scores)),
            f"Every point is a patient: Dice against the true tumour's size.{note}",
        ),
        Picture(
            draw(dice_by_group(group(evaluation.scores))),
            "Every point is a patient; the box holds the middle half, the line is the median. "
            "Small, medium and large are thirds of these test patients by tumour pixels.",
        ),
        Table(("group", *(metric.label for metric in compared)), rows),
    ]


def _overlays(
    evaluation: Evaluation,
    overlays: Mapping[str, Sequence[Overlay]],
    settings: EvaluateSettings,
) -> list[Block]:
    by_name = {score.volume: score for score in evaluation.scores}
    blocks: list[Block] = [
        "FLAIR, with the true outline in green and the predicted one in magenta."
    ]
    for rank, volumes in ranked_volumes(evaluation.scores, settings.overlay_volumes).items():
        for volume in volumes:
            blocks.append(f"{rank.capitalize()}: {_patient_line(by_name[volume])}")
            blocks.append(
                Gallery(
                    [
                        Picture(photograph(overlay.pixels), overlay.caption, width_px=320)
                        for overlay in overlays[volume]
                    ]
                )
            )
    return blocks


def _patient_line(score: PatientScore) -> str:
    return (
        f"{score.volume}, Dice {score.dice:.3f}, {score.tumour_pixels:,} tumour pixels, "
        f"{score.predicted_pixels:,} predicted"
    )


def _patients(scores: Sequence[PatientScore]) -> list[Block]:
    thirds = size_thirds(scores)
    figures = [figure for figure in PATIENT_FIGURES if figure.label]
    rows = [
        (
            score.volume,
            score.site,
            thirds[score.volume],
            *(getattr(score, figure.name) for figure in figures),
        )
        for score in sorted(scores, key=lambda score: score.dice)
    ]
    return [
        "Worst first; a click on a column's head sorts by it. HD95, tumour, predicted, false "
        "(predicted outside the tumour) and volume difference (without sign) are in pixels, the "
        "relative difference is a share of the tumour. A dash is an undefined value.",
        Table(("volume", "site", "size", *(figure.label for figure in figures)), rows),
    ]


def _calibration(evaluation: Evaluation) -> list[Block]:
    curve = calibration_curve(evaluation.scores)
    if not sum(curve.voxels):
        return [Notice("warning", "No voxel is inside a head: FLAIR is 0 everywhere.")]
    return [
        Picture(
            draw(reliability(curve)),
            "Of the voxels that got a probability (across), how many are tumour (up), over "
            f"{sum(curve.voxels):,} voxels inside the heads. Below the dashed line the model is "
            "too sure of tumour, above it not sure enough.",
            width_px=460,
        )
    ]


def _training(history: TrainingHistory) -> Iterator[Section]:
    yield from _course(history, "")
    if history.flair:
        yield from _course(history.flair, " of the second network, for scans without a sequence")


def _course(history: TrainingHistory, whose: str) -> Iterator[Section]:
    yield Section(f"Training{whose}", _curves(history))
    if history.learning_rate_search:
        yield Section(f"Learning rate{whose}", search_blocks(history.learning_rate_search))


def _curves(history: TrainingHistory) -> list[Block]:
    if not history.epochs:
        return ["The training left no history."]
    dice = {int(row["epoch"]): row["validation_dice"] for row in history.epochs}
    best = max(dice, key=dice.__getitem__)
    kept = history.exported
    exported = "its" if kept in (None, best) else f"epoch {kept}'s (Dice {dice[kept]:.3f})"
    return [
        Picture(
            draw(training_curves(history.epochs)),
            f"Best validation Dice {dice[best]:.3f}, in epoch {best}; exported are {exported} "
            "weights. These are validation patients, not the test patients above.",
        )
    ]


def _definitions(evaluation: Evaluation, settings: EvaluateSettings) -> list[Block]:
    return [
        decision_text(settings.threshold, evaluation.min_component_fraction)
        + " The model that is scored is the exported one, as it is registered and served.",
        "Dice is 2 x true positives / (predicted pixels + true tumour pixels). The Dice of a "
        "patient is over the whole volume at once. Where a patient has no tumour it is 1 if "
        "nothing was predicted and 0 if anything was. The same holds for a single slice.",
        "All-empty prediction: what a model that marks nothing gets on the same patients, "
        "computed by the same code. A figure is worth its distance from that.",
        "95 % interval: t interval of the mean over patients, made on the logit scale so that it "
        "stays within 0 and 1 and reaches further down, where the bad patients are. It tells how "
        "much the mean depends on which patients are in the test, not how it would vary over "
        "trainings.",
        "HD95: 95th percentile Hausdorff distance between the surfaces in three dimensions, the "
        "larger of both directions. The surface of a mask is its pixels with a neighbour outside. "
        "The data do not give a spacing, so the unit is a pixel and one slice step counts as one "
        "pixel. Surface Dice, from the same distances: the share of both surfaces that lies within "
        f"{SURFACE_TOLERANCE_PIXELS} pixels of the other; empty against empty is 1.",
        "HD95 is undefined where prediction or truth is empty, precision where nothing was "
        "predicted, recall and relative volume difference where there is no tumour. Undefined "
        "values are in no mean; how many there are stands in the table.",
        "Size thirds are by rank of the true tumour pixels among these test patients.",
        "Calibration is over the voxels inside the heads, here: where FLAIR is brighter than a "
        "tenth of its 99th percentile in the volume. The background is easy and would hide "
        f"errors. The probability is cut into {BINS} equally wide bins.",
    ]
