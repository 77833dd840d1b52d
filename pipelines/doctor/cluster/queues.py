"""Checks of Kueue's queues and Kubeflow Trainer, where the profile names them."""

from collections.abc import Iterator

from components.shared.cluster import Cluster
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.target import Target

_KUEUE, _TRAINER = "kueue.x-k8s.io", "trainer.kubeflow.org"
_TRAINER_VERSION = "v1alpha1"


def check_queues(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that each LocalQueue of the profile exists and admits pods."""
    names = {each.queue for each in target.profile.steps.values()}
    versions = _versions(cluster, _KUEUE) if any(names) else []
    for name in sorted(names - {""}):
        yield _check_queue(cluster, name, versions)


def check_trainer(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Check that Kubeflow Trainer is installed, if pod groups are TrainJobs."""
    if target.group is None or target.group.backend != "trainjob":
        return
    if _TRAINER_VERSION in (versions := _versions(cluster, _TRAINER)):
        yield Check("Trainer", "ok", f"TrainJobs of {_TRAINER}/{_TRAINER_VERSION}")
        return
    there = f"has TrainJobs only of {', '.join(versions)}" if versions else "knows no TrainJobs"
    advice = "install Kubeflow Trainer 2, or set train.pod_group.backend: job in the profile"
    yield Check("Trainer", "error", f"the cluster {there}", advice)


def _check_queue(cluster: Cluster, name: str, versions: list[str]) -> Check:
    if not versions:
        advice = "install Kueue, or remove the queue from the profile: its pods wait for ever"
        return Check("queue", "error", f"{name}: the cluster has no Kueue", advice)
    place = f"/apis/{_KUEUE}/{versions[0]}/namespaces/{cluster.namespace}/localqueues/{name}"
    queue = cluster.find(place)
    if queue is None:
        advice = "name another in the profile, or create it: its pods wait for ever"
        return Check("queue", "error", f"there is no LocalQueue {name}", advice)
    status = queue.get("status", {})
    for condition in status.get("conditions", ()):
        if condition["type"] == "Active" and condition["status"] != "True":
            advice = "ask Kueue's administrator; until then its pods wait"
            return Check("queue", "error", f"{name}: {condition.get('message', '')}", advice)
    waiting = status.get("pendingWorkloads", 0)
    return Check("queue", "ok", f"{name} is active; {waiting} are waiting in it")


def _versions(cluster: Cluster, group: str) -> list[str]:
    """The versions of an API, the preferred one first; empty if it is not installed."""
    if (found := cluster.find(f"/apis/{group}")) is None:
        return []
    every = [each["version"] for each in (found["preferredVersion"], *found["versions"])]
    return list(dict.fromkeys(every))
