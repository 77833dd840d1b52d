"""Reasons why steps of a run wait or have failed, from Kubernetes.

KFP's API gives the state of a task and no reason (toApiPipelineTaskDetail in
backend/src/apiserver/server/api_converter.go at tag 2.17.0).
"""

import base64
import gzip
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from components.shared.cluster import Cluster, Json, KubernetesError, NoClusterError, connect
from components.shared.errors import UserError
from components.shared.pod_reasons import failed_by, short, waits_for
from pipelines.kubeflow.launcher import end_of_log

_NODE = "workflows.argoproj.io/node-name"  # e.g. brainseg-training-x7.root.train.executor

Reasons = Mapping[str, str]


class UnknownPodsError(Exception):
    """Kubernetes does not show the pods; the message has the reason."""


@dataclass(frozen=True)
class Pods:
    """The pods of runs in a namespace; `UnknownPodsError` if Kubernetes does not show them."""

    namespace: str

    def waiting(self, run_id: str, steps: Collection[str]) -> Reasons:
        """Return what pending steps wait for, by step."""
        cluster, pods, workflows = self._look(run_id)
        if not pods and not workflows:
            raise UnknownPodsError(f"no pod of the run is in the namespace {self.namespace} yet")
        reasons = ((pod, waits_for(pod) or _created(cluster, pod)) for pod in pods)
        found = {step_of(pod, steps): reason for pod, reason in reasons if reason}
        return {**_nodes(workflows, steps, {"Pending"}), **found}

    def failures(self, run_id: str, steps: Collection[str]) -> Reasons:
        """Return why steps failed, by step."""
        cluster, pods, workflows = self._look(run_id)
        nodes = _nodes(workflows, steps, {"Failed", "Error"})
        reasons = ((pod, _failure(cluster, pod)) for pod in pods)
        return {**nodes, **{step_of(pod, steps): reason for pod, reason in reasons if reason}}

    def _look(self, run_id: str) -> tuple[Cluster, list[Json], list[Json]]:
        """The cluster, the run's pods, and Argo's view: a pod over a quota is never created."""
        # LabelKeyWorkflowRunId, on pods and on Argo's workflow
        selector = f"pipeline/runid={run_id}"
        try:
            cluster = connect(self.namespace)  # again each time: tokens expire
            pods = cluster.get("pods", labelSelector=selector)["items"]
        except NoClusterError as error:
            raise UnknownPodsError("no access to pods (no kubeconfig that can be read)") from error
        except UserError as error:
            raise UnknownPodsError(f"no access to pods ({error})") from error
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{self.namespace}/workflows"
        try:
            return cluster, pods, cluster.get(path, labelSelector=selector)["items"]
        except KubernetesError:
            return cluster, pods, []  # pods say most of it; who sees them may see no workflows


def step_of(pod: Json, steps: Collection[str]) -> str:
    """Return the step that a pod belongs to, or else the pod's name."""
    node = (pod["metadata"].get("annotations") or {}).get(_NODE, "")
    return _step_in(node, steps) or str(pod["metadata"]["name"])


def nodes_of(workflow: Json) -> list[Json]:
    """Return the nodes of Argo's workflow, which compresses them above a megabyte."""
    status = workflow.get("status", {})
    if packed := status.get("compressedNodes"):
        return list(json.loads(gzip.decompress(base64.b64decode(packed))).values())
    return list(status.get("nodes", {}).values())


def _failure(cluster: Cluster, pod: Json) -> str | None:
    """The reason of a failure; of a process that left no message, also the end of its log."""
    reason = failed_by(pod)
    if not reason or not re.fullmatch(r"exit code \d+", reason):
        return reason
    path = f"pods/{pod['metadata']['name']}/log"
    query = {"container": "main", "tailLines": "100"}
    try:
        text, _ = cluster.ask("GET", path, query=query, response_type="str")
    except KubernetesError as error:
        return f"{reason}; its log cannot be read ({error})"
    return f"{reason}; {end_of_log(text)}"


def _created(cluster: Cluster, pod: Json) -> str | None:
    """The last warning about a pending pod that has a node: volumes, networks, sandboxes."""
    if pod["status"].get("phase") != "Pending" or not pod["spec"].get("nodeName"):
        return None
    selector = f"involvedObject.name={pod['metadata']['name']},type=Warning"
    try:
        events = cluster.get("events", fieldSelector=selector)["items"]
    except KubernetesError:
        return "its containers to be created"
    ordered = sorted(events, key=lambda event: str(event.get("lastTimestamp")))
    last = ordered[-1]["message"] if ordered else "no warning so far"
    return f"its containers to be created: {short(last)}"


def _nodes(
    workflows: Collection[Json], steps: Collection[str], phases: Collection[str]
) -> dict[str, str]:
    nodes = [node for one in workflows for node in nodes_of(one)]
    return {
        _step_in(node["name"], steps) or node["displayName"]: _argos(node["message"])
        for node in nodes
        if node.get("phase") in phases and node.get("message") and node.get("type") == "Pod"
    }


def _argos(message: str) -> str:
    quota = "the namespace's quota: " if "exceeded quota" in message else ""
    return quota + short(message)


def _step_in(node: str, steps: Collection[str]) -> str:
    """The innermost step in a node's name; the node may be its driver or one of its attempts."""
    parts = (re.sub(r"\(.*\)$", "", part) for part in reversed(node.split(".")))
    names = (part.removesuffix("-driver") for part in parts)
    return next((name for name in names if name in steps), "")
