"""HTML report of an evaluation."""

from collections.abc import Iterator, Mapping, Sequence

from components.evaluate.charts import reliability, training_curves
from components.evaluate.results import Evaluation, aggregate_groups
from components.evaluate.settings import EvaluateSettings
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
    render_page,
    show,
)
from components.shared.report.patients import (
    baseline_notice,
    dice_pictures,
    first_target_note,
    further_target_note,
    outlines,
    patient_line,
    patient_table,
)
from components.shared.report.training_history import TrainingHistory
from components.shared.scoring.decision import decision_text
from components.shared.scoring.groups import tumour_sizes
from components.shared.scoring.metrics import (
    BASELINE_SUFFIX,
    Metric,
    interval_in_words,
    known_metrics,
    of_target,
)
from components.shared.scoring.scores import (
    BINS,
    SURFACE_TOLERANCE_PIXELS,
    PatientScore,
    calibration_curve,
)

_IN_MM = (
    "In millimeters, the surface lies halfway between the centers of pixels inside and outside, "
    "and each part of it counts by its area (Nikolov et al., arXiv:1809.04430). ASSD is the mean "
    "distance of both surfaces to the other one; it is undefined where HD95 is."
)


def render_evaluation(
    evaluation: Evaluation,
    overlays: Mapping[tuple[str, str], Gallery],
    history: TrainingHistory,
    origin: str,
    settings: EvaluateSettings,
) -> str:
    """Renders the report.

    Args:
        evaluation: Scores and metrics.
        overlays: Drawn slices by rank and volume, as `ranked_volumes` picks them.
        history: History of the training run.
        origin: Ids of data set, split and MLflow run in words.
        settings: Settings of the step.
    """
    scores, metrics, targets = evaluation.scores, evaluation.metrics, list(evaluation.targets)
    return render_page(
        "Evaluation on held-out patients",
        f"{metrics['patients']:.0f} test patients, {origin}",
        [
            Section("Headline", [*first_target_note(targets), *_headline(metrics)]),
            Section("All figures", _all_figures(metrics)),
            Section("By tumour size and site", _groups(scores, metrics, evaluation.groups)),
            Section("Best, median and worst", _overlays(evaluation, overlays)),
            Section("Patients", patient_table(scores)),
            Section("Calibration", _calibration(evaluation)),
            *_further_targets(evaluation),
            *_training(history),
            Section("Definitions", _definitions(evaluation, settings)),
        ],
    )


def _further_targets(evaluation: Evaluation) -> Iterator[Section]:
    for name, scores in list(evaluation.targets.items())[1:]:
        metrics = of_target(name, evaluation.metrics)
        blocks = [
            further_target_note(name),
            *_headline(metrics, name),
            _figures_table(metrics),
            *_groups(scores, metrics, aggregate_groups(scores)),
            *patient_table(scores),
        ]
        yield Section(f"Target {name}", blocks)


def _headline(metrics: Mapping[str, float], what: str = "tumours") -> list[Block]:
    cards = [
        (metric.label, show(metrics.get(metric.name)), _note(metric, metrics))
        for metric in known_metrics(metrics)
        if metric.headline
    ]
    return [Figures(cards), *baseline_notice(metrics, what)]


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
    empty = metrics["slice_dice_mean" + BASELINE_SUFFIX]
    return [
        Notice(
            "warning",
            "slice_dice_mean is high for every model and not comparable with the patient Dice: "
            "most slices have no tumour, and each such slice that stays empty counts as 1. An "
            f"all-empty prediction scores {empty:.3f} on these patients. The metric is listed for "
            "comparison with reports that use it; the headline is the patient Dice.",
        ),
        _figures_table(metrics),
    ]


def _figures_table(metrics: Mapping[str, float]) -> Table:
    return Table.of(
        known_metrics(metrics),
        {
            "figure": lambda metric: metric.name,
            "value": lambda metric: _cell(metric, metrics),
            "all-empty prediction": lambda metric: metrics.get(metric.name + BASELINE_SUFFIX),
            "definition": lambda metric: _definition(metric, metrics),
        },
    )


def _cell(metric: Metric, metrics: Mapping[str, float]) -> Cell:
    value = metrics.get(metric.name)
    return int(value) if metric.counts_patients and value is not None else value


def _definition(metric: Metric, metrics: Mapping[str, float]) -> str:
    if not metric.interval_of:
        return metric.definition
    return f"{metric.definition} Here: {interval_in_words(metrics, metric.name)}."


def _groups(
    scores: Sequence[PatientScore],
    metrics: Mapping[str, float],
    groups: Mapping[str, Mapping[str, float]],
) -> list[Block]:
    compared = [metric for metric in known_metrics(metrics) if metric.by_group]
    rows = [
        (name.replace("/", " "), *(_cell(metric, found) for metric in compared))
        for name, found in groups.items()
    ]
    table = Table(("group", *(metric.label for metric in compared)), rows)
    return [*dice_pictures(scores), table]


