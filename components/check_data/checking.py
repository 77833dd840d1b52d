"""Check whether a data set is new to a model, and find the champion's data set and split."""

import logging
from typing import Literal

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.shared.config import Record
from components.shared.storage.store import Store
from components.shared.tracking.champion import DECISION_TAG, find_champion, is_origin_known

logger = logging.getLogger(__name__)


class DataCheck(Record):
    """Result of `check_data_set`.

    Attributes:
        change: `changed` to train, `unchanged` to end the run.
        model: URI of the version that was trained with this data set, if there is one.
        reference_id: Id of the champion's data set; empty if the store lacks it.
        previous_split: Id of the champion's split; empty if the store lacks it.
    """

    change: Literal["changed", "unchanged"]
    reason: str
    model: str = ""
    reference_id: str = ""
    previous_split: str = ""


def check_data_set(
    client: MlflowClient, dataset_id: str, model_name: str, store: Store, *, force: bool = False
) -> DataCheck:
    """Compares a data set with those that versions of a model were trained with.

    A data set is known if the registry has a version that was trained with it and decided about,
    promoted or not. Training on it again would give the same model, and use the test patients
    once more.

    Args:
        client: Client of the tracking server.
        dataset_id: Id of the data set version that the source has now.
        model_name: Name of the registered model.
        store: Store to search for the champion's data set and split.
        force: True to train on a known data set.
    """
    champion = find_champion(client, model_name)
    versions = [
        version
        for version in client.search_model_versions(f"name = '{model_name}'")
        if version.tags.get("dataset_id") == dataset_id and DECISION_TAG in version.tags
    ]
    known = max(versions, key=lambda version: int(version.version), default=None)
    if known is not None and not force:
        found = _unchanged(known, champion, dataset_id)
    else:
        found = _changed(known, champion, dataset_id, store)
    logger.info("%s: %s", found.change, found.reason)
    return found


def _unchanged(known: ModelVersion, champion: ModelVersion | None, dataset_id: str) -> DataCheck:
    is_champion = champion is not None and champion.version == known.version
    outcome = "the champion" if is_champion else known.tags[DECISION_TAG]
    return DataCheck(
        change="unchanged",
        reason=f"version {known.version} of {known.name} ({outcome}) was trained with data set "
        f"{dataset_id}, so there is nothing new to train on; set force=true to train anyway",
        model=f"models:/{known.name}/{known.version}",
    )


def _changed(
    known: ModelVersion | None, champion: ModelVersion | None, dataset_id: str, store: Store
) -> DataCheck:
    reason = f"data set {dataset_id} is " + (
        f"that of version {known.version}, but force is set" if known else "new"
    )
    if champion is None:
        return DataCheck(change="changed", reason=reason)
    if not is_origin_known(champion, store):
        logger.warning(
            "the training data of champion version %s are not in store %s: drift is not measured, "
            "and all patients are assigned as new",
            champion.version,
            store.uri,
        )
        return DataCheck(change="changed", reason=reason)
    return DataCheck(
        change="changed",
        reason=f"{reason}; the champion is version {champion.version}",
        reference_id=champion.tags["dataset_id"],
        previous_split=champion.tags["split_id"],
    )
