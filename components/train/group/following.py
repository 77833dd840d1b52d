"""A training in a pod group, seen from the step that starts it."""

import datetime
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from components.shared.cluster import Json
from components.shared.errors import OutageError, UserError
from components.shared.printable import printable
from components.shared.storage.store import Store, open_store
from components.train.exit_codes import PREEMPTED_STATUS
from components.train.group.cluster import GroupCluster
from components.train.group.objects import (
    LEASE_S,
    PodSource,
    group_objects,
    job_name,
    service,
)
from components.train.group.pod_status import (
    condition,
    ends,
    failure,
    has_ended,
    pod_number,
    running,
    waiting_for,
)
from components.train.group.result import (
    PROFILE,
    Result,
    fetch_result,
    find_result,
    group_folder,
)
from components.train.group.settings import GroupSettings, Task

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_S = 2.0
_RENEW_S = 30.0


def train_in_group(
    settings: GroupSettings,
    task: Task,
    pod: Mapping[str, Any],
    *,
    profile_report: Path,
    model: Path,
    history: Path,
) -> str:
    """Has a group of pods train, follows it, and fetches its result from the store.

    A group is found again by its name, which is the training's: another attempt at this step
    follows the pods that run already, and one after them takes the result. A step that ends
    before its group deletes it. One that is killed cannot; then the pods' deadline is renewed no
    more, and the cluster ends them.

    Args:
        settings: How many pods.
        task: What they train.
        pod: Metadata and spec of the pods, see `PodSource`.
        profile_report: HTML that belongs to the training's MLflow run.
        model: Folder to write the MLflow model to.
        history: JSON file to write the epochs to.

    Returns:
        The id of the training's MLflow run.

    Raises:
        UserError: If the cluster or the store refuse, or the training failed by a mistake.
        RuntimeError: If the pods failed otherwise.
    """
    store, folder = open_store(task.store), group_folder(task.training)
    result = find_result(store, folder)
    if result is None:
        store.upload(profile_report, f"{folder}/{PROFILE}")
        result = Group(GroupCluster.inside(), settings, task, pod).train(store, folder)
    fetch_result(store, folder, result, model=model, history=history)
    return result.mlflow_run_id


