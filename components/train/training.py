"""The whole of the train step: tracking, fit, export."""

import json
import logging
from pathlib import Path

import torch
from mlflow import MlflowClient

from components.shared.dataset.manifest import canonical_json, short_digest
from components.shared.dataset.parts import SplitDataset
from components.shared.tracking.runs import (
    log_dataset,
    log_metrics,
    log_params,
    log_tags,
    open_run,
    recording,
)
from components.shared.tracking.training_state import state_folder
from components.train.callbacks.history import Epoch
from components.train.checkpoints import Checkpoints
from components.train.export import export_segmenter
from components.train.fit import Fit, fit
from components.train.network import build_segmenter
from components.train.processes import is_writer
from components.train.recipe import Recipe
from components.train.slices import prepare_volumes

logger = logging.getLogger(__name__)


def train_model(
    recipe: Recipe,
    dataset: SplitDataset,
    *,
    pipeline_run: str,
    profile_report: Path,
    model: Path,
    history: Path,
) -> str:
    """Trains and exports a segmenter and logs both to MLflow.

    The MLflow run is opened first: a server that is down fails the step before any work.
    Where several processes train together, the first one writes.

    Args:
        recipe: How to train.
        dataset: What to learn from.
        pipeline_run: Identity of the pipeline run; retries with the same one resume.
        profile_report: HTML, logged to the run.
        model: Folder to write the MLflow model to.
        history: JSON file to write the epochs to.

    Returns:
        The MLflow run's id.

    Raises:
        UserError: If the server, the store, the data or the recipe do not allow it.
    """
    run_id = open_run(pipeline_run)
    with recording(run_id) as client:
        if is_writer():
            _describe(client, run_id, recipe, dataset, profile_report)
        checkpoints = _checkpoints(recipe, dataset, run_id)
        fitted = _fit(recipe, dataset, checkpoints, client, run_id)
        if is_writer():
            export_segmenter(fitted.segmenter, model)
            history.write_text(json.dumps(fitted.history))
        checkpoints.remove_local()
    return run_id


def _describe(
    client: MlflowClient,
    run_id: str,
    recipe: Recipe,
    dataset: SplitDataset,
    profile_report: Path,
) -> None:
    log_params(client, run_id, {"train": recipe.model_dump(mode="json")})
    log_dataset(client, run_id, dataset.manifest.dataset_id, dataset.manifest, dataset.store.uri)
    versions = {"dataset_id": dataset.manifest.dataset_id, "split_id": dataset.split.split_id}
    log_tags(client, run_id, versions)
    client.log_text(run_id, profile_report.read_text(), "reports/profile.html")
    client.log_text(run_id, dataset.split.to_json().decode(), "split.json")


def _checkpoints(recipe: Recipe, dataset: SplitDataset, run_id: str) -> Checkpoints:
    versions = [dataset.manifest.dataset_id, dataset.split.split_id, recipe.model_dump(mode="json")]
    prefix = state_folder(run_id) + short_digest(canonical_json(versions))
    return Checkpoints(dataset.store, prefix, dataset.cache)


def _fit(
    recipe: Recipe,
    dataset: SplitDataset,
    checkpoints: Checkpoints,
    client: MlflowClient,
    run_id: str,
) -> Fit:
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)

    def listen(epoch: Epoch) -> None:
        values = {name: value for name, value in epoch.items() if name != "epoch"}
        log_metrics(client, run_id, values, step=int(epoch["epoch"]))

    return fit(
        recipe,
        segmenter,
        prepare_volumes(dataset, "train", segmenter),
        prepare_volumes(dataset, "validation", segmenter),
        checkpoints,
        listen,
    )
