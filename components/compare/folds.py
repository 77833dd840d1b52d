"""Comparison of recipes over folds: each patient is predicted by models trained on the others."""

import logging
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from mlflow import MlflowClient

from components.compare.candidates import Candidate, Trained, measure
from components.compare.comparison import figures, log_comparison, write_table
from components.compare.page import over_folds, render_comparison
from components.compare.ranking import Ranked, rank
from components.compare.settings import CompareSettings
from components.shared.dataset.manifest import Manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import check_split, fetch_split
from components.shared.errors import UserError
from components.shared.scoring.groups import first_of_each_third
from components.shared.scoring.patients import join_targets
from components.shared.storage.store import Store
from components.shared.tracking.refusals import explaining
from components.shared.tracking.runs import log_metrics, log_tags, recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import end_pipeline_run

logger = logging.getLogger(__name__)

CHOSEN_TAG = "chosen_out_of_fold"
DICE = "out_of_fold_patient_dice_mean"


@explaining()
def compare_over_folds(
    trained: Sequence[Trained],
    manifest: Manifest,
    settings: CompareSettings,
    *,
    store: Store,
    cache: Path,
    report: Path,
    table: Path,
) -> str:
    """Compares recipes that were trained on every fold, and ends the pipeline run's MLflow runs.

    Args:
        trained: Artifacts of the models; their runs are labeled `RECIPE fold-N`.
        manifest: Manifest of the data set.
        settings: Settings of the step.
        store: Store with voxels and splits.
        cache: Folder for fetched volumes.
        report: HTML file to write the report to.
        table: CSV file to write a row per recipe to, the best first.

    Returns:
        Label of the best recipe.

    Raises:
        UserError: If a recipe does not test every patient once, or a model, the data or the
            MLflow server cannot be used.
    """
    parent = pipeline_run_of(connect(), trained[0].run_id)
    shown = first_of_each_third(manifest.volumes, settings.overlay_volumes)
    with recording(parent) as client:
        parts: defaultdict[str, list[Candidate]] = defaultdict(list)
        for each in trained:
            dataset = _fold_of(each, manifest, store, cache, client)
            one = measure(each, dataset, settings, client, shown, part="test")
            parts[one.label.rpartition(" ")[0]].append(one)
        ranked = rank([_join(label, found) for label, found in parts.items()], settings.confidence)
        for candidate in (each.candidate for each in ranked):
            _require_all(candidate, manifest)
        scope = over_folds(manifest, len(trained) // len(parts))
        page = render_comparison(ranked, shown, scope, settings, parent)
        report.write_text(page, encoding="utf-8")
        write_table(ranked, DICE, table)
        log_comparison(client, parent, settings, page, table)
        _log(client, parent, ranked)
        end_pipeline_run(client, parent, store)
    best = ranked[0].candidate
    logger.info("chose %s: out-of-fold patient Dice %.3f", best.label, best.dice)
    return best.label


def _fold_of(
    trained: Trained, manifest: Manifest, store: Store, cache: Path, client: MlflowClient
) -> SplitDataset:
    split = fetch_split(store, client.get_run(trained.run_id).data.tags["split_id"])
    check_split(split, manifest)
    return SplitDataset(store, cache, manifest, split)


def _join(label: str, folds: Sequence[Candidate]) -> Candidate:
    return replace(
        folds[0],
        label=label,
        targets=join_targets([fold.targets for fold in folds]),
        train_minutes=sum(fold.train_minutes for fold in folds),
        predict_seconds=float(np.median([fold.predict_seconds for fold in folds])),
        overlays={name: slices for fold in folds for name, slices in fold.overlays.items()},
    )


def _log(client: MlflowClient, run_id: str, ranked: Sequence[Ranked]) -> None:
    for one in (each.candidate for each in ranked):
        named = {f"{one.label}/{name}": value for name, value in figures(one, DICE).items()}
        log_metrics(client, run_id, named)
    log_tags(client, run_id, {CHOSEN_TAG: ranked[0].candidate.label})


def _require_all(candidate: Candidate, manifest: Manifest) -> None:
    tested = Counter(score.volume for score in candidate.scores)
    wrong = [name for name in manifest.by_name() if tested[name] != 1]
    if wrong:
        raise UserError(
            f"{candidate.label}: {len(wrong)} of {len(manifest.volumes)} patients are not tested "
            f"by exactly one fold, e.g. {wrong[0]}; pass each fold of every recipe once"
        )
