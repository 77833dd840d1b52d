"""What a store holds that nobody needs any more, and its removal."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

from mlflow import MlflowClient

from components.shared.config import Record
from components.shared.dataset.gc_lock import Sweep, dead_marks, unnamed_volumes
from components.shared.dataset.manifest import manifest_key
from components.shared.errors import UserError
from components.shared.storage.outcome import RUNS
from components.shared.storage.store import Store, StoredObject
from components.shared.tracking.champion import STORE_TAG, champions
from components.shared.tracking.identity import CHECKPOINTS, checkpoint_folder
from components.shared.tracking.server import connect, explaining
from components.shared.tracking.status import find_training

Kind = Literal["checkpoints", "volume", "run", "report", "unfinished"]

_REPORTS = "reports/"  # of steps that failed; nothing but their messages names them
_FOLDERS = ("datasets/", "volumes/", "splits/", CHECKPOINTS, RUNS, _REPORTS)
_CHECKPOINT = re.compile(rf"{CHECKPOINTS}([0-9a-f]{{16}})/[^/]+")
_RUN = re.compile(rf"({RUNS}[^/]+/).+")
_REPORT = re.compile(rf"({_REPORTS}[0-9a-f]{{16}}/)[^/]+")


class Waste(Record):
    """Something that nobody needs.

    Attributes:
        kind: What it is: `run` is what a pipeline run's steps told, `report` what one left that
            failed, `unfinished` a file that a killed writer left.
        key: Of the object in the store, or of a folder, ending in `/`.
        bytes: Its size.
        modified: When it was written; of a folder, its newest object.
        reason: Why nobody needs it.
    """

    kind: Kind
    key: str
    bytes: int
    modified: datetime
    reason: str


class Findings(Record):
    """What was looked through.

    Attributes:
        waste: What nobody needs.
        kept: What may be needed although it is old, one sentence each.
        refused: What could not be decided about, and why: all of that kind is left alone.
    """

    waste: tuple[Waste, ...]
    kept: tuple[str, ...]
    refused: tuple[str, ...]


def find_waste(store: Store, older_than: timedelta, now: datetime | None = None) -> Findings:
    """Looks for what nobody needs, and what nobody has written to for a time.

    Volumes are needed by the data sets whose manifests name them, checkpoints by a training
    whose MLflow run has not ended. If MLflow cannot be asked, or a manifest cannot be read, or
    a champion's manifest is gone, nothing is told of what depends on it.

    Args:
        store: Where to look.
        older_than: What was written later than so long ago is left alone, whatever it is.
        now: The time; the present one unless told.

    Raises:
        UserError: If the store cannot be read or holds nothing of ours.
    """
    _require_ours(store)
    before = (now or datetime.now(UTC)) - older_than
    search = _Search(store, before)
    with explaining():
        search.look()
    return Findings(
        waste=tuple(search.waste), kept=tuple(search.kept), refused=tuple(search.refused)
    )


def remove_waste(store: Store, older_than: timedelta, now: datetime | None = None) -> Findings:
    """Looks for what nobody needs and removes it; an ingest may run beside.

    What is cut off leaves nothing half removed that anyone would read: call it again.

    Returns:
        What was removed, and what was not.

    Raises:
        UserError: If the store cannot be used, or removing from it is not allowed.
    """
    _require_ours(store)
    with Sweep(store) as sweep, explaining():
        found = find_waste(store, older_than, now)
        removed = [waste for waste in found.waste if _remove(store, waste, sweep)]
    busy = [f"{waste.key}: written to meanwhile" for waste in found.waste if waste not in removed]
    return found.model_copy(update={"waste": tuple(removed), "kept": (*found.kept, *busy)})


def _require_ours(store: Store) -> None:
    if not any(next(iter(store.keys(folder)), None) for folder in _FOLDERS):
        raise UserError(f"{store.uri} holds no data set, volume or checkpoint; check the store")


class _Search:
    def __init__(self, store: Store, before: datetime) -> None:
        self._store, self._before = store, before
        self.waste: list[Waste] = []
        self.kept: list[str] = []
        self.refused: list[str] = []

    def look(self) -> None:
        self._look_for_unfinished()
        self._look_for(RUNS, _RUN, "run", "what the steps of a pipeline run told")
        self._look_for(_REPORTS, _REPORT, "report", "of a step that failed")
        try:
            client = connect()
        except UserError as error:
            self.refused.append(f"checkpoints and volumes are left alone: {error}")
            return
        self._look_for_checkpoints(client)
        self._look_for_volumes(client)

    def _look_for_unfinished(self) -> None:
        for folder in _FOLDERS:
            for found in self._store.unfinished(folder):
                self._add("unfinished", found.key, [found], "its writer was killed")
        for mark in dead_marks(self._store):
            self._add("unfinished", mark.key, [mark], "a gc was killed")

    def _look_for(self, folder: str, pattern: re.Pattern[str], kind: Kind, reason: str) -> None:
        for key, objects in _grouped(self._store.objects(folder), pattern):
            self._add(kind, key, objects, reason)

    def _look_for_checkpoints(self, client: MlflowClient) -> None:
        for digest, objects in _grouped(self._store.objects(CHECKPOINTS), _CHECKPOINT):
            if not self._is_old(objects):
                continue
            folder = f"{checkpoint_folder(digest)}/"
            running, told = _training(client, digest)
            if running:
                self.kept.append(f"{folder}: {told}; if it is dead, delete that run in MLflow")
            else:
                self._add("checkpoints", folder, objects, told)

    def _look_for_volumes(self, client: MlflowClient) -> None:
        lost = list(_lost_champions(client, self._store))
        try:
            unnamed = [] if lost else unnamed_volumes(self._store)
        except UserError as error:
            lost, unnamed = [str(error)], []
        self.refused += [f"volumes are left alone: {reason}" for reason in lost]
        for found in unnamed:
            self._add("volume", found.key, [found], "no data set names it")

    def _add(self, kind: Kind, key: str, objects: list[StoredObject], reason: str) -> None:
        if self._is_old(objects):
            self.waste.append(
                Waste(
                    kind=kind,
                    key=key,
                    bytes=sum(found.bytes for found in objects),
                    modified=_newest(objects),
                    reason=reason,
                )
            )

    def _is_old(self, objects: Iterable[StoredObject]) -> bool:
        return _newest(objects) < self._before


def _training(client: MlflowClient, digest: str) -> tuple[bool, str]:
    """Whether a training goes on, and how MLflow tells of it."""
    runs = find_training(client, digest)
    if not runs:
        return False, "MLflow has no run of this training"
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
        if version.tags.get(STORE_TAG, store.uri) == store.uri:  # older versions do not tell
            yield (
                f"champion version {version.version} of {version.name} was trained with data set "
                f"{dataset_id}, whose manifest is not in {store.uri}, so its volumes cannot be "
                "told from others; ingest its source again, or take the alias champion away"
            )


def _grouped(
    objects: Iterable[StoredObject], pattern: re.Pattern[str]
) -> list[tuple[str, list[StoredObject]]]:
    """The objects by the pattern's first group; those that it does not match are not ours."""
    groups: dict[str, list[StoredObject]] = defaultdict(list)
    for found in objects:
        match = pattern.fullmatch(found.key)
        if match:
            groups[match[1]].append(found)
    return sorted(groups.items())


def _newest(objects: Iterable[StoredObject]) -> datetime:
    return max(found.modified for found in objects)


def _remove(store: Store, waste: Waste, sweep: Sweep) -> bool:
    """Removes it, unless it was written to or has begun to be used since it was found."""
    sweep.check()
    if not waste.key.endswith("/"):
        store.delete(waste.key)
        return True
    objects = list(store.objects(waste.key))
    if objects and _newest(objects) > waste.modified:
        return False
    if waste.kind == "checkpoints" and _training(connect(), waste.key.split("/")[1])[0]:
        return False
    for found in objects:
        store.delete(found.key)
    return True
