"""Reasons why a pod waits or has failed, from its status in Kubernetes' JSON."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]

_QUEUE = "kueue.x-k8s.io/queue-name"
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_PLACES = {
    "node affinity/selector": "a node that the profile's selector allows",
    "taint": "a node whose taints the profile tolerates",
    "PersistentVolumeClaim": "a volume",
    "too many pods": "a node with room for a pod",
}

# the kubelet's words (pkg/kubelet/eviction) about the scratch folders of a profile; and torch's
_FULL = re.compile(r'EmptyDir volume "(tmp|cache|shared-memory)" exceeds|(shared memory)\(shm\)')


def waits_for(pod: Json) -> str | None:
    """Return what a pending pod waits for; `None` if it is not pending or is being created."""
    if pod["status"].get("phase") != "Pending":
        return None
    for condition in pod["status"].get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return _place(pod, condition)
    for status in container_statuses(pod):
        waiting = status["state"].get("waiting") or {}
        reason, message = waiting.get("reason"), waiting.get("message")
        if reason in _IMAGE:
            return f"the image {status['image']}: {short(message or reason)}"
        if message:
            kind = "configuration" if reason == "CreateContainerConfigError" else "container"
            return f"its {kind}: {short(message)}"
    return None


def failed_by(pod: Json) -> str | None:
    """Return why a pod failed, in the words of its own process if it left any."""
    status = pod["status"]
    if status.get("phase") != "Failed":
        return None
    if reason := status.get("reason"):  # Evicted, DeadlineExceeded, ...
        text = short(f"{reason}: {status.get('message')}").rstrip(".")
        return _with_remedy(text, _too_small(reason, text))
    for each in container_statuses(pod):
        end = each["state"].get("terminated") or {}
        if end.get("reason") == "OOMKilled":
            text = f"it used more memory than its limit (container {each['name']})"
            return _with_remedy(text, "memory" if each["name"] == "main" else "")
        if end.get("exitCode"):
            text = short(end.get("message") or f"exit code {end['exitCode']}")
            return _with_remedy(text, _too_small("", text))
    return "its pod failed"


def container_statuses(pod: Json) -> Iterator[Json]:
    """Yield the statuses of a pod's containers, init containers first."""
    yield from pod["status"].get("initContainerStatuses") or ()
    yield from pod["status"].get("containerStatuses") or ()


def short(message: str) -> str:
    """Return a message in one line of at most 300 characters."""
    text = " ".join(message.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _too_small(reason: str, message: str) -> str:
    """The setting of a pod profile that ended a pod; empty if it was none."""
    full = _FULL.search(message)
    if full:
        return f"scratch.{re.sub('[- ]', '_', full[1] or full[2])}"
    return "timeout_s" if reason == "DeadlineExceeded" else ""


def _with_remedy(text: str, setting: str) -> str:
    return f"{text}; raise the step's {setting} in the pod profile" if setting else text


def _place(pod: Json, condition: Json) -> str:
    message = condition.get("message") or ""
    if condition.get("reason") == "SchedulingGated":
        queue = (pod["metadata"].get("labels") or {}).get(_QUEUE, "?")
        return f"its turn in the queue {queue}"
    missing = sorted({name.rstrip(".,") for name in re.findall(r"Insufficient (\S+)", message)})
    if any("gpu" in name for name in missing):
        place = "a node with a free GPU"
    elif missing:
        place = f"a node with enough free {' and '.join(missing)}"
    else:
        place = next((text for word, text in _PLACES.items() if word in message), "a node")
    return f"{place}: {short(message)}"
