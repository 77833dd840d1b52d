"""Patients that neither model has learned from, and a model's scores of them."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from mlflow.entities.model_registry import ModelVersion

from components.shared.dataset.manifest import VolumeEntry, fetch_manifest
from components.shared.dataset.parts import SplitDataset
from components.shared.dataset.split import fetch_split
from components.shared.process import importing
from components.shared.scoring.scores import VolumeScore
from components.shared.tracking.champion import is_origin_known

logger = logging.getLogger(__name__)


class Unseen(NamedTuple):
    """Volumes that neither candidate nor champion has learned from.

    Attributes:
        entries: Of manifests.
        is_origin_known: Whether the store has what the champion was trained with; if not, it may
            have seen some of them.
    """

    entries: list[VolumeEntry]
    is_origin_known: bool


def unseen(
    champion: ModelVersion, dataset: SplitDataset, compare_on: Literal["test", "all_unseen"]
) -> Unseen:
    """Returns the volumes that neither candidate nor champion has learned from.

    What the champion learned from is in the data set version and split that its tags name. A
    model without them is compared on every test patient: if it has seen some, that speaks for
    it and against the candidate, so nothing is promoted wrongly.

    Args:
        champion: A registered version.
        dataset: What the candidate learned from (train and validation) and not (test).
        compare_on: `test` takes of the candidate's test part what is new to the champion;
            `all_unseen` adds of the champion's own test part what is not in `dataset`, where
            every other volume belongs to a part already.
    """
    store = dataset.store
    if not is_origin_known(champion, store):
        logger.warning(
            "what version %s learned from is not in store %s: it may have seen test patients",
            champion.version,
            store.uri,
        )
        return Unseen(list(dataset.entries("test")), is_origin_known=False)
    manifest = fetch_manifest(store, champion.tags["dataset_id"])
    split = fetch_split(store, champion.tags["split_id"])
    learned = [*split.entries("train", manifest), *split.entries("validation", manifest)]
    found = _new_to(learned, dataset.entries("test"))
    if compare_on == "all_unseen":
        found += _new_to(dataset.manifest.volumes, split.entries("test", manifest))
    return Unseen(found, is_origin_known=True)


def score_model(
    model: str | Path,
    entries: Sequence[VolumeEntry],
    dataset: SplitDataset,
    *,
    threshold: float,
    device: str,
    what: str,
) -> list[VolumeScore]:
    """Predicts volumes with a model and scores them.

    Args:
        model: Anything MLflow reads.
        entries: The volumes.
        dataset: Where their voxels are.
        threshold: What the model is scored with.
        device: Where it runs.
        what: What is counted in the log, e.g. `champion's volumes`.

    Raises:
        UserError: If the model cannot be loaded, or gives something else than probabilities.
    """
    with importing():  # torch is large, and a first model is compared with nothing
        from components.shared.model.segmenter import load_segmenter
        from components.shared.scoring.predicted import scored

    predicted = scored(load_segmenter(model, device), dataset, entries, threshold, what)
    return [one.score for one in predicted]


def _new_to(known: Iterable[VolumeEntry], entries: Iterable[VolumeEntry]) -> list[VolumeEntry]:
    seen = {name for entry in known for name in (entry.patient, entry.image_digest)}
    return [entry for entry in entries if not seen & {entry.patient, entry.image_digest}]
