"""Following a run to its end: one line whenever something changes."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import kfp_server_api

from pipelines.kubeflow.client import Kubeflow, KubeflowError
from pipelines.kubeflow.pods import Pods, Reasons, UnknownPodsError
from pipelines.kubeflow.submit import Submitted

# SKIPPED is no end that a whole run comes to, but none that it leaves
_FINAL = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        state: KFP's name for it, e.g. `SUCCEEDED`.
        reasons: Why steps failed, by step.
    """

    state: str
    reasons: Reasons

    @property
    def succeeded(self) -> bool:
        """Whether all went well."""
        return self.state == "SUCCEEDED"


@dataclass(frozen=True)
class Follower:
    """How a run is followed.

    Attributes:
        kubeflow: Where it runs.
        pods: Its pods' namespace.
        steps: Names of its steps.
        tell: Gets a line when something has changed.
        poll_s: Seconds between two looks.
        patience_s: How long Kubeflow may be away.
    """

    kubeflow: Kubeflow
    pods: Pods
    steps: Collection[str]
    tell: Tell
    poll_s: float = 5.0
    patience_s: float = 600.0

    def follow(self, submitted: Submitted) -> Outcome:
        """Looks at a run until it has ended.

        Raises:
            KubeflowError: If Kubeflow refuses, or is away for longer than `patience_s`.
        """
        told, answered = "", time.monotonic()
        while True:
            try:
                run = self._look(submitted.run_id)
                answered, line = time.monotonic(), self._line(run)
            except KubeflowError as error:
                run, line = None, f"no answer; trying again ({error})"
                if not error.may_pass or time.monotonic() - answered > self.patience_s:
                    raise KubeflowError(f"{error}. The run goes on", error.status) from error
            if line != told:
                self.tell(line)
                told = line
            if run is not None and run.state in _FINAL:
                return Outcome(run.state, self._reasons(run))
            time.sleep(self.poll_s)

    def _look(self, run_id: str) -> kfp_server_api.V2beta1Run:
        run = self.kubeflow.ask(self.kubeflow.api.runs.run_service_get_run, run_id)
        if run.state is None:  # a page of HTML, which the client takes for an empty answer
            raise KubeflowError(f"{self.kubeflow.named} shows a page, not the run: log in", 401)
        return run

    def _line(self, run: kfp_server_api.V2beta1Run) -> str:
        states = self._states(run)
        done = sum(state in ("SUCCEEDED", "SKIPPED") for state in states.values())
        parts = [run.state.lower()]
        parts += [f"{done} of {len(self.steps)} steps done"] if states else []
        parts += [f"{step} {state.lower()}" for step, state in states.items() if state == "RUNNING"]
        if run.state == "PENDING" or "PENDING" in _all_states(run).values():
            parts += self._waiting(run.run_id)
        return "; ".join(parts)

    def _states(self, run: kfp_server_api.V2beta1Run) -> Mapping[str, str]:
        return {step: state for step, state in _all_states(run).items() if step in self.steps}

    def _waiting(self, run_id: str) -> list[str]:
        try:
            reasons = self.pods.waiting(run_id, self.steps)
        except UnknownPodsError as error:
            return [f"what it waits for is unknown: {error}"]
        return [f"{step} waits for {reason}" for step, reason in reasons.items()]

    def _reasons(self, run: kfp_server_api.V2beta1Run) -> Reasons:
        if run.state != "FAILED":
            return {}
        try:
            known = self.pods.failures(run.run_id, self.steps)
        except UnknownPodsError as error:
            known, why = {}, f"the reason is unknown: {error}"
        else:
            why = "its log says why"
        failed = [step for step, state in self._states(run).items() if state == "FAILED"]
        return {**dict.fromkeys(failed, why), **known}


def _all_states(run: kfp_server_api.V2beta1Run) -> Mapping[str, str]:
    details = run.run_details.task_details if run.run_details else None
    return {task.display_name: task.state for task in details or ()}
