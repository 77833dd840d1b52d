"""Checks from pods like those of steps: images, store, MLflow and clock."""

import contextlib
import json
import logging
import signal
import time
import uuid
from collections.abc import Iterator, Mapping

from components.shared.cluster import Cluster, Json, KubernetesError
from components.shared.pod_reasons import container_statuses, failed_by, waits_for
from pipelines.doctor.check import Check
from pipelines.doctor.cluster.server import check_clock
from pipelines.doctor.cluster.target import Target
from pipelines.placement.pod import pod_fragment
from pipelines.placement.profiles import PodSettings

_EVERY_S = 1.0
_RESERVE_S = 2.0  # of the time limit, so that the last request is not refused
_DEADLINE_S = 90  # Kubernetes ends the pods then, if this process is killed

_LABELS = {"app.kubernetes.io/name": "brainseg-doctor"}
# a sidecar would go on after the probe's end; KFP's pods have none either
_NO_SIDECAR = {"sidecar.istio.io/inject": "false"}
_AMOUNTS = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"cpu": "2", "memory": "1Gi"},
}

# Prefixes of reasons that do not pass by waiting; a node may still have room later
_FINAL = ("Err", "Image", "InvalidImage", "CreateContainer")

_Seen = tuple[Json, float]  # a pod, and this machine's time when it was seen

_logger = logging.getLogger(__name__)


def check_pods(cluster: Cluster, target: Target) -> Iterator[Check]:
    """Start a pod of each image, which tries store and MLflow, and delete both in the end."""
    names = {kind: f"brainseg-doctor-{kind}-{uuid.uuid4().hex[:8]}" for kind in target.probes}
    refusals: dict[str, Check] = {}
    with _deleted_at_the_end(cluster, names):
        for kind, (image, step) in target.probes.items():
            pod = probe_pod(names[kind], target.profile.steps[step], image, target)
            try:
                cluster.create("pods", pod)
            except KubernetesError as error:
                if error.status == 0:
                    raise
                refusals[kind] = _refusal(kind, error)
                del names[kind]
        pods = _followed(cluster, names)
    for kind, (image, _) in target.probes.items():
        yield from [refusals[kind]] if kind in refusals else _checks(kind, image, pods.get(kind))
    if not target.shared_store:
        advice = "name the one of runs: --store s3://bucket/prefix"
        yield Check("store", "unknown", f"pods cannot reach the folder {target.store}", advice)


@contextlib.contextmanager
def _deleted_at_the_end(cluster: Cluster, names: Mapping[str, str]) -> Iterator[None]:
    """Deletes pods at the end, also at Ctrl-C and SIGTERM; neither interrupts the deletion."""
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(each, signal.default_int_handler) for each in signals]
    try:
        yield
    finally:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        for name in names.values():
            try:
                cluster.delete(f"pods/{name}", gracePeriodSeconds="0")
            except KubernetesError as error:
                if error.status != 404:
                    message = "the pod %s cannot be deleted (%s): kubectl -n %s delete pod %s"
                    _logger.warning(message, name, error, cluster.namespace, name)
        for each, handler in zip(signals, before, strict=True):
            signal.signal(each, handler)


def probe_pod(name: str, settings: PodSettings, image: str, target: Target) -> Json:
    """Return a step's pod that is small, waits in no queue and tries what steps need."""
    pod = pod_fragment(settings)
    (container,) = pod["spec"]["containers"]
    probe = {
        **container,
        "image": image,
        "command": ["python", "-m", "pipelines.doctor.pod", target.shared_store, *target.weights],
        "resources": _AMOUNTS,
        # its answer; where it crashes, the end of its log
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    pod["spec"] |= {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _DEADLINE_S,
        "serviceAccountName": target.service_account,
        "enableServiceLinks": False,
        "containers": [probe],
    }
    pod["metadata"]["name"] = name
    pod["metadata"].setdefault("labels", {}).update(_LABELS | _NO_SIDECAR)
    pod["metadata"].setdefault("annotations", {}).update(_NO_SIDECAR)
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _refusal(kind: str, error: KubernetesError) -> Check:
    text = str(error)
    if "cannot create resource" in text or error.status == 401:
        advice = "have the right to create and delete pods given to you, or ask someone who has it"
        return Check(f"pod, {kind}", "unknown", text, advice)
    if "exceeded quota" in text:
        advice = "wait until others' pods have ended, or raise the quota"
    elif "violates PodSecurity" in text:
        advice = "run in a namespace that enforces no more than the standard restricted"
    else:
        advice = "fix this first: pods of steps are refused in the same way"
    return Check(f"pod, {kind}", "error", text, advice)


def _followed(cluster: Cluster, names: Mapping[str, str]) -> dict[str, _Seen]:
    """The pods when all are settled, or when the time is over."""
    seen: dict[str, _Seen] = {}
    pending = dict(names)
    while pending and cluster.left_s > _RESERVE_S:
        for kind, name in list(pending.items()):
            pod = cluster.get(f"pods/{name}")
            seen[kind] = pod, time.time()
            reason = str((_state(pod).get("waiting") or {}).get("reason"))
            if pod["status"].get("phase") in ("Succeeded", "Failed") or reason.startswith(_FINAL):
                del pending[kind]
        if pending:
            time.sleep(_EVERY_S)
    return seen


def _state(pod: Json) -> Json:
    """State of the only container; empty before the pod has a node."""
    return dict(next((each["state"] for each in container_statuses(pod)), {}))


def _checks(kind: str, image: str, seen: _Seen | None) -> Iterator[Check]:
    pod, at = seen or ({"status": {}}, 0.0)
    name, phase = f"pod, {kind}", pod["status"].get("phase")
    if phase == "Succeeded":
        yield Check(name, "ok", f"{image} starts")
        answer = json.loads(_state(pod)["terminated"]["message"])
        clock = check_clock(f"clock, {kind}", "the pod's node", answer["time"] - at)
        if clock.status != "ok":
            yield clock
        for each in answer["checks"]:
            yield Check(**{**each, "name": f"{each['name']}, {kind}"})
    elif phase == "Failed":
        advice = "use images of this version: make images, make push, then --registry"
        yield Check(name, "error", f"{image}: {failed_by(pod)}", advice)
    elif reason := waits_for(pod):
        yield Check(name, "error", f"it waits for {reason}", _advice(image, reason))
    else:
        advice = "try again: a large image takes longer the first time"
        yield Check(name, "unknown", f"{image}: the pod has not ended in this time", advice)


def _advice(image: str, reason: str) -> str:
    if reason.startswith("the image"):
        return (
            f"look whether {image} is there (--registry, --digests), and whether the profile's "
            "pull_secrets let nodes have it"
        )
    if reason.startswith(("its configuration", "its container")):
        return "create what is missing; the pods of steps wait for it too"
    return "make room, or change the profile's node_selector, tolerations or affinity"