def _overlays(evaluation: Evaluation, overlays: Mapping[tuple[str, str], Gallery]) -> list[Block]:
    by_name = {score.volume: score for score in evaluation.scores}
    blocks: list[Block] = [outlines(evaluation.reference, list(evaluation.targets))]
    for (rank, volume), gallery in overlays.items():
        blocks += [f"{rank.capitalize()}: {patient_line(by_name[volume])}", gallery]
    return blocks


def _calibration(evaluation: Evaluation) -> list[Block]:
    curve = calibration_curve(evaluation.scores)
    if not sum(curve.voxels):
        text = f"No voxel is inside a head: {evaluation.reference} is 0 everywhere."
        return [Notice("warning", text)]
    return [
        Picture(
            draw(reliability(curve)),
            "Fraction of voxels with tumour (vertical) by predicted probability (horizontal), over "
            f"{sum(curve.voxels):,} voxels inside the heads. The model is overconfident of tumour "
            "below the dashed line, and underconfident above it.",
            width_px=460,
        )
    ]


def _training(history: TrainingHistory) -> Iterator[Section]:
    second = " of the second network, for scans without a sequence"
    for label, member in history.members.items():
        yield Section(f"Training of {label}", _curves(member))
    networks = () if history.members else ((history, ""), (history.flair, second))
    for network, suffix in networks:
        if network:
            yield Section(f"Training{suffix}", _curves(network))
        if network and network.learning_rate_search:
            yield Section(f"Learning rate{suffix}", search_blocks(network.learning_rate_search))


def _curves(history: TrainingHistory) -> list[Block]:
    if not history.epochs:
        return ["The training run left no history."]
    dice = {int(row["epoch"]): row["validation_dice"] for row in history.epochs}
    best = max(dice, key=dice.__getitem__)
    kept = best if history.exported is None else history.exported
    exported = "this epoch" if kept == best else f"epoch {kept} (Dice {dice[kept]:.3f})"
    return [
        Picture(
            draw(training_curves(history.epochs)),
            f"Best validation Dice {dice[best]:.3f}, in epoch {best}. The exported weights are "
            f"those of {exported}. The validation patients are not the test patients above.",
        ),
        *_start(history),
    ]


def _unit(scores: Sequence[PatientScore]) -> str:
    unknown = sum(score.tumour_ml is None for score in scores)
    if not unknown:
        return "The unit is a pixel, and one slice step counts as one pixel."
    if unknown == len(scores):
        return (
            "The data have no spacing, so the unit is a pixel, and one slice step counts as one "
            "pixel."
        )
    return (
        "The unit is a pixel, and one slice step counts as one pixel. Metrics in millimeters and "
        f"milliliters are left out: the spacing of {unknown} of {len(scores)} volumes is unknown."
    )


def _start(history: TrainingHistory) -> list[Block]:
    return [f"The network started from {history.start}."] if history.start else []


def _definitions(evaluation: Evaluation, settings: EvaluateSettings) -> list[Block]:
    unit, _ = tumour_sizes(evaluation.scores)
    return [
        decision_text(settings.threshold, evaluation.min_component_fraction)
        + " The scored model is the exported model, as it is registered and served.",
        "Dice is 2 x true positives / (predicted pixels + true tumour pixels). Patient Dice is "
        "computed over the whole volume at once. For a patient without tumour it is 1 if nothing "
        "is predicted, otherwise 0. The same holds for a single slice.",
        "All-empty prediction: score of a model that marks nothing on the same patients, "
        "computed by the same code. Only the distance from this score shows skill.",
        "95 % interval: t interval of the mean over patients. It is computed on the logit scale, "
        "so it stays within 0 and 1 and extends further down, where bad patients are. It shows "
        "how the mean depends on the choice of test patients, not how it varies over training "
        "runs.",
        "HD95: 95th percentile Hausdorff distance between the surfaces in three dimensions, the "
        "larger of both directions. The surface of a mask is its pixels with a neighbor outside. "
        f"{_unit(evaluation.scores)} Surface Dice: the fraction of both surfaces that lies within "
        f"{SURFACE_TOLERANCE_PIXELS} pixels of the other, 1 if both are empty.",
        *([_IN_MM] if unit == "ml" else []),
        "HD95 is undefined if prediction or truth is empty, precision if nothing is predicted, "
        "recall and relative volume difference if there is no tumour. Means leave out undefined "
        "values; the table has their number.",
        f"Size thirds are by rank of the true tumour {unit} among these test patients.",
        f"Calibration is over the voxels inside the heads: those where {evaluation.reference} is "
        "brighter than a tenth of the volume's 99th percentile. The background is easy and would "
        f"hide errors. Probabilities are binned into {BINS} bins of equal width.",
    ]
