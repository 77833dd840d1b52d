"""The whole of the train step: tracking, fit, export."""

import functools
import json
import logging
from pathlib import Path

import torch
from mlflow import MlflowClient

from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import split_key
from components.shared.report.learning_rate import LearningRateSearch, learning_rate_curve
from components.shared.threads import limit_threads
from components.shared.tracking.identity import Training, checkpoint_folder
from components.shared.tracking.runs import (
    log_dataset,
    log_metrics,
    log_params,
    log_text_once,
    recording,
)
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.tree import open_run
from components.train.callbacks.history import Epoch
from components.train.checkpoints import Checkpoints
from components.train.export import export_segmenter
from components.train.finder import search_learning_rate, search_once, with_found_rate
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
    label: str = "",
    run_name: str = "",
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
        label: Which of the pipeline run's trainings, for people; empty where it has one.
        run_name: What people call the pipeline run.
        profile_report: HTML, logged to the pipeline run's MLflow run.
        model: Folder to write the MLflow model to.
        history: JSON file to write the epochs to, and the search for the learning rate.

    Returns:
        The id of the training's MLflow run.

    Raises:
        UserError: If the server, the store, the data or the recipe do not allow it, or a
            learning rate is to be found and the loss falls at none.
    """
    limit_threads()
    training = Training(
        pipeline_run=pipeline_run,
        label=label,
        dataset_id=dataset.manifest.dataset_id,
        split_id=dataset.split.split_id,
        recipe=recipe.model_dump(mode="json"),
    )
    network = f"{recipe.network.architecture}-{recipe.network.encoder}"
    run_id = open_run(training, name=network, run_name=run_name)
    with recording(run_id) as client:
        if is_writer():
            log_params(client, run_id, {"train": recipe.model_dump(mode="json")})
            _describe_data(client, pipeline_run_of(client, run_id), dataset, profile_report)
        folder = checkpoint_folder(training.digest)
        checkpoints = Checkpoints(dataset.store, folder, dataset.cache)
        fitted, search = _fit(recipe, dataset, folder, checkpoints, client, run_id)
        if is_writer():
            export_segmenter(fitted.segmenter, model)
            history.write_text(json.dumps(_history(fitted, search)))
        checkpoints.remove_local()
    return run_id


def _describe_data(
    client: MlflowClient, run_id: str, dataset: SplitDataset, profile_report: Path
) -> None:
    """Logs what all trainings of a pipeline run share, whichever of them is the first."""
    log_dataset(client, run_id, dataset.manifest, dataset.store.uri)
    log_text_once(client, run_id, profile_report.read_text(), "reports/profile.html")
    split = dataset.split
    log_text_once(client, run_id, split.to_json().decode(), split_key(split.split_id))


def _fit(
    recipe: Recipe,
    dataset: SplitDataset,
    folder: str,
    checkpoints: Checkpoints,
    client: MlflowClient,
    run_id: str,
) -> tuple[Fit, LearningRateSearch | None]:
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe.network)
    train = prepare_volumes(dataset, "train", segmenter)
    search = None
    if recipe.optimiser.find_learning_rate:
        look = functools.partial(search_learning_rate, recipe, segmenter, train)
        search = search_once(dataset.store, folder, look)
        logger.info("%s", search.reason)
        if is_writer():
            _log_search(client, run_id, search)
        recipe = with_found_rate(recipe, search)

    def listen(epoch: Epoch) -> None:
        values = {name: value for name, value in epoch.items() if name != "epoch"}
        log_metrics(client, run_id, values, step=int(epoch["epoch"]))

    validation = prepare_volumes(dataset, "validation", segmenter)
    return fit(recipe, segmenter, train, validation, checkpoints, listen), search


def _log_search(client: MlflowClient, run_id: str, search: LearningRateSearch) -> None:
    client.log_figure(run_id, learning_rate_curve(search), "training/learning_rate_search.png")
    if search.suggestion:
        found = {"found_learning_rate": search.suggestion.learning_rate}
        log_params(client, run_id, {"train.optimiser": found})


def _history(fitted: Fit, search: LearningRateSearch | None) -> dict[str, object]:
    found = search.model_dump(mode="json") if search else None
    return {"epochs": fitted.history, "learning_rate_search": found}
