"""HTML report of a cross-validation."""

from collections.abc import Iterator, Mapping, Sequence

from components.aggregate.figures import spread
from components.aggregate.folds import Fold, joined
from components.shared.dataset.manifest import Manifest
from components.shared.report.dice_charts import dice_by_group
from components.shared.report.page import (
    Block,
    Figures,
    Gallery,
    Picture,
    Section,
    Table,
    draw,
    render_page,
)
from components.shared.report.patients import (
    BOXES,
    baseline_notice,
    dice_pictures,
    first_target_note,
    further_target_note,
    outlines,
    patient_line,
    patient_table,
)
from components.shared.scoring.groups import group
from components.shared.scoring.metrics import BASELINE_SUFFIX, interval_in_words, of_target
from components.shared.scoring.patients import by_patient
from components.shared.scoring.scores import PatientScore


def render_aggregated(
    folds: Sequence[Fold],
    figures: Mapping[str, float],
    overlays: Mapping[str, Gallery],
    manifest: Manifest,
    run_id: str,
) -> str:
    """Renders the report of the folds, with drawn slices of the worst patients, worst first."""
    targets = joined(folds)
    scores = next(iter(targets.values()))
    labels = {score.volume: fold.label for fold in folds for score in fold.scores}
    return render_page(
        "Cross-validation: out-of-fold results",
        f"{figures['patients']:.0f} patients in {len(folds)} folds, "
        f"data set {manifest.dataset_id}, MLflow run {run_id}",
        [
            Section("Headline", [*first_target_note(list(targets)), *_headline(folds, figures)]),
            Section("By fold", _by_fold(folds)),
            Section("By tumour size and site", _by_group(scores)),
            Section("Worst patients", _worst(folds, overlays, manifest.channels.reference)),
            Section("Patients", patient_table(scores, labels)),
            *_further_targets(targets, figures, labels),
            Section("Definitions", _definitions()),
        ],
    )


def _further_targets(
    targets: Mapping[str, Sequence[PatientScore]],
    figures: Mapping[str, float],
    labels: Mapping[str, str],
) -> Iterator[Section]:
    for target, scores in list(targets.items())[1:]:
        found = of_target(target, figures)
        blocks = [
            further_target_note(target),
            _figures(found),
            *baseline_notice(found, target),
            *_by_group(scores),
            *patient_table(scores, labels),
        ]
        yield Section(f"Target {target}", blocks)


def _headline(folds: Sequence[Fold], figures: Mapping[str, float]) -> list[Block]:
    return [
        f"Each of the {figures['patients']:.0f} patients was predicted once, by the one of "
        f"{len(folds)} models that never saw the patient in training or validation.",
        _figures(figures),
        *baseline_notice(figures),
    ]


def _figures(figures: Mapping[str, float]) -> Figures:
    shown = {name: f"{value:.3f}" for name, value in figures.items()}
    baseline = shown["patient_dice_mean" + BASELINE_SUFFIX]
    note = f"{interval_in_words(figures)}; all-empty prediction {baseline}"
    numbers = [
        ("patient Dice, mean", shown["patient_dice_mean"], note),
        ("patient Dice, median", shown["patient_dice_median"], ""),
        ("standard deviation", shown["patient_dice_sd"], "between patients"),
        ("pooled Dice", shown["pooled_dice"], "over the pixels of all patients"),
        ("standard deviation of the folds", shown["fold_dice_sd"], "between the folds' means"),
    ]
    return Figures(numbers)


def _by_fold(folds: Sequence[Fold]) -> list[Block]:
    rows = [
        (
            fold.label,
            *(len(fold.split.patients(part)) for part in ("train", "validation", "test")),
            *spread([score.dice for score in by_patient(fold.scores)]),
            fold.threshold,
            fold.files.run_id,
        )
        for fold in folds
    ]
    columns = ("fold", "train", "validation", "tested", "mean Dice", "median", "sd", "threshold")
    return [
        Picture(
            draw(dice_by_group({fold.label: by_patient(fold.scores) for fold in folds})),
            BOXES,
        ),
        Table((*columns, "MLflow run"), rows),
    ]


def _by_group(scores: Sequence[PatientScore]) -> list[Block]:
    rows = [
        (name.replace("/", " "), len(some), *spread([score.dice for score in some]))
        for name, some in group(by_patient(scores)).items()
    ]
    table = Table(("group", "patients", "mean Dice", "median", "sd"), rows)
    return [*dice_pictures(scores), table]


def _worst(folds: Sequence[Fold], overlays: Mapping[str, Gallery], channel: str) -> list[Block]:
    if not overlays:
        return ["No overlays, because aggregate.overlay_volumes is 0."]
    found = {score.volume: (fold, score) for fold in folds for score in fold.scores}
    drawn = outlines(channel, list(folds[0].targets))
    blocks: list[Block] = [f"{drawn} Each prediction is by the model of the patient's fold."]
    for volume, slices in overlays.items():
        fold, score = found[volume]
        blocks += [f"{patient_line(score)} ({fold.label})", slices]
    return blocks


def _definitions() -> list[Block]:
    return [
        "Patients were assigned to folds, stratified by site and tumour volume. For each fold a "
        "model was trained without it; the validation patients that choose an epoch come from the "
        "other folds too. So no choice depends on the patient that a figure describes.",
        "Dice is of a patient's whole volume. The standard deviation is between patients (n - 1). "
        "95 % interval: t interval of the mean over patients on the logit scale. The folds' models "
        "have most training patients in common, so they are not independent, and the interval "
        "does not show how the mean varies over training runs.",
        "These figures judge the recipe, not a single model: no model was registered or compared "
        "with a champion. Use the training pipeline to train a model for use.",
    ]
