"""Garbage collection in a store: unneeded volumes, checkpoints, run records and reports."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from mlflow import MlflowClient

from components.shared.config import Record
from components.shared.dataset.gc_lock import dead_marks, gc_lock, unnamed_volumes
from components.shared.dataset.manifest import manifest_key
from components.shared.errors import UserError
from components.shared.storage.outcome import RUNS
from components.shared.storage.store import Store, StoredObject
from components.shared.tracking.champion import STORE_TAG, champions
from components.shared.tracking.identity import CHECKPOINTS
from components.shared.tracking.refusals import explaining
from components.shared.tracking.server import connect
from components.shared.tracking.status import find_training
from components.shared.weights.stored import WEIGHTS

Kind = Literal["checkpoints", "volume", "run", "report", "unfinished"]

_REPORTS = "reports/"  # of steps that failed; nothing but their messages names them
_PREDICTIONS = "predictions/"  # of the pipeline `inference`
_FOLDERS = ("datasets/", "volumes/", "splits/", CHECKPOINTS, RUNS, _REPORTS, WEIGHTS, _PREDICTIONS)
# Names of folders that are removed whole; others are not of brainseg.
_NAMES = {CHECKPOINTS: "[0-9a-f]{16}", RUNS: "[^/]+", _REPORTS: "[0-9a-f]{16}"}


class Garbage(Record):
    """An object or folder in the store that is no longer needed.

    Attributes:
        kind: `run` is the record of a pipeline run's steps, `report` the report of a failed step,
            `unfinished` a partial file of a killed process.
        key: Key of the object, or of a folder, ending in `/`.
        bytes: Size.
        modified: Time of the last write; for a folder, that of its newest object.
        reason: Why it is not needed.
    """

    kind: Kind
    key: str
    bytes: int
    modified: datetime
    reason: str


class Findings(Record):
    """Result of a search for garbage.

    Attributes:
        garbage: Objects and folders that are not needed.
        kept: Old objects that may still be needed, one sentence each.
        refused: Kinds of objects that are all kept because of an error, with the reason.
    """

    garbage: tuple[Garbage, ...]
    kept: tuple[str, ...]
    refused: tuple[str, ...]


def find_garbage(
    store: Store,
    older_than: timedelta,
    now: datetime | None = None,
    refresh: Callable[[], None] = lambda: None,
) -> Findings:
    """Finds objects that are not needed and have not been written for some time.

    Volumes are needed by the data sets whose manifests name them, checkpoints by a training run
    whose MLflow run has not ended. If MLflow cannot be reached, a manifest cannot be read or a
    champion's manifest is missing, everything that depends on it is kept. Fetched weights are kept
    too: clusters without a network cannot fetch them again.

    Args:
        store: Store to search.
        older_than: Age from which an object can be garbage.
        now: Time from which the age counts (default: the present).
        refresh: Called before each query.

    Raises:
        UserError: If the store cannot be read or holds no object of brainseg.
    """
    _require_ours(store)
    search = _Search(store, (now or datetime.now(UTC)) - older_than, refresh)
    with explaining():
        search.look()
    return Findings(
        garbage=tuple(search.garbage), kept=tuple(search.kept), refused=tuple(search.refused)
    )


def remove_garbage(store: Store, older_than: timedelta, now: datetime | None = None) -> Findings:
    """Finds and removes garbage; an ingest may run at the same time.

    An interrupted call leaves nothing that is read half removed: call it again.

    Returns:
        The removed objects, and those that were kept.

    Raises:
        UserError: If the store cannot be used, or removing from it is not allowed.
    """
    _require_ours(store)
    removed = []
    with gc_lock(store) as refresh, explaining():
        found = find_garbage(store, older_than, now, refresh)
        kept = list(found.kept)
        for garbage in found.garbage:
            refresh()
            if _remove(store, garbage):
                removed.append(garbage)
            else:
                kept.append(f"{garbage.key}: written since it was found")
    return found.model_copy(update={"garbage": tuple(removed), "kept": tuple(kept)})


def _require_ours(store: Store) -> None:
    if not any(next(iter(store.keys(folder)), None) for folder in _FOLDERS):
        raise UserError(f"{store.uri} holds no data set, volume or checkpoint; check the store")


class _Search:
    def __init__(self, store: Store, before: datetime, refresh: Callable[[], None]) -> None:
        self._store, self._before, self._refresh = store, before, refresh
        self.garbage: list[Garbage] = []
        self.kept: list[str] = []
        self.refused: list[str] = []

    def look(self) -> None:
        for folder in _FOLDERS:
            for found in self._store.unfinished(folder):
                self._add("unfinished", found.key, [found], "its writer was killed")
        for mark in dead_marks(self._store):
            self._add("unfinished", mark.key, [mark], "a gc was killed")
        for key, objects in self._old(RUNS):
            self._add("run", key, objects, "record of the steps of a pipeline run")
        for key, objects in self._old(_REPORTS):
            self._add("report", key, objects, "report of a failed step")
        try:
            client = connect()
        except UserError as error:
            self.refused.append(f"checkpoints and volumes are left alone: {error}")
            return
        self._look_for_checkpoints(client)
        self._look_for_volumes(client)

    def _look_for_checkpoints(self, client: MlflowClient) -> None:
        for folder, objects in self._old(CHECKPOINTS):
            self._refresh()
            running, state = _training(client, folder)
            if running:
                self.kept.append(f"{folder}: {state}; if it is dead, delete that run in MLflow")
            else:
                self._add("checkpoints", folder, objects, state)

    def _look_for_volumes(self, client: MlflowClient) -> None:
        lost = list(_lost_champions(client, self._store))
        try:
            unnamed = [] if lost else unnamed_volumes(self._store, self._refresh)
        except UserError as error:
            lost, unnamed = [str(error)], []
        self.refused += [f"volumes are left alone: {reason}" for reason in lost]
        for found in unnamed:
            self._add("volume", found.key, [found], "no data set names it")

    def _old(self, parent: str) -> list[tuple[str, list[StoredObject]]]:
        """Returns the folders of a parent that are old enough, with their objects."""
        groups: dict[str, list[StoredObject]] = defaultdict(list)
        for found in self._store.objects(parent):
            match = re.fullmatch(rf"({parent}{_NAMES[parent]}/).+", found.key)
            if match:
                groups[match[1]].append(found)
        return sorted(item for item in groups.items() if _newest(item[1]) < self._before)

    def _add(self, kind: Kind, key: str, objects: list[StoredObject], reason: str) -> None:
        size, modified = sum(found.bytes for found in objects), _newest(objects)
        if modified < self._before:
            self.garbage.append(
                Garbage(kind=kind, key=key, bytes=size, modified=modified, reason=reason)
            )


def _training(client: MlflowClient, folder: str) -> tuple[bool, str]:
    """Returns whether the training run of a checkpoint folder is active, and its state."""
    runs = find_training(client, folder.split("/")[1])
    if not runs:
        return False, "MLflow has no run for it"
    states = {run.info.status: run.info.run_id for run in runs}
    running = states.get("RUNNING") or states.get("SCHEDULED")
    if running:
        return True, f"its run {running} is RUNNING in MLflow"
    return False, f"its run has ended in MLflow: {', '.join(sorted(states))}"


def _lost_champions(client: MlflowClient, store: Store) -> Iterator[str]:
    for version in champions(client):
        dataset_id = version.tags.get("dataset_id", "")
        if not dataset_id or store.exists(manifest_key(dataset_id)):
            continue
        if version.tags.get(STORE_TAG, store.uri) == store.uri:  # older versions have no such tag
            yield (
                f"champion version {version.version} of {version.name} was trained with data set "
                f"{dataset_id}, whose manifest is not in {store.uri}, so its volumes are "
                "unknown; ingest its source again, or remove the alias champion"
            )


def _newest(objects: Iterable[StoredObject]) -> datetime:
    return max(found.modified for found in objects)


def _remove(store: Store, garbage: Garbage) -> bool:
    """Removes garbage unless it was written or used since it was found."""
    if not garbage.key.endswith("/"):
        store.delete(garbage.key)
        return True
    objects = list(store.objects(garbage.key))
    if objects and _newest(objects) > garbage.modified:
        return False
    if garbage.kind == "checkpoints" and _training(connect(), garbage.key)[0]:
        return False
    for found in objects:
        store.delete(found.key)
    return True
