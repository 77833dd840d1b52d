"""The report of a cross-validation: one HTML page that needs no network."""

from collections.abc import Mapping, Sequence

from components.aggregate.figures import spread
from components.aggregate.folds import Fold
from components.shared.report.dice_charts import dice_by_group, dice_by_size
from components.shared.report.page import (
    Block,
    Figures,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    photograph,
    render_page,
)
from components.shared.report.slices import Overlay
from components.shared.scoring.groups import group, size_thirds
from components.shared.scoring.metrics import BASELINE_SUFFIX, interval_in_words
from components.shared.scoring.scores import PATIENT_FIGURES, PatientScore


def render_pooled(
    folds: Sequence[Fold],
    figures: Mapping[str, float],
    overlays: Mapping[str, Sequence[Overlay]],
    dataset_id: str,
    run_id: str,
) -> str:
    """Renders the report.

    Args:
        folds: In the order of their numbers.
        figures: Of `components.aggregate.figures.pooled_figures`.
        overlays: Drawn slices of the worst patients, the worst first.
        dataset_id: Version of the data set.
        run_id: The pipeline run's MLflow run.
    """
    scores = [score for fold in folds for score in fold.scores]
    return render_page(
        "Cross-validation: out-of-fold results",
        f"{len(scores)} patients in {len(folds)} folds, data set {dataset_id}, MLflow run {run_id}",
        [
            Section("Headline", _headline(folds, figures)),
            Section("By fold", _by_fold(folds)),
            Section("By tumour size and site", _by_group(scores)),
            Section("Worst patients", _worst(folds, overlays)),
            Section("Patients", _patients(folds)),
            Section("How to read this", _definitions()),
        ],
    )


def _headline(folds: Sequence[Fold], figures: Mapping[str, float]) -> list[Block]:
    mean, empty = figures["patient_dice_mean"], figures["patient_dice_mean" + BASELINE_SUFFIX]
    blocks: list[Block] = [
        f"Each of the {figures['patients']:.0f} patients was predicted once, by the one of "
        f"{len(folds)} models that never saw the patient: neither trained on nor chosen by.",
        Figures(
            [
                (
                    "patient Dice, mean",
                    f"{mean:.3f}",
                    f"{interval_in_words(figures)}; all-empty prediction {empty:.3f}",
                ),
                ("patient Dice, median", f"{figures['patient_dice_median']:.3f}", ""),
                ("standard deviation", f"{figures['patient_dice_sd']:.3f}", "between patients"),
                ("pooled Dice", f"{figures['pooled_dice']:.3f}", "of all pixels together"),
                (
                    "standard deviation of folds",
                    f"{figures['fold_dice_sd']:.3f}",
                    "between the folds' means",
                ),
            ]
        ),
    ]
    if mean <= empty:
        text = f"The mean of {mean:.3f} is not above the {empty:.3f} of marking nothing."
        blocks.append(Notice("bad", text))
    return blocks


def _by_fold(folds: Sequence[Fold]) -> list[Block]:
    rows = [
        (
            fold.label,
            *(len(fold.split.patients(part)) for part in ("train", "validation", "test")),
            *spread([score.dice for score in fold.scores]),
            fold.threshold,
            fold.run_id,
        )
        for fold in folds
    ]
    columns = ("fold", "train", "validation", "tested", "mean Dice", "median", "sd", "threshold")
    return [
        Picture(
            draw(dice_by_group({fold.label: fold.scores for fold in folds})),
            "Every point is a patient; the box holds the middle half, the line is the median.",
        ),
        Table((*columns, "MLflow run"), rows),
    ]


def _by_group(scores: Sequence[PatientScore]) -> list[Block]:
    groups = group(scores)
    rows = [
        (name.replace("/", " "), len(some), *spread([score.dice for score in some]))
        for name, some in groups.items()
    ]
    return [
        Picture(draw(dice_by_size(scores)), "Dice against the true tumour's size."),
        Picture(
            draw(dice_by_group(groups)),
            "Every point is a patient. Small, medium and large are thirds by tumour pixels.",
        ),
        Table(("group", "patients", "mean Dice", "median", "sd"), rows),
    ]


def _worst(folds: Sequence[Fold], overlays: Mapping[str, Sequence[Overlay]]) -> list[Block]:
    found = {score.volume: (fold, score) for fold in folds for score in fold.scores}
    blocks: list[Block] = [
        "FLAIR, with the true outline in green and the predicted one in magenta; predicted by the "
        "model of the patient's own fold."
    ]
    for volume, slices in overlays.items():
        fold, score = found[volume]
        pictures = [Picture(photograph(one.pixels), one.caption, width_px=320) for one in slices]
        blocks += [
            f"{volume}, {fold.label}, site {score.site}: Dice {score.dice:.3f}, "
            f"{score.tumour_pixels:,} tumour pixels, {score.predicted_pixels:,} predicted",
            Gallery(pictures),
        ]
    return blocks if overlays else ["None was asked for (aggregate.overlay_volumes)."]


def _patients(folds: Sequence[Fold]) -> list[Block]:
    scores = [score for fold in folds for score in fold.scores]
    label = {score.volume: fold.label for fold in folds for score in fold.scores}
    thirds = size_thirds(scores)
    shown = [figure for figure in PATIENT_FIGURES if figure.label]
    rows = [
        (
            score.volume,
            label[score.volume],
            score.site,
            thirds[score.volume],
            *(getattr(score, figure.name) for figure in shown),
        )
        for score in sorted(scores, key=lambda score: score.dice)
    ]
    return [
        "Worst first; a click on a column's head sorts by it. A dash is an undefined value.",
        Table(("volume", "fold", "site", "size", *(figure.label for figure in shown)), rows),
    ]


def _definitions() -> list[Block]:
    return [
        "The patients were dealt to folds, stratified by site and tumour volume. For each fold a "
        "model was trained without it; the patients by whom its epochs were compared come from "
        "the other folds too. So nothing was chosen on the patient that a figure is about.",
        "Dice is of a patient's whole volume. The standard deviation is between patients (n - 1). "
        "95 % interval: t interval of the mean over patients on the logit scale. The folds' models "
        "share most of their training patients, so they are not independent, and the interval "
        "tells nothing of how the mean would vary over other trainings.",
        "These figures judge the recipe, not one model: no model was registered, and none was put "
        "before a gate. A model for use is trained by the training pipeline.",
    ]
