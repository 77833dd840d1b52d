"""Follows a run to its end and reports every change in one line."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import kfp_server_api

from pipelines.kubeflow.client import Kubeflow, KubeflowError
from pipelines.kubeflow.pods import Pods, Reasons, UnknownPodsError
from pipelines.kubeflow.submit import Submitted

# A whole run never ends as SKIPPED, but would not leave that state either.
_FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    state: str
    reasons: Reasons

    @property
    def succeeded(self) -> bool:
        """True if the run succeeded."""
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class Follower:
    """Follows a run; `report` gets a line after every change."""

    kubeflow: Kubeflow
    pods: Pods
    steps: Collection[str]
    report: Callable[[str], None]
    poll_s: float = 5.0
    patience_s: float = 600.0

    def follow(self, submitted: Submitted) -> Outcome:
        """Requests the state of a run until it has ended.

        Raises `KubeflowError` if Kubeflow refuses, or is unavailable for longer than `patience_s`.
        """
        reported, answered = "", time.monotonic()
        while True:
            try:
                run = self.kubeflow.ask(
                    self.kubeflow.api.runs.run_service_get_run, submitted.run_id
                )
                if run.run_id is None:  # the client takes a page of HTML for an empty answer
                    raise KubeflowError(f"{self.kubeflow.named} answers with a page: log in", 401)
                run.state = _state(run)
                answered, line = time.monotonic(), self._line(run)
            except KubeflowError as error:
                run, line = None, f"no answer; trying again ({error})"
                if not error.may_pass or time.monotonic() - answered > self.patience_s:
                    raise KubeflowError(f"{error}. The run continues", error.status) from error
            if line != reported:
                self.report(line)
                reported = line
            if run is not None and run.state in _FINAL:
                return Outcome(run.state, self._reasons(run))
            time.sleep(self.poll_s)

    def _line(self, run: kfp_server_api.V2beta1Run) -> str:
        if run.state in _FINAL:  # KFP may never update the tasks of an ended run
            return str(run.state.lower())
        states = self._states(run)
        done = sum(state in ("SUCCEEDED", "SKIPPED") for state in states.values())
        parts = [run.state.lower()]
        parts += [f"{done} of {len(self.steps)} steps done"] if states else []
        parts += [f"{step} {state.lower()}" for step, state in states.items() if state == "RUNNING"]
        if run.state == "PENDING" or "PENDING" in _all_states(run).values():
            try:
                reasons = self.pods.waiting(run.run_id, self.steps)
                parts += [f"{step} waits for {reason}" for step, reason in reasons.items()]
            except UnknownPodsError as error:
                parts += [f"what it waits for is unknown: {error}"]
        return "; ".join(parts)

    def _states(self, run: kfp_server_api.V2beta1Run) -> Mapping[str, str]:
        return {step: state for step, state in _all_states(run).items() if step in self.steps}

    def _reasons(self, run: kfp_server_api.V2beta1Run) -> Reasons:
        if run.state != "FAILED":
            return {}
        known: Reasons = {}
        why = "see its log"
        try:
            known = self.pods.failures(run.run_id, self.steps)
        except UnknownPodsError as error:
            why = f"the reason is unknown: {error}"
        failed = [step for step, state in self._states(run).items() if state == "FAILED"]
        return {**dict.fromkeys(failed, why), **known}


def _state(run: kfp_server_api.V2beta1Run) -> str:
    """The state of a run; corrects two that KFP 2.17.0 reports otherwise."""
    history = [each.state for each in run.state_history or ()]
    if history[-2:] == ["CANCELING", "FAILED"]:  # Argo has no state for a terminated workflow
        return "CANCELED"
    return run.state or "PENDING"  # omitted as long as Argo has not looked at the workflow


def _all_states(run: kfp_server_api.V2beta1Run) -> Mapping[str, str]:
    details = run.run_details.task_details if run.run_details else None
    return {task.display_name: task.state for task in details or ()}
