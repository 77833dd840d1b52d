"""What a Job and its pods tell: whether they ended, how, and what they wait for."""

from collections.abc import Sequence

from components.shared.cluster import Json
from components.shared.config import Record
from components.shared.errors import OutageError, UserError
from components.shared.pod_reasons import waits_for
from components.shared.process import (
    ERROR_PREFIX,
    MISTAKE_STATUS,
    OUTAGE_PREFIX,
    OUTAGE_STATUS,
)

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


def pod_number(pod: Json) -> int:
    """Which of its group a pod is, from 0."""
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def condition(job: Json, kind: str) -> Json | None:
    """A condition of a Job, such as Complete or Failed, if it holds."""
    conditions: Sequence[Json] = job.get("status", {}).get("conditions") or ()
    holding = (each for each in conditions if each["status"] == "True")
    return next((each for each in holding if each["type"] == kind), None)


def has_ended(job: Json) -> bool:
    """Whether no pod of the Job will run any more."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def running(pods: Sequence[Json]) -> int:
    """How many pods have what they need."""
    phases = [pod["status"].get("phase") for pod in pods]
    return phases.count("Running") + phases.count("Succeeded")


def waiting_for(pods: Sequence[Json]) -> str:
    """Return what the first waiting pod waits for; empty if Kubernetes gives no reason."""
    reasons = ((pod_number(pod), waits_for(pod)) for pod in pods)
    return next((f"pod {number} waits for {reason}" for number, reason in reasons if reason), "")


def ends(pods: Sequence[Json]) -> list[End]:
    """How those pods failed that did, in the order in which they are given."""
    return [end for pod in pods for end in _ends(pod)]


def failure(job: Json, pods: Sequence[Json]) -> Exception:
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


def _ends(pod: Json) -> Sequence[End]:
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
