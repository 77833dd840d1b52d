"""The whole of the train step: tracking, fit, export."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from mlflow import MlflowClient

from components.shared import tracking
from components.shared.manifest import Manifest, canonical_json, read_manifest, short_digest
from components.shared.split import Part, Split, read_split
from components.shared.store import Store
from components.train.checkpoints import Checkpoints, Epoch
from components.train.export import export_segmenter
from components.train.fit import Fit, fit
from components.train.network import VolumeSegmenter, build_segmenter
from components.train.recipe import Recipe
from components.train.slices import PreparedVolume, prepare_volumes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingInputs:
    """What is learned from.

    Attributes:
        store: Where the voxels are.
        cache: Folder for fetched and prepared volumes.
        dataset_id: Version of the data set.
        split_id: Version of the split.
        manifest: Its volumes.
        split: Their parts, checked against the manifest.
    """

    store: Store
    cache: Path
    dataset_id: str
    split_id: str
    manifest: Manifest
    split: Split

    @classmethod
    def read(
        cls, store: Store, cache: Path, dataset_id: str, split_id: str, manifest: str, split: str
    ) -> Self:
        """Reads the artifacts of the steps before.

        Raises:
            UserError: If a file is not the version named, or parts overlap.
        """
        listed = read_manifest(Path(manifest), dataset_id)
        parts = read_split(Path(split), split_id, listed)
        return cls(store, cache, dataset_id, split_id, listed, parts)

    def prepared(self, part: Part, segmenter: VolumeSegmenter) -> list[PreparedVolume]:
        """The volumes of one part as the network sees them."""
        entries = self.split.entries(part, self.manifest)
        return prepare_volumes(entries, self.store, self.cache, segmenter)


def train_model(
    recipe: Recipe,
    inputs: TrainingInputs,
    *,
    pipeline_run: str,
    profile_report: Path,
    model: Path,
    history: Path,
) -> str:
    """Trains and exports a segmenter and logs both to MLflow.

    The MLflow run is opened first: a server that is down fails the step before any work.

    Args:
        recipe: How to train.
        inputs: What to learn from.
        pipeline_run: Identity of the pipeline run; retries with the same one resume.
        profile_report: HTML, logged to the run.
        model: Folder to write the MLflow model to.
        history: JSON file to write the epochs to.

    Returns:
        The MLflow run's id.

    Raises:
        UserError: If the server, the store, the data or the recipe do not allow it.
    """
    run_id = tracking.open_run(pipeline_run)
    with tracking.recording(run_id) as client:
        _describe(client, run_id, recipe, inputs, profile_report)
        checkpoints = _checkpoints(recipe, inputs, run_id)
        fitted = _fit(recipe, inputs, checkpoints, client, run_id)
        export_segmenter(fitted.segmenter, model)
        history.write_text(json.dumps(fitted.history))
        checkpoints.remove()
    return run_id


def _describe(
    client: MlflowClient,
    run_id: str,
    recipe: Recipe,
    inputs: TrainingInputs,
    profile_report: Path,
) -> None:
    tracking.log_params(client, run_id, {"train": recipe.model_dump(mode="json")})
    tracking.log_dataset(client, run_id, inputs.dataset_id, inputs.manifest, inputs.store.uri)
    client.set_tag(run_id, "dataset_id", inputs.dataset_id)
    client.set_tag(run_id, "split_id", inputs.split_id)
    client.log_text(run_id, profile_report.read_text(), "reports/profile.html")
    client.log_text(run_id, inputs.split.to_json().decode(), "split.json")


def _checkpoints(recipe: Recipe, inputs: TrainingInputs, run_id: str) -> Checkpoints:
    recipe_id = short_digest(canonical_json(recipe.model_dump(mode="json")))
    key = f"{run_id}-{inputs.dataset_id}-{inputs.split_id}-{recipe_id}"
    return Checkpoints(inputs.store, key, inputs.cache)


def _fit(
    recipe: Recipe,
    inputs: TrainingInputs,
    checkpoints: Checkpoints,
    client: MlflowClient,
    run_id: str,
) -> Fit:
    torch.manual_seed(recipe.seed)
    segmenter = build_segmenter(recipe)

    def listen(epoch: Epoch) -> None:
        values = {name: value for name, value in epoch.items() if name != "epoch"}
        tracking.log_metrics(client, run_id, values, step=int(epoch["epoch"]))

    return fit(
        recipe,
        segmenter,
        inputs.prepared("train", segmenter),
        inputs.prepared("validation", segmenter),
        checkpoints,
        listen,
    )
