"""The train step: tracking, fit, export."""

import functools
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mlflow import MlflowClient

from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import split_key
from components.shared.errors import UserError
from components.shared.model.library import TIMM_PREFIX
from components.shared.model.model_folder import AnySegmenter
from components.shared.model.network import PairedSegmenter, VolumeSegmenter, build_segmenter
from components.shared.report.learning_rate import LearningRateSearch, learning_rate_curve
from components.shared.report.training_history import TrainingHistory
from components.shared.threads import limit_threads
from components.shared.tracking.identity import checkpoint_folder
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
from components.train.data.slices import prepare_volumes
from components.train.distributed.processes import is_writer
from components.train.export import export_segmenter, try_export
from components.train.finder import search_learning_rate, search_once, with_found_rate
from components.train.fit import fit
from components.train.initial import InitialWeights, identify
from components.train.loading import load_initial
from components.train.recipe import Recipe

logger = logging.getLogger(__name__)


def train_model(
    recipe: Recipe,
    dataset: SplitDataset,
    *,
    pipeline_run: str,
    label: str = "",
    run_name: str = "",
    model_name: str = "",
    profile_report: Path,
    model: Path,
    history: Path,
) -> str:
    """Trains and exports a segmenter and logs both to MLflow.

    The MLflow run is opened first: a server that is down fails the step before any work.
    If several processes train together, the first one writes. Arguments and result are those of
    `components.train.component.train`.

    Raises:
        UserError: If the server, the store, the data or the recipe do not allow it, or the
            learning rate is searched for and the loss falls nowhere.
    """
    limit_threads()
    training, weights = identify(
        recipe,
        dataset.store,
        model_name,
        pipeline_run=pipeline_run,
        label=label,
        dataset_id=dataset.manifest.dataset_id,
        split_id=dataset.split.split_id,
    )
    network = f"{recipe.network.architecture}-{recipe.network.encoder}"
    run_id = open_run(training, name=network, run_name=run_name)
    with recording(run_id) as client:
        if is_writer():
            log_params(client, run_id, {"train": recipe.model_dump(mode="json")})
            log_params(client, run_id, weights.params())
            _describe_data(client, pipeline_run_of(client, run_id), dataset, profile_report)
        training_logger = TrainingLogger(client, run_id)
        folder = checkpoint_folder(training.digest)
        segmenter, fitted = _fit(recipe, weights, dataset, folder, training_logger)
        if is_writer():
            difference = export_segmenter(segmenter, model)
            logger.info(
                "exported segmenter differs from the trained one by at most %.1g", difference
            )
            history.write_text(fitted.model_dump_json())
    return run_id


def _describe_data(
    client: MlflowClient, run_id: str, dataset: SplitDataset, profile_report: Path
) -> None:
    """Logs the data once for all training runs of a pipeline run."""
    log_dataset(client, run_id, dataset.manifest, dataset.store.uri)
    log_text_once(client, run_id, profile_report.read_text(), "reports/profile.html")
    split = dataset.split
    log_text_once(client, run_id, split.to_json().decode(), split_key(split.split_id))


@dataclass(frozen=True)
class TrainingLogger:
    """Logs one network's training to MLflow.

    Attributes:
        client: Client of the tracking server.
        run_id: MLflow run of the training run.
        prefix: Prefix of all names, if a recipe has several networks.
    """

    client: MlflowClient
    run_id: str
    prefix: str = ""

    def epoch(self, epoch: Epoch) -> None:
        """Logs the metrics of an epoch."""
        values = {self.prefix + name: value for name, value in epoch.items() if name != "epoch"}
        log_metrics(self.client, self.run_id, values, step=int(epoch["epoch"]))

    def complete(self, epochs: Iterable[Epoch]) -> None:
        """Logs epochs that an attempt stored, but could not log before it was killed."""
        points = self.client.get_metric_history(self.run_id, f"{self.prefix}train_loss")
        logged = {point.step for point in points}
        for epoch in epochs:
            if int(epoch["epoch"]) not in logged:
                self.epoch(epoch)

    def search(self, search: LearningRateSearch) -> None:
        """Logs the curve of a learning-rate search, its suggestion and the reason."""
        path = f"training/{self.prefix}learning_rate_search"
        if search.losses:  # empty if the very first was NaN or infinite
            self.client.log_figure(self.run_id, learning_rate_curve(search), f"{path}.png")
        self.client.log_text(self.run_id, search.reason, f"{path}.txt")
        if search.suggestion:
            name = f"train.optimizer.{self.prefix}found_learning_rate"
            log_params(self.client, self.run_id, {name: search.suggestion.learning_rate})


