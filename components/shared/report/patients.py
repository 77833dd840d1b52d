"""Tables, charts and galleries of patients that several reports show."""

from collections.abc import Mapping, Sequence

from components.shared.report.dice_charts import dice_by_group, dice_by_size
from components.shared.report.overlay import OUTLINES
from components.shared.report.page import Block, Notice, Picture, Table, draw, show
from components.shared.scoring.groups import group, size_thirds, tumour_sizes
from components.shared.scoring.metrics import BASELINE_SUFFIX
from components.shared.scoring.patients import by_patient
from components.shared.scoring.scores import PatientScore, known_figures

BOXES = "Every point is a patient. The box holds the middle half, the line is the median."


def outlines(channel: str, targets: Sequence[str]) -> str:
    """Explains the drawn slices of a channel with the outlines of targets."""
    if len(targets) == 1:
        return f"{channel}, with the true outline in green and the predicted outline in magenta."
    colors = [
        f"{name} ({outline.truth_name} and {outline.prediction_name})"
        for name, outline in zip(targets, OUTLINES, strict=False)
    ]
    return f"{channel}, with the true and the predicted outline of {', '.join(colors)}."


def first_target_note(targets: Sequence[str]) -> list[str]:
    """Names the one of several targets to which figures without a target's name belong."""
    if len(targets) == 1:
        return []
    return [
        f"The model finds {len(targets)} targets: {', '.join(targets)}. Figures, charts and tables "
        f"that name no target are those of {targets[0]}, the first one; tumour means {targets[0]} "
        "there."
    ]


def further_target_note(target: str) -> str:
    """Explains the section of a target other than the first."""
    return (
        f"In this section, tumour means {target}. In files and in MLflow, the metrics have the "
        f"names {target}/patient_dice_mean and so on."
    )


def baseline_notice(metrics: Mapping[str, float], what: str = "tumours") -> list[Notice]:
    """Warns if the mean patient Dice is not above that of an all-empty prediction.

    Args:
        metrics: Metrics of one target.
        what: Noun for the target.
    """
    mean = metrics["patient_dice_mean"]
    baseline = metrics["patient_dice_mean" + BASELINE_SUFFIX]
    if mean > baseline:
        return []
    text = (
        f"The mean patient Dice of {mean:.3f} is not above the {baseline:.3f} of an all-empty "
        f"prediction: the model has not learned to find {what}."
    )
    return [Notice("bad", text)]


def dice_pictures(scores: Sequence[PatientScore]) -> list[Block]:
    """Charts of patient Dice by tumour size, and by site and size group.

    Several scans of a patient are averaged first.
    """
    scores = by_patient(scores)
    unit, _ = tumour_sizes(scores)
    without = sum(not score.tumour_pixels for score in scores)
    note = f" Patients without tumour, not shown: {without}." if without else ""
    return [
        Picture(
            draw(dice_by_size(scores)),
            f"Every point is a patient: Dice against true tumour size.{note}",
        ),
        Picture(
            draw(dice_by_group(group(scores))),
            f"{BOXES} Small, medium and large are thirds of these patients by tumour {unit}.",
        ),
    ]


def patient_line(score: PatientScore) -> str:
    """Dice and tumour size of a patient in one line."""
    size = f"{score.tumour_pixels:,} tumour pixels, {score.predicted_pixels:,} predicted"
    if score.tumour_ml is not None:
        size = f"tumour {show(score.tumour_ml)} ml, predicted {show(score.predicted_ml)} ml"
    return f"{score.volume}, site {score.site}: Dice {score.dice:.3f}, {size}"


def patient_table(scores: Sequence[PatientScore], folds: Mapping[str, str] = {}) -> list[Block]:
    """Table of all figures of each patient, worst Dice first.

    Args:
        scores: One per volume.
        folds: Label of the fold by volume; empty for a single test part.
    """
    thirds = size_thirds(scores)
    figures = known_figures(scores).items()
    labels = {name: figure.label for name, figure in figures if figure.label}
    rows = [
        (
            score.volume,
            *([folds[score.volume]] if folds else []),
            score.site,
            thirds[score.volume],
            *(getattr(score, name) for name in labels),
        )
        for score in sorted(scores, key=lambda score: score.dice)
    ]
    columns = ("volume", *(["fold"] if folds else []), "site", "size")
    return [
        "Worst patient first; click on a column's head to sort by it. HD95, tumour, predicted, "
        "false (predicted outside the tumour) and volume difference (unsigned) are in pixels"
        f"{' unless the head names a unit' if 'tumour_ml' in labels else ''}. The "
        "relative difference is a fraction of the tumour. A dash is an undefined value.",
        *scans_note(scores),
        Table((*columns, *labels.values()), rows),
    ]


def scans_note(scores: Sequence[PatientScore]) -> list[str]:
    """Explains rows of volumes if a patient has several."""
    if len(by_patient(scores)) == len(scores):
        return []
    return [
        "A patient with several scans has a row for each. Means, intervals and charts are over "
        "patients: scans are averaged first."
    ]
