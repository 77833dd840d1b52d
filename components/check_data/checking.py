"""Whether there is anything new to learn, and what the champion has learned from."""

import logging
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.shared.config import Record
from components.shared.storage.store import Store
from components.shared.tracking.champion import DECISION_TAG, find_champion, is_origin_known

logger = logging.getLogger(__name__)


class Detection(Record):
    """What was found in the registry.

    Attributes:
        change: Whether to train.
        reason: Why, in words.
        model: The version that was trained with this data set, where there is one.
        reference_id: The champion's data set; empty if the store does not have it.
        previous_split: The champion's split; empty if the store does not have it.
    """

    change: Literal["changed", "unchanged"]
    reason: str
    model: str = ""
    reference_id: str = ""
    previous_split: str = ""


def detect_change(
    client: MlflowClient, dataset_id: str, model_name: str, store: Store, *, force: bool = False
) -> Detection:
    """Compares a data set with those that versions of a model were trained with.

    The registry is the only memory: a data set is known when a version trained with it was
    decided about, whether it became champion or not. To train on it again would give the same
    model, and one more look at the same test patients.

    Args:
        client: Of the tracking server.
        dataset_id: What the source holds now.
        model_name: The registered model.
        store: Where the champion's data set and split are looked for.
        force: Whether to train on a known one.
    """
    champion = find_champion(client, model_name)
    known = _trained_with(client, dataset_id, model_name)
    if known is not None and not force:
        found = _unchanged(known, champion, dataset_id)
    else:
        found = _changed(known, champion, dataset_id, store)
    logger.info("%s: %s", found.change, found.reason)
    return found


def _trained_with(client: MlflowClient, dataset_id: str, model_name: str) -> ModelVersion | None:
    """The newest version that was trained with a data set and decided about."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{model_name}'")
        if version.tags.get("dataset_id") == dataset_id and DECISION_TAG in version.tags
    ]
    return max(versions, key=lambda version: int(version.version), default=None)


def _unchanged(known: ModelVersion, champion: ModelVersion | None, dataset_id: str) -> Detection:
    is_champion = champion is not None and champion.version == known.version
    outcome = "the champion" if is_champion else f"{known.tags[DECISION_TAG]} then"
    return Detection(
        change="unchanged",
        reason=f"version {known.version} of {known.name}, {outcome}, was trained with data set "
        f"{dataset_id}, so there is nothing new to learn; force=true trains all the same",
        model=f"models:/{known.name}/{known.version}",
    )


def _changed(
    known: ModelVersion | None, champion: ModelVersion | None, dataset_id: str, store: Store
) -> Detection:
    reason = f"data set {dataset_id} is " + (
        f"that of version {known.version}, and force is set" if known else "new"
    )
    if champion is None:
        return Detection(change="changed", reason=reason)
    if not is_origin_known(champion, store):
        logger.warning(
            "what champion version %s learned from is not in store %s: drift is not measured and "
            "patients are assigned anew",
            champion.version,
            store.uri,
        )
        return Detection(change="changed", reason=reason)
    return Detection(
        change="changed",
        reason=f"{reason}; the champion is version {champion.version}",
        reference_id=champion.tags["dataset_id"],
        previous_split=champion.tags["split_id"],
    )