def _fit(
    recipe: Recipe,
    weights: InitialWeights,
    dataset: SplitDataset,
    folder: str,
    training_logger: TrainingLogger,
) -> tuple[AnySegmenter, TrainingHistory]:
    """Fits the recipe's network, and its second one if there is one."""
    channels = dataset.manifest.channels
    if recipe.flair_network is not None and channels.count == 1:
        raise UserError(
            "train.flair_network is for scans that lack a channel, but this data set has one "
            f"channel, {channels.reference}; set train.flair_network=null"
        )
    # both first: an error in one is reported before the other is trained
    segmenters = [_initial(recipe, section, weights, dataset) for section in recipe.networks]
    starts = [_start(weights, section) for section in recipe.networks]
    recipes = [_with_warm_rate(recipe, weights, section) for section in recipe.networks]
    if recipe.flair_network is not None:
        logger.info("training the first of two networks, on all sequences; times are for one")
    segmenter, history = _fit_network(recipes[0], segmenters[0], dataset, folder, training_logger)
    history = history.model_copy(update={"start": starts[0]})
    if recipe.flair_network is None:
        return segmenter, history
    logger.info("training the second network, on %s", channels.reference)
    second = {"network": recipe.flair_network, "flair_network": None}
    flair, flair_history = _fit_network(
        recipes[1].model_copy(update=second),
        segmenters[1],
        dataset,
        f"{folder}/flair",
        replace(training_logger, prefix="flair_"),
    )
    flair_history = flair_history.model_copy(update={"start": starts[1]})
    return PairedSegmenter(segmenter, flair), history.model_copy(update={"flair": flair_history})


def _initial(
    recipe: Recipe, section: str, weights: InitialWeights, dataset: SplitDataset
) -> VolumeSegmenter:
    network, place = recipe.networks[section], f"train.{section}"
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(
        network,
        place,
        recipe.schedule.image_sizes,
        channels=dataset.manifest.channels,
        targets=dataset.manifest.targets,
    )
    load_initial(segmenter, weights, section, dataset.store, dataset.cache)
    # more networks than anybody has tried
    if network.is_users or network.encoder.startswith(TIMM_PREFIX):
        try_export(segmenter, place)
    return segmenter


def _start(weights: InitialWeights, section: str) -> str:
    """Weights that a network starts from, in words; empty if they are random."""
    found = weights.of(section)
    return f"{found[1].source} (sha256 {found[1].sha256})" if found else ""


def _with_warm_rate(recipe: Recipe, weights: InitialWeights, section: str) -> Recipe:
    if not weights.is_warm(section):
        return recipe
    optimizer = recipe.optimizer
    rate = optimizer.learning_rate * optimizer.warm_start_factor
    changed = optimizer.model_copy(update={"learning_rate": rate})
    return recipe.model_copy(update={"optimizer": changed})


def _fit_network(
    recipe: Recipe,
    segmenter: VolumeSegmenter,
    dataset: SplitDataset,
    folder: str,
    training_logger: TrainingLogger,
) -> tuple[VolumeSegmenter, TrainingHistory]:
    checkpoints = Checkpoints(dataset.store, folder, dataset.cache)
    train, validation = (
        prepare_volumes(dataset, part, segmenter, whole_scans=recipe.whole_scans)
        for part in ("train", "validation")
    )
    search = None
    if recipe.optimizer.find_learning_rate:
        run_search = functools.partial(search_learning_rate, recipe, segmenter, train, checkpoints)
        search = search_once(dataset.store, folder, run_search)
        logger.info("%s", search.reason)
        if is_writer():
            training_logger.search(search)
        recipe = with_found_rate(recipe, search)
    fitted = fit(recipe, segmenter, train, validation, checkpoints, training_logger.epoch)
    checkpoints.remove_local()
    if is_writer():
        training_logger.complete(fitted.history)
    history = TrainingHistory(
        epochs=fitted.history, exported=fitted.exported, learning_rate_search=search
    )
    return fitted.segmenter, history
