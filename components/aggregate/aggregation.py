"""The whole of the pool step: one table of out-of-fold results, its report, the end of the run."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from components.aggregate.figures import pooled_figures
from components.aggregate.folds import Fold, FoldFiles, read_folds
from components.aggregate.page import render_pooled
from components.aggregate.settings import AggregateSettings
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.model.segmenter import load_segmenter
from components.shared.report.slices import Overlay, draw_overlays
from components.shared.scoring.metrics import HEADLINE
from components.shared.scoring.predicted import scored
from components.shared.scoring.table import write_patient_scores
from components.shared.storage.store import Store
from components.shared.tracking.runs import log_metrics, log_params, recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import end_pipeline_run
from components.shared.tracking.view import share_view

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PoolFiles:
    """Where the results go.

    Attributes:
        report: One HTML page.
        table: CSV, one row a patient, with the fold.
        metrics: JSON of `pooled_figures`.
    """

    report: Path
    table: Path
    metrics: Path


@dataclass(frozen=True)
class Pooled:
    """What a cross-validation says.

    Attributes:
        run_id: The pipeline run's MLflow run.
        metrics: See `components.aggregate.figures.pooled_figures`.
    """

    run_id: str
    metrics: Mapping[str, float]


def aggregate_folds(
    files: Sequence[FoldFiles],
    manifest: Manifest,
    settings: AggregateSettings,
    *,
    store: Store,
    cache: Path,
    results: PoolFiles,
) -> Pooled:
    """Joins the folds' scores, draws the worst patients, and ends the pipeline run's runs.

    Run again it writes the same.

    Args:
        files: What each fold left.
        manifest: The data set.
        settings: Of the step.
        store: Where voxels and splits are.
        cache: Folder for fetched volumes.
        results: Where the results go.

    Raises:
        UserError: If the folds are not those of one cross-validation of this data set, or a
            model, the data or the MLflow server cannot be used.
    """
    run_id = pipeline_run_of(connect(), files[0].run_id)
    with recording(run_id) as client:
        folds = read_folds(files, manifest, store, client)
        figures = pooled_figures(folds)
        overlays = _draw_worst(folds, manifest, settings, store, cache)
        page = render_pooled(folds, figures, overlays, manifest.dataset_id, run_id)
        results.report.write_text(page, encoding="utf-8")
        results.metrics.write_text(json.dumps(figures, indent=2, allow_nan=False))
        labels = {score.volume: fold.label for fold in folds for score in fold.scores}
        scores = [score for fold in folds for score in fold.scores]
        write_patient_scores(scores, results.table, {"fold": labels})
        _log(client, run_id, figures, settings, results)
        end_pipeline_run(client, run_id, store)
    logger.info(
        "patient Dice out of fold: mean %.3f, median %.3f, standard deviation %.3f",
        figures["patient_dice_mean"],
        figures["patient_dice_median"],
        figures["patient_dice_sd"],
    )
    return Pooled(run_id, figures)


def _draw_worst(
    folds: Sequence[Fold],
    manifest: Manifest,
    settings: AggregateSettings,
    store: Store,
    cache: Path,
) -> dict[str, list[Overlay]]:
    order = sorted((score.dice, score.volume) for fold in folds for score in fold.scores)
    worst = [volume for _, volume in order[: settings.overlay_volumes]]
    drawn: dict[str, list[Overlay]] = {}
    for fold in folds:
        dataset = SplitDataset(store, cache, manifest, fold.split)
        entries = [entry for entry in dataset.entries("test") if entry.volume in worst]
        if entries:
            segmenter = load_segmenter(fold.model, settings.device)
            what = f"worst patients of {fold.label}"
            for entry, volume, mask, _ in scored(segmenter, dataset, entries, fold.threshold, what):
                drawn[entry.volume] = draw_overlays(volume, mask)
    return {name: drawn[name] for name in worst}


def _log(
    client: MlflowClient,
    run_id: str,
    figures: Mapping[str, float],
    settings: AggregateSettings,
    results: PoolFiles,
) -> None:
    log_params(client, run_id, {"aggregate": settings.model_dump(mode="json")})
    log_metrics(client, run_id, figures)
    share_view(client, client.get_run(run_id).info.experiment_id, HEADLINE)
    page, table = results.report.read_text("utf-8"), results.table.read_text("utf-8")
    client.log_text(run_id, page, "cross_validation/report.html")
    client.log_text(run_id, table, "cross_validation/out_of_fold.csv")