class Group:
    """The pods of one training.

    Args:
        cluster: Where they run.
        settings: How many.
        task: What they train.
        pod: Metadata and spec of the pods, see `PodSource`.
    """

    def __init__(
        self,
        cluster: GroupCluster,
        settings: GroupSettings,
        task: Task,
        pod: Mapping[str, Any],
    ) -> None:
        own = cluster.own_pod()
        self._cluster = cluster
        self._settings = settings
        self._task = task
        self._owner = _owner("v1", "Pod", own)
        pods = PodSource(own=own, fragment=pod)
        self._objects = group_objects(settings, task, pods, self._owner)
        job = {"name": job_name(settings, task)}
        self._job: Json = {"apiVersion": "batch/v1", "kind": "Job", "metadata": job}
        self._log = _GroupLog(cluster)
        self._waiting_since: float | None = None
        self._told = ""  # what is waited for
        self._renewed = 0.0

    def train(self, store: Store, folder: str) -> Result:
        """Starts the pods, or finds those that run, and follows them to the end.

        Raises:
            UserError: If the cluster refuses, or the training failed by a mistake.
            RuntimeError: If the pods failed otherwise.
        """
        # Argo sends SIGTERM to all of the container's processes; when the launcher has ended,
        # which it does at once, this one is killed: the group is deleted first of all
        before = signal.signal(signal.SIGTERM, _end)
        try:
            self._start()
            job = self._follow()
            result = find_result(store, folder)
            if result is None:
                raise failure(job, self._pods())
            return result
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._delete()
            signal.signal(signal.SIGTERM, before)

    def _start(self) -> None:
        self._remove_ended()
        for made in self._objects:
            created = _patiently(self._cluster.create, made)
            if created is None:
                self._adopt(made)
            elif made["kind"] == "Job":
                owner = _owner("batch/v1", "Job", created)
                _patiently(self._cluster.create, service(self._task, owner))

    def _remove_ended(self) -> None:
        """Waits for a group to go that has failed, or that is being deleted."""
        told = False
        while found := _patiently(self._cluster.get, self._objects[-1]):
            job = _patiently(self._cluster.get, self._job) or {}
            if "deletionTimestamp" not in found["metadata"] and not condition(job, "Failed"):
                return
            if not told:
                logger.info("group %s has failed before; it is made anew", self._task.name)
                self._delete()
            told = True
            time.sleep(_LOOK_S)

    def _adopt(self, made: Json) -> None:
        """Makes this step's pod an owner too: it goes on when the pod of an attempt before goes."""
        logger.info("%s %s is there already; following it", made["kind"], self._task.name)
        add = {"op": "add", "path": "/metadata/ownerReferences/-", "value": self._owner}
        _patiently(self._cluster.patch, made, [add])

    def _follow(self) -> Json:
        """Looks until the Job has ended; returns it."""
        while True:
            job = _patiently(self._look)
            if job is None:
                raise OutageError(
                    f"group {self._task.name} was deleted; run the step again: the training goes "
                    "on from its last state"
                )
            if has_ended(job):
                return job
            time.sleep(_LOOK_S)

    def _look(self) -> Json | None:
        job = self._cluster.get(self._job)
        if job is None:  # deleted, or Trainer has not made it yet
            return {} if self._cluster.get(self._objects[-1]) else None
        self._renew(job)
        self._wait(job, self._pods())
        return job

    def _pods(self) -> list[Json]:
        pods = self._cluster.pods(self._job["metadata"]["name"])
        self._log.write(pods)
        return pods

    def _renew(self, job: Json) -> None:
        """Puts the pods' deadline off: so long as this is done, the step is there."""
        started = job.get("status", {}).get("startTime")
        if started and not has_ended(job) and time.monotonic() - self._renewed > _RENEW_S:
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(started)
            deadline = int(age.total_seconds()) + LEASE_S
            path = "/spec/activeDeadlineSeconds"
            self._cluster.patch(self._job, [{"op": "replace", "path": path, "value": deadline}])
            self._renewed = time.monotonic()

    def _wait(self, job: Json, pods: Sequence[Json]) -> None:
        """Tells what the group waits for, and gives up at last.

        Raises:
            UserError: If pods have been missing for too long.
        """
        if job["spec"].get("suspend") or has_ended(job) or running(pods) >= self._settings.pods:
            self._waiting_since = None
            self._tell("the queue has not admitted the group" if job["spec"].get("suspend") else "")
            return
        reason = waiting_for(pods) or self._refused(pods)
        some = f"{running(pods)} of the group's {self._settings.pods} pods run"
        self._tell(reason and f"{some}: {reason}")
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > self._settings.wait_s:
            raise UserError(
                f"after {self._settings.wait_s} s {some}: {reason or 'Kubernetes does not say why'}"
                "; mend it, or set group.wait_s"
            )

    def _refused(self, pods: Sequence[Json]) -> str:
        """Why the Job cannot make a pod, e.g. a quota."""
        if len(pods) >= self._settings.pods:
            return ""
        warnings = self._cluster.warnings("Job", self._job["metadata"]["name"])
        return warnings[-1] if warnings else ""

    def _tell(self, text: str) -> None:
        if text and text != self._told:
            logger.warning("%s", text)
        self._told = text

    def _delete(self) -> None:
        for made in reversed(self._objects):
            try:
                self._cluster.delete(made)
            except UserError as error:
                logger.warning("%s; the pods end by themselves within %d s", error, LEASE_S)


class _GroupLog:
    """The log of the first pod, and how pods ended, as a part of this process's log.

    Args:
        cluster: Where the pods are.
    """

    def __init__(self, cluster: GroupCluster) -> None:
        self._cluster = cluster
        self._read: dict[str, tuple[str, float]] = {}  # pod -> last line's time, and when read
        self._ended: set[str] = set()

    def write(self, pods: Sequence[Json]) -> None:
        """Writes what is new since the last time."""
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod_number(pod) == 0 and pod["status"].get("phase") != "Pending":
                self._write_lines(name)
            if name not in self._ended:
                told = ends([pod])
                self._ended.update(name for _ in told)
                for end in told:
                    logger.warning("%s", end)

    def _write_lines(self, pod: str) -> None:
        last, read = self._read.get(pod, ("", None))
        now = time.monotonic()
        lines = self._cluster.log(pod, None if read is None else int(now - read) + 2)
        for stamp, _, text in (line.partition(" ") for line in lines):
            if stamp > last:  # nine digits of seconds always (pkg/kubelet/kuberuntime/logs)
                sys.stderr.write(printable(text) + "\n")
                last = stamp
        self._read[pod] = (last, now)


def _owner(version: str, kind: str, owner: Json) -> Json:
    """What makes an object go when its last owner goes."""
    name, uid = owner["metadata"]["name"], owner["metadata"]["uid"]
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid}


def _end(_: int, __: FrameType | None) -> None:
    raise SystemExit(PREEMPTED_STATUS)


def _patiently(call: Callable[..., T], *arguments: object) -> T:
    """Calls until the API answers, for as long as the pods do without."""
    away_since: float | None = None
    while True:
        try:
            return call(*arguments)
        except OutageError as error:
            if away_since is None:
                logger.warning("%s; trying again", error)
                away_since = time.monotonic()
            if time.monotonic() - away_since > LEASE_S:
                raise
            time.sleep(_LOOK_S)
