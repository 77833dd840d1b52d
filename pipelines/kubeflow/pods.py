"""What the pods of a run wait for, or why they failed: only Kubernetes knows.

KFP's API gives the state of a task and no reason (toApiPipelineTaskDetail in
backend/src/apiserver/server/api_converter.go at tag 2.17.0).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kubernetes
import urllib3
import yaml
from kubernetes.client import CoreV1Api, CustomObjectsApi, V1ContainerStatus, V1Pod
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

_RUN = "pipeline/runid={}"  # LabelKeyWorkflowRunId, on pods and on Argo's workflow
_NODE = "workflows.argoproj.io/node-name"  # e.g. brainseg-training-x7.root.train.executor
_QUEUE = "kueue.x-k8s.io/queue-name"
_TIMEOUTS_S = (3, 10)
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_PLACES = {
    "node affinity/selector": "a node that the profile's selector allows",
    "taint": "a node whose taints the profile tolerates",
    "PersistentVolumeClaim": "a volume",
    "too many pods": "a node with room for a pod",
}

# kubelet's words (pkg/kubelet/eviction) about the folders that placement.py mounts; and torch's
_FULL = re.compile(r'EmptyDir volume "(tmp|cache|shared-memory)" exceeds|(shared memory)\(shm\)')

Reasons = Mapping[str, str]


class UnknownPodsError(Exception):
    """Kubernetes does not show the pods; the text says why."""


class NoClusterError(UnknownPodsError):
    """Nothing says where a cluster is."""


def find_cluster() -> None:
    """Sets Kubernetes' client up: by the pod that this runs in, or the kubeconfig.

    Raises:
        NoClusterError: If there is neither.
    """
    try:
        kubernetes.config.load_incluster_config()
    except ConfigException:
        try:
            kubernetes.config.load_kube_config()
        except (ConfigException, yaml.YAMLError) as error:
            raise NoClusterError("no access to pods (no kubeconfig that can be read)") from error


@dataclass(frozen=True)
class Pods:
    """The pods of a namespace.

    Attributes:
        namespace: Where runs have their pods.
    """

    namespace: str

    def waiting(self, run_id: str, steps: Collection[str]) -> Reasons:
        """What pending steps wait for, by step.

        Raises:
            UnknownPodsError: If Kubernetes cannot be asked, or knows no pod of the run.
        """
        pods, workflows = self._pods(run_id), self._workflows(run_id)
        if not pods and not workflows:
            raise UnknownPodsError(f"no pod of the run is in the namespace {self.namespace} yet")
        nodes = _nodes(workflows, steps, {"Pending"})
        reasons = ((pod, waits_for(pod)) for pod in pods)
        found = {step_of(pod, steps): reason for pod, reason in reasons if reason}
        late = {step_of(pod, steps): self._event(pod) for pod in pods if _is_being_made(pod)}
        return {**nodes, **found, **late}

    def failures(self, run_id: str, steps: Collection[str]) -> Reasons:
        """Why steps failed, by step.

        Raises:
            UnknownPodsError: If Kubernetes cannot be asked.
        """
        nodes = _nodes(self._workflows(run_id), steps, {"Failed", "Error"})
        reasons = ((pod, failed_by(pod)) for pod in self._pods(run_id))
        found = {step_of(pod, steps): reason for pod, reason in reasons if reason}
        return {**nodes, **found}

    def _pods(self, run_id: str) -> list[V1Pod]:
        core = _core()
        try:
            answer = core.list_namespaced_pod(
                self.namespace, label_selector=_RUN.format(run_id), _request_timeout=_TIMEOUTS_S
            )
        except ApiException as error:
            raise UnknownPodsError(f"no access to pods ({error.status} {error.reason})") from error
        except urllib3.exceptions.HTTPError as error:
            raise UnknownPodsError("no access to pods (the cluster does not answer)") from error
        return list(answer.items)

    def _workflows(self, run_id: str) -> list[dict[str, Any]]:
        """Argo's own words: a pod that a quota refuses is never made."""
        try:
            found = _objects().list_namespaced_custom_object(
                "argoproj.io",
                "v1alpha1",
                self.namespace,
                "workflows",
                label_selector=_RUN.format(run_id),
                _request_timeout=_TIMEOUTS_S,
            )
        except (ApiException, urllib3.exceptions.HTTPError):
            return []  # pods say most of it; who may see them may not see workflows
        return list(found["items"])

    def _event(self, pod: V1Pod) -> str:
        """The last complaint about a pod that has its node: volumes, networks, sandboxes."""
        chosen = f"involvedObject.name={pod.metadata.name},type=Warning"
        try:
            events = _core().list_namespaced_event(
                self.namespace, field_selector=chosen, _request_timeout=_TIMEOUTS_S
            )
        except (ApiException, urllib3.exceptions.HTTPError):
            return "its containers to be made"
        ordered = sorted(events.items, key=lambda event: str(event.last_timestamp))
        last = ordered[-1].message if ordered else "no complaint so far"
        return f"its containers to be made: {_short(last)}"


