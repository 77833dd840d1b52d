"""State of a Job and its pods: end, failures, reasons for waiting."""

from collections.abc import Sequence

from components.shared.cluster import Json
from components.shared.config import Record
from components.shared.errors import OutageError, UserError
from components.shared.pod_reasons import container_statuses, waits_for
from components.shared.process import (
    ERROR_PREFIX,
    MISTAKE_STATUS,
    OUTAGE_PREFIX,
    OUTAGE_STATUS,
)

_SHOWN = 3  # failures of pods in a message; the log has all


class PodFailure(Record):
    """The failure of a pod.

    Attributes:
        number: Number of the pod in its group, from 0.
        exit_code: Exit code of its first process.
        reason: Reason in Kubernetes' words, e.g. OOMKilled or Evicted.
        message: Termination message of the process.
    """

    number: int
    exit_code: int
    reason: str
    message: str

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        message = f": {self.message}" if self.message else ""
        return f"pod {self.number} ended with {self.exit_code}{reason}{message}"


def pod_number(pod: Json) -> int:
    """Return the number of a pod in its group, from 0."""
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def condition(job: Json, kind: str) -> Json | None:
    """Return a condition of a Job, such as Complete or Failed, if it holds."""
    conditions: Sequence[Json] = job.get("status", {}).get("conditions") or ()
    holding = (each for each in conditions if each["status"] == "True")
    return next((each for each in holding if each["type"] == kind), None)


def has_ended(job: Json) -> bool:
    """Return whether the Job is complete or has failed."""
    return bool(condition(job, "Complete") or condition(job, "Failed"))


def running(pods: Sequence[Json]) -> int:
    """Return the number of pods that run or have succeeded."""
    phases = [pod["status"].get("phase") for pod in pods]
    return phases.count("Running") + phases.count("Succeeded")


def waiting_for(pods: Sequence[Json]) -> str:
    """Return what the first waiting pod waits for; empty if Kubernetes gives no reason."""
    reasons = ((pod_number(pod), waits_for(pod)) for pod in pods)
    return next((f"pod {number} waits for {reason}" for number, reason in reasons if reason), "")


def pod_failures(pods: Sequence[Json]) -> list[PodFailure]:
    """Return the failures of pods, in the given order."""
    return [
        PodFailure(
            number=pod_number(pod),
            exit_code=ended["exitCode"],
            reason=pod["status"].get("reason") or ended.get("reason", ""),
            message=" ".join(ended.get("message", "").split()),
        )
        for pod in pods
        for ended in (each["state"].get("terminated") for each in container_statuses(pod))
        if ended and ended["exitCode"]
    ]


def group_error(job: Json, pods: Sequence[Json]) -> Exception:
    """Return the error of a group without a result: a pod's mistake or outage in its own words."""
    failures = pod_failures(pods)
    messages = {failure.exit_code: failure.message for failure in failures}
    if MISTAKE_STATUS in messages:
        return UserError(messages[MISTAKE_STATUS].removeprefix(ERROR_PREFIX))
    if OUTAGE_STATUS in messages:
        return OutageError(messages[OUTAGE_STATUS].removeprefix(OUTAGE_PREFIX))
    failed = condition(job, "Failed") or {"reason": "no result", "message": "none is in the store"}
    last = "".join(f"; {failure}" for failure in failures[-_SHOWN:])
    return RuntimeError(f"the pods failed ({failed['reason']}: {failed['message']}){last}")
