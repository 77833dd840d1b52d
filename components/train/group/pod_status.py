"""What a Job and its pods tell: whether they ended, how, and what they wait for."""

from collections.abc import Sequence

from components.shared.config import Record
from components.shared.errors import OutageError, UserError
from components.shared.process import (
    ERROR_PREFIX,
    MISTAKE_STATUS,
    OUTAGE_PREFIX,
    OUTAGE_STATUS,
)
from components.train.group.objects import Object

_TOLD = 3  # ends of pods in a message; the log has all


class End(Record):
    """How a pod failed.

    Attributes:
        number: Which of the group.
        status: Of its first process.
        reason: Kubernetes' word, e.g. OOMKilled or Evicted.
        message: What the process left.
    """

    number: int
    status: int
    reason: str
    message: str

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        message = f": {self.message}" if self.message else ""
        return f"pod {self.number} ended with {self.status}{reason}{message}"


def pod_number(pod: Object) -> int:
    """Which of its group a pod is, from 0."""
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def condition(job: Object, kind: str) -> Object | None:
    """A condition of a Job, such as Complete or Failed, if it holds."""
    conditions: Sequence[Object] = job.get("status", {}).get("conditions") or ()
    holding = (each for each in conditions if each["status"] == "True")
    return next((each for each in holding if each["type"] == kind), None)


def has_ended(job: Object) -> bool:
    """Whether no pod of the Job will run any more."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def running(pods: Sequence[Object]) -> int:
    """How many pods have what they need."""
    phases = [pod["status"].get("phase") for pod in pods]
    return phases.count("Running") + phases.count("Succeeded")


def waiting_for(pods: Sequence[Object]) -> str:
    """Why the first pod that does not run does not; empty where Kubernetes does not say."""
    return next(filter(None, map(_waiting_for, pods)), "")


def ends(pods: Sequence[Object]) -> list[End]:
    """How those pods failed that did, in the order in which they are given."""
    return [end for pod in pods for end in _ends(pod)]


def failure(job: Object, pods: Sequence[Object]) -> Exception:
    """Why a group left no result: a mistake or an outage in the words of the pod that met it."""
    ended = ends(pods)
    told = {end.status: end.message for end in ended}
    if MISTAKE_STATUS in told:
        return UserError(told[MISTAKE_STATUS].removeprefix(ERROR_PREFIX))
    if OUTAGE_STATUS in told:
        return OutageError(told[OUTAGE_STATUS].removeprefix(OUTAGE_PREFIX))
    failed = condition(job, "Failed") or {"reason": "no result", "message": "none is in the store"}
    last = "".join(f"; {end}" for end in ended[-_TOLD:])
    return RuntimeError(f"the pods failed ({failed['reason']}: {failed['message']}){last}")


def _waiting_for(pod: Object) -> str:
    for each in pod["status"].get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return f"no node takes pod {pod_number(pod)}: {each.get('message', '')}"
    for each in pod["status"].get("containerStatuses") or ():
        waiting = each["state"].get("waiting") or {}
        if waiting.get("message"):
            return f"pod {pod_number(pod)}: {waiting['reason']}: {waiting['message']}"
    return ""


def _ends(pod: Object) -> Sequence[End]:
    states = [each["state"] for each in pod["status"].get("containerStatuses") or ()]
    return [
        End(
            number=pod_number(pod),
            status=ended["exitCode"],
            reason=pod["status"].get("reason") or ended.get("reason", ""),
            message=" ".join(ended.get("message", "").split()),
        )
        for ended in (state.get("terminated") for state in states)
        if ended and ended["exitCode"]
    ]
