"""HTML report of a comparison of recipes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.compare.charts import dice_against_cost, differences
from components.compare.ranking import Ranked, is_clear
from components.compare.settings import CompareSettings
from components.shared.dataset.manifest import Manifest
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
from components.shared.report.patients import first_target_note, outlines, scans_note
from components.shared.scoring.groups import size_thirds


@dataclass(frozen=True)
class Scope:
    """Patients of a comparison, in the words of its report.

    Attributes:
        patients: Noun for them.
        data: Ids of the data set and the split.
        channel: Channel of the drawn slices.
        choice: Consequences of the choice.
        training: Patients that the recipes were trained on.
    """

    patients: str
    data: str
    channel: str
    choice: str
    training: str


def on_validation(dataset: SplitDataset) -> Scope:
    """Returns the scope of models that were trained on one split."""
    tested = len(dataset.split.patients("test"))
    return Scope(
        patients="validation patients",
        data=f"data set {dataset.manifest.dataset_id}, split {dataset.split.split_id}",
        channel=dataset.manifest.channels.reference,
        choice=f"The choice uses validation patients only. The {tested} test patients were not "
        "read. Only the chosen model is evaluated on them and compared with the champion. The Dice "
        "above is of the patients that decided the choice, so it is too good: quote the figure of "
        "the evaluation.",
        training="All recipes were trained on the same patients. Recipes that keep their best "
        "epoch (train.schedule.checkpoint=best) chose it on the same validation patients, so their "
        "scores here are slightly too good.",
    )


def over_folds(manifest: Manifest, folds: int) -> Scope:
    """Returns the scope of recipes that were trained on every fold."""
    return Scope(
        patients="patients, out of fold",
        data=f"{folds} folds, data set {manifest.dataset_id}",
        channel=manifest.channels.reference,
        choice="Each patient was predicted once per recipe, by a model that never saw the patient "
        "in training or validation. Nothing is registered: train the chosen recipe. The Dice above "
        "is of the patients that decided the choice, so it is slightly too good.",
        training="Every recipe was trained on the same folds. Minutes are of all its folds "
        "together, the MLflow run is that of the first one.",
    )


def render_comparison(
    ranked: Sequence[Ranked],
    shown: Sequence[str],
    scope: Scope,
    settings: CompareSettings,
    run_id: str,
) -> str:
    """Renders the report of models, the best first; `shown` are the volumes with overlays."""
    patients = len(ranked[0].candidate.patients)
    return render_page(
        f"Comparison of recipes on {scope.patients}",
        f"{len(ranked)} recipes, {patients} {scope.patients}, {scope.data}, MLflow run {run_id}",
        [
            Section("Choice", _choice(ranked, scope)),
            Section("Recipes", _recipes(ranked, settings)),
            Section("Differences, patient by patient", _differences(ranked, settings)),
            Section("Same patients side by side", _overlays(ranked, shown, scope)),
            Section("Patients", _patients(ranked)),
            Section("Definitions", _definitions(ranked, settings, scope)),
        ],
    )


def _choice(ranked: Sequence[Ranked], scope: Scope) -> list[Block]:
    best = ranked[0].candidate
    blocks: list[Block] = [
        Notice(
            "good",
            f"{best.label} is chosen: its mean patient Dice of {best.dice:.3f} is the highest on "
            f"the {len(best.patients)} {scope.patients}.",
        ),
        scope.choice,
    ]
    unclear = [each.candidate.label for each in ranked[1:] if not is_clear(each)]
    if unclear:
        text = (
            "The choice may be due to chance. With this few patients, these recipes are not shown "
            f"to be worse: {', '.join(unclear)}."
        )
        blocks.append(Notice("warning", text))
    return blocks


def _recipes(ranked: Sequence[Ranked], settings: CompareSettings) -> list[Block]:
    rows = [
        (
            one.label,
            one.dice,
            float(np.median([score.dice for score in one.patients])),
            *one.further_dice.values(),
            each.against_best.difference if each.against_best else None,
            each.against_best.low if each.against_best else None,
            each.against_best.high if each.against_best else None,
            one.train_minutes,
            one.parameters / 1e6,
            one.predict_seconds,
            one.trained.run_id,
        )
        for each in ranked
        for one in [each.candidate]
    ]
    further = [f"{target}, mean Dice" for target in ranked[0].candidate.further_dice]
    columns = ("recipe", "mean Dice", "median", *further, "difference to the best", "low", "high")
    costs = ("training, min", "parameters, M", "prediction, s", "MLflow run")
    return [
        Picture(draw(dice_against_cost(ranked)), "Higher is better, further left is cheaper."),
        f"Low and high: {settings.confidence:.0%} interval of the mean paired difference, for all "
        "recipes together.",
        Table((*columns, *costs), rows),
    ]


def _differences(ranked: Sequence[Ranked], settings: CompareSettings) -> list[Block]:
    if not any(each.against_best for each in ranked):
        return ["No differences: they need two recipes and two validation patients."]
    return [
        Picture(
            draw(differences(ranked)),
            "Points are patients, the diamond is their mean, the bar is its "
            f"{settings.confidence:.0%} interval. The chosen recipe is better left of 0.",
        )
    ]


def _overlays(ranked: Sequence[Ranked], shown: Sequence[str], scope: Scope) -> list[Block]:
    if not shown:
        return ["No overlays, because compare.overlay_volumes is 0."]
    targets = list(ranked[0].candidate.targets)
    blocks: list[Block] = [
        f"{outlines(scope.channel, targets)} Each slice has the largest tumour area of its "
        "volume. The patients are the first by name of each third by tumour size."
    ]
    for volume in shown:
        pictures = []
        for each in ranked:
            (dice,) = [one.dice for one in each.candidate.scores if one.volume == volume]
            source = photograph(each.candidate.overlays[volume])
            pictures.append(Picture(source, f"{each.candidate.label}: Dice {dice:.3f}", 240))
        blocks += [volume, Gallery(pictures)]
    return blocks


def _patients(ranked: Sequence[Ranked]) -> list[Block]:
    best = ranked[0].candidate
    thirds = size_thirds(best.scores)
    dice = [{score.volume: score.dice for score in each.candidate.scores} for each in ranked]
    rows: list[tuple[Cell, ...]] = [
        (score.volume, score.site, thirds[score.volume], *(one[score.volume] for one in dice))
        for score in sorted(best.scores, key=lambda score: score.dice)
    ]
    labels = [each.candidate.label for each in ranked]
    table = Table(("volume", "site", "size", *labels), rows)
    return ["Dice of each patient.", *scans_note(best.scores), table]


def _definitions(ranked: Sequence[Ranked], settings: CompareSettings, scope: Scope) -> list[Block]:
    return [
        *first_target_note(list(ranked[0].candidate.targets)),
        f"{scope.training} A pixel is tumour from a probability of {settings.threshold:g}, except "
        "in small components that a recipe leaves out (network.min_component_fraction).",
        "Of equal means the network with fewer parameters is chosen. The intervals are those of t, "
        "made wider for the number of pairs of recipes (Bonferroni): all of them together hold "
        f"with {settings.confidence:.0%}.",
        "Training: minutes from the start of the MLflow run to its last validated epoch, including "
        "interruptions. Prediction: median seconds per volume in this step, on its machine. Times "
        "are comparable only between similar machines with a similar load.",
    ]
