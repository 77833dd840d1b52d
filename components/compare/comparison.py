"""Compare step: scores models on validation patients and chooses the best."""

import csv
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from mlflow import MlflowClient

from components.compare.candidates import Candidate, Trained, measure
from components.compare.page import on_validation, render_comparison
from components.compare.ranking import Ranked, rank
from components.compare.settings import CompareSettings
from components.shared.dataset.parts import SplitDataset
from components.shared.errors import UserError
from components.shared.scoring.groups import first_of_each_third
from components.shared.tracking.refusals import explaining
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
DICE = "validation_patient_dice_mean"


@explaining()
def compare_models(
    trained: Sequence[Trained],
    dataset: SplitDataset,
    settings: CompareSettings,
    *,
    model: Path,
    history: Path,
    report: Path,
    table: Path,
) -> str:
    """Scores models on the validation part and chooses the best; the test part is not read.

    A repeated call makes the same choice. The component describes the files, which are written.
    The folder `model` must not exist.

    Returns:
        Id of the MLflow run that trained the chosen model.

    Raises:
        UserError: If a model was trained on another split, or a model, the data or the MLflow
            server cannot be used.
    """
    parent = pipeline_run_of(connect(), trained[0].run_id)
    with recording(parent) as client:
        _require_split(client, trained, dataset)
        shown = first_of_each_third(dataset.entries("validation"), settings.overlay_volumes)
        candidates = [measure(each, dataset, settings, client, shown) for each in trained]
        ranked = rank(candidates, settings.confidence)
        page = render_comparison(ranked, shown, on_validation(dataset), settings, parent)
        report.write_text(page, encoding="utf-8")
        write_table(ranked, DICE, table)
        log_comparison(client, parent, settings, page, table)
        _log(client, parent, ranked)
    best = ranked[0].candidate
    shutil.copytree(best.trained.folder, model)
    assert best.trained.history
    shutil.copyfile(best.trained.history, history)
    logger.info("chose %s: validation patient Dice %.3f", best.label, best.dice)
    return best.trained.run_id


def _require_split(client: MlflowClient, trained: Sequence[Trained], dataset: SplitDataset) -> None:
    for each in trained:
        split_id = client.get_run(each.run_id).data.tags.get("split_id")
        if split_id != dataset.split.split_id:
            raise UserError(
                f"MLflow run {each.run_id} was trained on split {split_id}, not on "
                f"{dataset.split.split_id}: it may have trained on these validation patients"
            )


def log_comparison(
    client: MlflowClient, run_id: str, settings: CompareSettings, page: str, table: Path
) -> None:
    """Logs settings, report and table of a comparison to the pipeline run's MLflow run."""
    log_params(client, run_id, {"compare": settings.model_dump(mode="json")})
    client.log_text(run_id, page, "comparison/report.html")
    client.log_text(run_id, table.read_text("utf-8"), "comparison/recipes.csv")


def write_table(ranked: Sequence[Ranked], dice: str, path: Path) -> None:
    """Writes a CSV row per model, the best first; `dice` is the name of the mean patient Dice."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("recipe", "mlflow_run_id", *figures(ranked[0].candidate, dice)))
        for each in ranked:
            one = each.candidate
            writer.writerow((one.label, one.trained.run_id, *figures(one, dice).values()))


def figures(one: Candidate, dice: str) -> dict[str, float]:
    """Returns the figures of a model by their names, that of the mean patient Dice as given.

    That of a further target has the target's name before it: `core/NAME`.
    """
    return {
        dice: one.dice,
        **{f"{target}/{dice}": value for target, value in one.further_dice.items()},
        "train_minutes": one.train_minutes,
        "parameters": float(one.parameters),
        "predict_seconds": one.predict_seconds,
    }


def _log(client: MlflowClient, parent: str, ranked: Sequence[Ranked]) -> None:
    best = ranked[0].candidate
    for each in ranked:
        run_id, found = each.candidate.trained.run_id, figures(each.candidate, DICE)
        log_metrics(client, run_id, found)
        log_tags(client, run_id, {CHOSEN_TAG: "yes" if each.candidate is best else "no"})
        log_headline(client, run_id, [name for name in found if "/" not in name])
    log_tags(client, parent, {CHOSEN_TAG: best.label})