def waits_for(pod: V1Pod) -> str | None:
    """What a pending pod waits for, or nothing if it is not pending or being made.

    Args:
        pod: As Kubernetes has it.
    """
    if pod.status.phase != "Pending":
        return None
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            return _place(pod, condition.reason, condition.message or "")
    for status in _statuses(pod):
        waiting = status.state.waiting
        if waiting and waiting.reason in _IMAGE:
            return f"the image {status.image}: {_short(waiting.message or waiting.reason)}"
        if waiting and waiting.reason == "CreateContainerConfigError":
            return f"its configuration: {_short(waiting.message)}"
    return None


def failed_by(pod: V1Pod) -> str | None:
    """Why a pod failed, in the words of its own process where it left any.

    Args:
        pod: As Kubernetes has it.
    """
    if pod.status.phase != "Failed":
        return None
    if pod.status.reason:  # Evicted, DeadlineExceeded, ...
        told = _short(f"{pod.status.reason}: {pod.status.message}").rstrip(".")
        return _with_remedy(told, _too_small(pod.status.reason, told))
    for status in _statuses(pod):
        end = status.state.terminated
        if end and end.reason == "OOMKilled":
            told = f"it used more memory than its limit (container {status.name})"
            return _with_remedy(told, "memory" if status.name == "main" else "")
        if end and end.exit_code:
            told = _short(end.message or f"exit code {end.exit_code}")
            return _with_remedy(told, _too_small("", told))
    return "its pod failed"


def _too_small(reason: str, message: str) -> str:
    """The setting of a pod profile that let a pod be ended; empty if it was none."""
    full = _FULL.search(message)
    if full:
        return f"scratch.{re.sub('[- ]', '_', full[1] or full[2])}"
    return "timeout_s" if reason == "DeadlineExceeded" else ""


def _with_remedy(told: str, setting: str) -> str:
    return f"{told}; raise the step's {setting} in the pod profile" if setting else told


def step_of(pod: V1Pod, steps: Collection[str]) -> str:
    """The step that a pod belongs to; its own name where that cannot be told."""
    node = (pod.metadata.annotations or {}).get(_NODE, "")
    return _step_in(node, steps) or str(pod.metadata.name)


def _place(pod: V1Pod, reason: str, message: str) -> str:
    if reason == "SchedulingGated":
        queue = (pod.metadata.labels or {}).get(_QUEUE, "?")
        return f"its turn in the queue {queue}"
    short = sorted({name.rstrip(".,") for name in re.findall(r"Insufficient (\S+)", message)})
    if any("gpu" in name for name in short):
        place = "a node with a free GPU"
    elif short:
        place = f"a node with enough free {' and '.join(short)}"
    else:
        place = next((told for word, told in _PLACES.items() if word in message), "a node")
    return f"{place}: {_short(message)}"


def _statuses(pod: V1Pod) -> Iterator[V1ContainerStatus]:
    yield from pod.status.init_container_statuses or ()
    yield from pod.status.container_statuses or ()


def _is_being_made(pod: V1Pod) -> bool:
    if pod.status.phase != "Pending" or waits_for(pod):
        return False
    return bool(pod.spec.node_name)


def _nodes(
    workflows: Iterable[Mapping[str, Any]], steps: Collection[str], phases: set[str]
) -> dict[str, str]:
    nodes = [node for one in workflows for node in one.get("status", {}).get("nodes", {}).values()]
    told = [node for node in nodes if node.get("phase") in phases and node.get("message")]
    return {
        _step_in(node["name"], steps) or node["displayName"]: _argos(node["message"])
        for node in told
        if node.get("type") == "Pod"
    }


def _argos(message: str) -> str:
    quota = "the namespace's quota: " if "exceeded quota" in message else ""
    return quota + _short(message)


def _step_in(node: str, steps: Collection[str]) -> str:
    """The innermost step in a node's name, whose driver or attempt the node may be."""
    parts = (re.sub(r"\(.*\)$", "", part) for part in reversed(node.split(".")))
    names = (part.removesuffix("-driver") for part in parts)
    return next((name for name in names if name in steps), "")


def _core() -> CoreV1Api:
    find_cluster()  # again each time: tokens expire
    return CoreV1Api()


def _objects() -> CustomObjectsApi:
    find_cluster()
    return CustomObjectsApi()


def _short(message: str) -> str:
    text = " ".join(message.split())
    return text if len(text) <= 300 else f"{text[:297]}..."
