"""The step's side of a training run in a pod group: start, follow, fetch the result."""

import datetime
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from components.shared.cluster import Json
from components.shared.config import parse_config
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
    group_error,
    has_ended,
    pod_failures,
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
from components.train.initial import identify
from components.train.recipe import Recipe

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_S = 2.0
_RENEW_S = 30.0


def train_in_group(
    group: str,
    pod: str,
    recipe: Recipe,
    store: str,
    dataset_id: str,
    split_id: str,
    *,
    pipeline_run: str,
    label: str,
    run_name: str,
    model_name: str,
    profile_report: Path,
    model: Path,
    history: Path,
) -> str:
    """Start a group of pods that trains, follow it, and fetch its result from the store.

    The group's name follows from the training run. Another attempt at this step therefore follows
    the pods that still run, or fetches the result that they left. A step that ends before its group
    deletes it. A step that is killed cannot: nobody renews the pods' deadline then, and the cluster
    ends them. Arguments and result are those of `components.train.component.train`.

    Raises:
        UserError: If a setting is wrong, the cluster or the store refuses, or the training fails by
            a mistake.
        RuntimeError: If the pods failed otherwise.
    """
    settings = parse_config(GroupSettings, group, "train.group")
    opened = open_store(store)
    training, _ = identify(
        recipe,
        opened,
        model_name,
        pipeline_run=pipeline_run,
        label=label,
        dataset_id=dataset_id,
        split_id=split_id,
    )
    task = Task(store=store, training=training, run_name=run_name)
    folder = group_folder(training)
    result = find_result(opened, folder)
    if result is None:
        opened.upload(profile_report, f"{folder}/{PROFILE}")
        result = Group(GroupCluster.inside(), settings, task, json.loads(pod)).train(opened, folder)
    fetch_result(opened, folder, result, model=model, history=history)
    return result.mlflow_run_id


class Group:
    """The pods of one training run; `pod` is the fragment of a `PodSource`."""

    def __init__(
        self, cluster: GroupCluster, settings: GroupSettings, task: Task, pod: Mapping[str, Any]
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
        self._reported = ""  # last reason for waiting
        self._renewed = 0.0

    def train(self, store: Store, folder: str) -> Result:
        """Start the pods, or find those that run, and follow them to the end."""
        # Argo sends SIGTERM to all of the container's processes; when the launcher has ended,
        # which it does at once, this one is killed: the group is deleted first of all
        before = signal.signal(signal.SIGTERM, _end)
        try:
            self._start()
            job = self._follow()
            result = find_result(store, folder)
            if result is None:
                raise group_error(job, self._pods())
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
        """Deletes a group that has failed, and waits for its end."""
        deleted = False
        while found := _patiently(self._cluster.get, self._objects[-1]):
            job = _patiently(self._cluster.get, self._job) or {}
            if "deletionTimestamp" not in found["metadata"] and not condition(job, "Failed"):
                return
            if not deleted:
                logger.info("group %s has failed before; it is recreated", self._task.name)
                self._delete()
            deleted = True
            time.sleep(_POLL_S)

    def _adopt(self, made: Json) -> None:
        """Adds this step's pod as an owner: the group survives the pod of an earlier attempt."""
        logger.info("%s %s exists already; following it", made["kind"], self._task.name)
        add = {"op": "add", "path": "/metadata/ownerReferences/-", "value": self._owner}
        _patiently(self._cluster.patch, made, [add])

    def _follow(self) -> Json:
        """Polls until the Job has ended, and returns it."""
        while True:
            job = _patiently(self._look)
            if job is None:
                raise OutageError(
                    f"group {self._task.name} was deleted; run the step again: the training "
                    "resumes from its last state"
                )
            if has_ended(job):
                return job
            time.sleep(_POLL_S)

    def _look(self) -> Json | None:
        job = self._cluster.get(self._job)
        if job is None:  # deleted, or Trainer has not created it yet
            return {} if self._cluster.get(self._objects[-1]) else None
        self._renew(job)
        self._wait(job, self._pods())
        return job

    def _pods(self) -> list[Json]:
        pods = self._cluster.pods(self._job["metadata"]["name"])
        self._log.write(pods)
        return pods

    def _renew(self, job: Json) -> None:
        """Renews the pods' deadline, as proof that the step still runs."""
        started = job.get("status", {}).get("startTime")
        if started and not has_ended(job) and time.monotonic() - self._renewed > _RENEW_S:
            age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(started)
            deadline = int(age.total_seconds()) + LEASE_S
            path = "/spec/activeDeadlineSeconds"
            self._cluster.patch(self._job, [{"op": "replace", "path": path, "value": deadline}])
            self._renewed = time.monotonic()

    def _wait(self, job: Json, pods: Sequence[Json]) -> None:
        """Reports what the group waits for, and gives up after `wait_s`."""
        suspended = job["spec"].get("suspend")
        if suspended or has_ended(job) or running(pods) >= self._settings.pods:
            self._waiting_since = None
            self._report("the queue has not admitted the group" if suspended else "")
            return
        reason = waiting_for(pods) or self._refused(pods)
        some = f"{running(pods)} of the group's {self._settings.pods} pods run"
        self._report(reason and f"{some}: {reason}")
        self._waiting_since = self._waiting_since or time.monotonic()
        if time.monotonic() - self._waiting_since > self._settings.wait_s:
            raise UserError(
                f"after {self._settings.wait_s} s {some}: {reason or 'Kubernetes gives no reason'}"
                "; fix it, or raise pod_group.wait_s"
            )

    def _refused(self, pods: Sequence[Json]) -> str:
        """The Job's last warning if pods are missing, e.g. an exceeded quota."""
        if len(pods) >= self._settings.pods:
            return ""
        warnings = self._cluster.warnings("Job", self._job["metadata"]["name"])
        return warnings[-1] if warnings else ""

    def _report(self, text: str) -> None:
        if text and text != self._reported:
            logger.warning("%s", text)
        self._reported = text

    def _delete(self) -> None:
        for made in reversed(self._objects):
            try:
                self._cluster.delete(made)
            except UserError as error:
                logger.warning("%s; the pods end by themselves within %d s", error, LEASE_S)


class _GroupLog:
    """Copies the first pod's log, and the failures of all pods, to this process's log."""

    def __init__(self, cluster: GroupCluster) -> None:
        self._cluster = cluster
        self._read: dict[str, tuple[str, float]] = {}  # pod -> last line's time, time of reading
        self._ended: set[str] = set()

    def write(self, pods: Sequence[Json]) -> None:
        """Write everything since the last call."""
        for pod in pods:
            name = pod["metadata"]["name"]
            if pod_number(pod) == 0 and pod["status"].get("phase") != "Pending":
                self._write_lines(name)
            if name not in self._ended:
                for failure in pod_failures([pod]):
                    self._ended.add(name)
                    logger.warning("%s", failure)

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
    """An owner reference: Kubernetes deletes an object with its last owner."""
    name, uid = owner["metadata"]["name"], owner["metadata"]["uid"]
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid}


def _end(_: int, __: FrameType | None) -> None:
    raise SystemExit(PREEMPTED_STATUS)


def _patiently(call: Callable[..., T], *arguments: object) -> T:
    """Repeats a call until the API answers, at most as long as the pods' deadline allows."""
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
            time.sleep(_POLL_S)
