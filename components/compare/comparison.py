"""The whole of the compare step: validation scores, the choice, its report, the chosen model."""

import csv
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from components.compare.candidates import Contender, Trained, measure
from components.compare.page import render_comparison
from components.compare.ranking import Ranked, rank
from components.compare.settings import CompareSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import UserError
from components.shared.scoring.groups import first_of_each_third
from components.shared.tracking.runs import (
    log_headline,
    log_metrics,
    log_params,
    log_tags,
    recording,
)
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of

logger = logging.getLogger(__name__)

CHOSEN_TAG = "chosen_on_validation"


@dataclass(frozen=True)
class ComparedFiles:
    """Where the results go.

    Attributes:
        model: Folder for the chosen model; must not exist yet.
        history: JSON of its training.
        report: One HTML page.
        table: CSV, one row a model, the best first.
    """

    model: Path
    history: Path
    report: Path
    table: Path


def compare_models(
    trained: Sequence[Trained],
    dataset: SplitDataset,
    settings: CompareSettings,
    results: ComparedFiles,
) -> str:
    """Scores models on the validation part and chooses the best; the test part is not read.

    Run again it chooses the same.

    Args:
        trained: The models, all trained on this split.
        dataset: The data.
        settings: Of the step.
        results: Where the results go.

    Returns:
        The MLflow run of the chosen model's training.

    Raises:
        UserError: If a model is of another split, or a model, the data or the MLflow server
            cannot be used.
    """
    parent = pipeline_run_of(connect(), trained[0].run_id)
    with recording(parent) as client:
        _require_split(client, trained, dataset)
        shown = first_of_each_third(dataset.entries("validation"), settings.overlay_volumes)
        contenders = [measure(each, dataset, settings, client, shown) for each in trained]
        ranked = rank(contenders, settings.confidence)
        page = render_comparison(ranked, shown, dataset, settings, parent)
        results.report.write_text(page, encoding="utf-8")
        _write_table(ranked, results.table)
        _log(client, parent, ranked, settings, results)
    best = ranked[0].contender
    shutil.copytree(best.trained.folder, results.model)
    shutil.copyfile(best.trained.history, results.history)
    logger.info("%s is chosen: validation patient Dice %.3f", best.label, best.dice)
    return best.trained.run_id


def _require_split(client: MlflowClient, trained: Sequence[Trained], dataset: SplitDataset) -> None:
    for each in trained:
        split_id = client.get_run(each.run_id).data.tags.get("split_id")
        if split_id != dataset.split.split_id:
            raise UserError(
                f"MLflow run {each.run_id} was trained on split {split_id} and not on "
                f"{dataset.split.split_id}: it may have learned from these validation patients"
            )


def _write_table(ranked: Sequence[Ranked], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("recipe", "mlflow_run_id", *_figures(ranked[0].contender)))
        for each in ranked:
            one = each.contender
            writer.writerow((one.label, one.trained.run_id, *_figures(one).values()))


def _figures(one: Contender) -> dict[str, float]:
    return {
        "validation_patient_dice_mean": one.dice,
        "train_minutes": one.train_minutes,
        "parameters": float(one.parameters),
        "predict_seconds": one.predict_seconds,
    }


def _log(
    client: MlflowClient,
    parent: str,
    ranked: Sequence[Ranked],
    settings: CompareSettings,
    results: ComparedFiles,
) -> None:
    log_params(client, parent, {"compare": settings.model_dump(mode="json")})
    best = ranked[0].contender
    for each in ranked:
        run_id, figures = each.contender.trained.run_id, _figures(each.contender)
        log_metrics(client, run_id, figures)
        log_tags(client, run_id, {CHOSEN_TAG: "yes" if each.contender is best else "no"})
        log_headline(client, run_id, list(figures))
    log_tags(client, parent, {CHOSEN_TAG: best.label})
    client.log_text(parent, results.report.read_text("utf-8"), "comparison/report.html")
    client.log_text(parent, results.table.read_text("utf-8"), "comparison/recipes.csv")
