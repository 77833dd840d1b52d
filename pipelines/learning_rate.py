"""Learning-rate search on this machine: data set, split, range test, report."""

import os
from pathlib import Path

import torch
from mlflow import MlflowClient

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.register.settings import RegisterSettings
from components.shared.config import Record
from components.shared.dataset.manifest import fetch_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.model.network import build_segmenter
from components.shared.process import cache_folder
from components.shared.storage.store import FolderStore, Store
from components.shared.tracking.local import ensure_local
from components.shared.tracking.origin import origin_tags
from components.shared.tracking.probe import probe
from components.shared.tracking.refusals import explaining
from components.shared.tracking.runs import log_params, recording
from components.shared.tracking.server import connect, open_experiment
from components.split.settings import SplitSettings
from components.split.splitting import split_dataset
from components.train.data.slices import prepare_volumes
from components.train.finder import search_learning_rate
from components.train.initial import find_initial
from components.train.loading import load_initial
from components.train.page import render_search, search_scope
from components.train.recipe import Recipe
from components.train.training import TrainingLogger
from pipelines.settings.presets import Preset

_PAGE = "learning_rate.html"


class FoundRate(Record):
    """Result of `brainseg find-lr`; without learning rates if the loss does not fall."""

    learning_rate: float | None
    steepest: float | None  # learning rate at the steepest fall of the loss
    reason: str
    scope: str  # network that it is for, if the recipe has two; otherwise empty
    report: Path
    mlflow_run_id: str


@explaining()
def find_learning_rate(
    preset: Preset, store: Store, output: Path, *, source: str = "", dataset_id: str = ""
) -> FoundRate:
    """Searches a learning rate for a recipe on its training volumes.

    Of two networks, the first one is used. The curve is logged to an MLflow run.
    """
    ensure_local(os.environ.get("MLFLOW_TRACKING_URI", ""))
    probe()
    client = connect()
    recipe = Recipe.model_validate(preset["train"])
    registered = RegisterSettings.model_validate(preset["register"])
    dataset = _dataset(preset, store, source, dataset_id)
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(
        recipe.network, channels=dataset.manifest.channels, targets=dataset.manifest.targets
    )
    weights = find_initial({"network": recipe.network}, store, registered.model_name)
    load_initial(segmenter, weights, "network", store, dataset.cache)
    volumes = prepare_volumes(dataset, "train", segmenter, whole_scans=recipe.whole_scans)
    run_id = _open_run(client, recipe, dataset)
    status = "FAILED"
    with recording(run_id):
        try:
            search = search_learning_rate(recipe, segmenter, volumes)
            TrainingLogger(client, run_id).search(search)
            status = "FINISHED"
        finally:
            # it belongs to no pipeline run, which would end it
            client.set_terminated(run_id, status)
    page = render_search(search, recipe, dataset.manifest.dataset_id, len(volumes))
    FolderStore(output).write(_PAGE, page.encode())
    return FoundRate(
        learning_rate=search.suggestion.learning_rate if search.suggestion else None,
        steepest=search.suggestion.steepest if search.suggestion else None,
        reason=search.reason,
        scope=search_scope(search, recipe),
        report=output / _PAGE,
        mlflow_run_id=run_id,
    )


def _open_run(client: MlflowClient, recipe: Recipe, dataset: SplitDataset) -> str:
    data = {"dataset_id": dataset.manifest.dataset_id, "split_id": dataset.split.split_id}
    run = client.create_run(
        open_experiment(client),
        tags={**origin_tags(), **data},
        run_name=f"find-lr {recipe.network.architecture}-{recipe.network.encoder}",
    )
    log_params(client, run.info.run_id, {"train": recipe.model_dump(mode="json")})
    return str(run.info.run_id)


def _dataset(preset: Preset, store: Store, source: str, dataset_id: str) -> SplitDataset:
    if source:
        ingest = IngestSettings.model_validate(preset["ingest"])
        manifest = ingest_source(source, store, ingest).manifest
    else:
        manifest = fetch_manifest(store, dataset_id)
    split = split_dataset(manifest, SplitSettings.model_validate(preset["split"]), store)
    return SplitDataset(store, cache_folder(), manifest, split)
