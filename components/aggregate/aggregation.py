"""Aggregate step: out-of-fold results in one table and report, and the end of the run."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient

from components.aggregate.figures import aggregate_figures
from components.aggregate.folds import Fold, FoldFiles, joined, read_folds
from components.aggregate.page import render_aggregated
from components.aggregate.settings import AggregateSettings
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.model.segmenter import load_segmenter
from components.shared.report.overlay import draw_overlays
from components.shared.report.page import Gallery
from components.shared.scoring.metrics import HEADLINE
from components.shared.scoring.predicted import scored
from components.shared.scoring.table import write_patient_scores
from components.shared.storage.store import Store
from components.shared.tracking.refusals import explaining
from components.shared.tracking.runs import log_metrics, log_params, recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import end_pipeline_run
from components.shared.tracking.view import share_view

logger = logging.getLogger(__name__)


@explaining()
def aggregate_folds(
    files: Sequence[FoldFiles],
    manifest: Manifest,
    settings: AggregateSettings,
    *,
    store: Store,
    cache: Path,
    report: Path,
    table: Path,
    metrics: Path,
) -> tuple[str, Mapping[str, float]]:
    """Joins the folds' scores, draws the worst patients, and ends the pipeline run's MLflow runs.

    A repeated call writes the same results. The component describes the files, which are written.

    Returns:
        Id of the pipeline run's MLflow run, and the figures of `aggregate_figures`.

    Raises:
        UserError: If the folds are not those of one cross-validation of this data set, or a
            model, the data or the MLflow server cannot be used.
    """
    run_id = pipeline_run_of(connect(), files[0].run_id)
    with recording(run_id) as client:
        folds = read_folds(files, manifest, store, client)
        figures = aggregate_figures(folds)
        overlays = _draw_worst(folds, manifest, settings, store, cache)
        page = render_aggregated(folds, figures, overlays, manifest, run_id)
        report.write_text(page, encoding="utf-8")
        metrics.write_text(json.dumps(figures, indent=2, allow_nan=False))
        labels = {score.volume: fold.label for fold in folds for score in fold.scores}
        write_patient_scores(joined(folds), table, labels)
        _log(client, run_id, figures, settings)
        client.log_text(run_id, page, "cross_validation/report.html")
        rows = table.read_text("utf-8")
        client.log_text(run_id, rows, "cross_validation/out_of_fold.csv")
        end_pipeline_run(client, run_id, store)
    logger.info(
        "out-of-fold patient Dice: mean %.3f, median %.3f, standard deviation %.3f",
        figures["patient_dice_mean"],
        figures["patient_dice_median"],
        figures["patient_dice_sd"],
    )
    return run_id, figures


def _draw_worst(
    folds: Sequence[Fold],
    manifest: Manifest,
    settings: AggregateSettings,
    store: Store,
    cache: Path,
) -> dict[str, Gallery]:
    order = sorted((score.dice, score.volume) for fold in folds for score in fold.scores)
    worst = [volume for _, volume in order[: settings.overlay_volumes]]
    drawn: dict[str, Gallery] = {}
    for fold in folds:
        dataset = SplitDataset(store, cache, manifest, fold.split)
        entries = [entry for entry in dataset.entries("test") if entry.volume in worst]
        if entries:
            segmenter = load_segmenter(fold.files.model, settings.device)
            what = f"worst patients of {fold.label}"
            for one in scored(segmenter, dataset, entries, fold.threshold, what):
                drawn[one.entry.volume] = draw_overlays(one.volume, one.masks)
    return {name: drawn[name] for name in worst}


def _log(
    client: MlflowClient, run_id: str, figures: Mapping[str, float], settings: AggregateSettings
) -> None:
    log_params(client, run_id, {"aggregate": settings.model_dump(mode="json")})
    log_metrics(client, run_id, figures)
    share_view(client, client.get_run(run_id).info.experiment_id, HEADLINE)
