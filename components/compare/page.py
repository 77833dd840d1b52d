"""The report of a comparison: one HTML page that needs no network."""

from collections.abc import Sequence

import numpy as np

from components.compare.charts import dice_against_cost, differences
from components.compare.ranking import Ranked, is_clear
from components.compare.settings import CompareSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.report.page import (
    Block,
    Cell,
    Gallery,
    Notice,
    Picture,
    Section,
    Table,
    draw,
    photograph,
    render_page,
)
from components.shared.scoring.groups import size_thirds


def render_comparison(
    ranked: Sequence[Ranked],
    shown: Sequence[str],
    dataset: SplitDataset,
    settings: CompareSettings,
    run_id: str,
) -> str:
    """Renders the report.

    Args:
        ranked: The models, the best first.
        shown: Volumes that every model has drawn.
        dataset: What they were compared on.
        settings: Of the step.
        run_id: The pipeline run's MLflow run.
    """
    patients = len(ranked[0].contender.scores)
    return render_page(
        "Comparison of recipes on validation patients",
        f"{len(ranked)} recipes, {patients} validation patients, data set "
        f"{dataset.manifest.dataset_id}, split {dataset.split.split_id}, MLflow run {run_id}",
        [
            Section("Choice", _choice(ranked, dataset)),
            Section("Recipes", _recipes(ranked, settings)),
            Section("Differences, patient by patient", _differences(ranked, settings)),
            Section("Same patients side by side", _overlays(ranked, shown)),
            Section("Patients", _patients(ranked)),
            Section("How to read this", _definitions(settings)),
        ],
    )


def _choice(ranked: Sequence[Ranked], dataset: SplitDataset) -> list[Block]:
    best, tested = ranked[0].contender, len(dataset.split.patients("test"))
    blocks: list[Block] = [
        Notice(
            "good",
            f"{best.label} is chosen: its mean patient Dice of {best.dice:.3f} is the highest on "
            f"the {len(best.scores)} validation patients.",
        ),
        f"The choice was made on validation patients alone. The {tested} test patients were not "
        "looked at for it. Only the chosen model meets them (its evaluation) and the gate (its "
        "decision). The Dice above is of the patients that it was chosen by, and so too good: "
        "the figure to quote is that of the evaluation.",
    ]
    unclear = [each.contender.label for each in ranked[1:] if not is_clear(each)]
    if unclear:
        text = (
            "Chance may be behind the choice: on so few patients these are not shown to be worse: "
            f"{', '.join(unclear)}."
        )
        blocks.append(Notice("warning", text))
    return blocks


def _recipes(ranked: Sequence[Ranked], settings: CompareSettings) -> list[Block]:
    rows = [
        (
            one.label,
            one.dice,
            float(np.median([score.dice for score in one.scores])),
            each.against_best.difference if each.against_best else None,
            each.against_best.low if each.against_best else None,
            each.against_best.high if each.against_best else None,
            one.train_minutes,
            one.parameters / 1e6,
            one.predict_seconds,
            one.trained.run_id,
        )
        for each in ranked
        for one in [each.contender]
    ]
    columns = ("recipe", "mean Dice", "median", "difference to the best", "low", "high")
    costs = ("training, min", "parameters, M", "prediction, s", "MLflow run")
    return [
        Picture(draw(dice_against_cost(ranked)), "Up is better, left is cheaper."),
        f"Low and high: {settings.confidence:.0%} interval of the mean paired difference.",
        Table((*columns, *costs), rows),
    ]


def _differences(ranked: Sequence[Ranked], settings: CompareSettings) -> list[Block]:
    if not any(each.against_best for each in ranked):
        return ["There are none: it takes two recipes and two validation patients."]
    return [
        Picture(
            draw(differences(ranked)),
            "Points are patients, the diamond is their mean, the bar its "
            f"{settings.confidence:.0%} interval. Left of 0 the chosen recipe is better.",
        )
    ]


def _overlays(ranked: Sequence[Ranked], shown: Sequence[str]) -> list[Block]:
    blocks: list[Block] = [
        "FLAIR at the largest tumour area, with the true outline in green and the predicted one "
        "in magenta. The patients are the first names of each third by tumour size."
    ]
    for volume in shown:
        pictures = []
        for each in ranked:
            (dice,) = [one.dice for one in each.contender.scores if one.volume == volume]
            source = photograph(each.contender.overlays[volume])
            pictures.append(Picture(source, f"{each.contender.label}: Dice {dice:.3f}", 240))
        blocks += [volume, Gallery(pictures)]
    return blocks if shown else ["None was asked for (compare.overlay_volumes)."]


def _patients(ranked: Sequence[Ranked]) -> list[Block]:
    best = ranked[0].contender
    thirds = size_thirds(best.scores)
    dice = [{score.volume: score.dice for score in each.contender.scores} for each in ranked]
    rows: list[tuple[Cell, ...]] = [
        (score.volume, score.site, thirds[score.volume], *(one[score.volume] for one in dice))
        for score in sorted(best.scores, key=lambda score: score.dice)
    ]
    labels = [each.contender.label for each in ranked]
    return ["Dice of each patient.", Table(("volume", "site", "size", *labels), rows)]


def _definitions(settings: CompareSettings) -> list[Block]:
    return [
        "All recipes were trained on the same patients. Those that keep their best epoch "
        "(train.schedule.checkpoint=best) chose it by the same validation patients: their scores "
        "here are a little too good. "
        f"A pixel is tumour from a probability of {settings.threshold:g} on, "
        "but for the small components that a recipe leaves out (network.min_component_fraction).",
        "Of equal means the network with fewer parameters is chosen. The intervals are of each "
        "difference alone; with many recipes some lies beyond its interval by chance.",
        "Training: minutes from the opening of its MLflow run to its last validated epoch, with "
        "the time lost by interruptions. Prediction: median seconds of a volume in this step, on "
        "its machine. Times are comparable only where the machines were alike and equally busy.",
    ]
