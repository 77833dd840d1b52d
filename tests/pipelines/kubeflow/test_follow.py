import threading

import pytest

from pipelines.kubeflow.client import KubeflowError
from pipelines.kubeflow.follow import Follower
from pipelines.kubeflow.pods import UnknownPodsError
from pipelines.kubeflow.submit import submit
from tests.kfp_api.backend import Moment
from tests.kfp_api.server import Accident


class KnownPods:
    """A cluster that answers; `pods.Pods` itself is tested against one."""

    def __init__(self, waiting=(), failures=()):
        self._waiting, self._failures = dict(waiting), dict(failures)

    def waiting(self, run_id, steps):
        return self._waiting

    def failures(self, run_id, steps):
        return self._failures


class HiddenPods:
    def waiting(self, run_id, steps):
        raise UnknownPodsError("no access to pods (403 Forbidden)")

    failures = waiting


@pytest.fixture
def follow(backend, kubeflow, prepared):
    """Starts a run that goes as a script says, and follows it."""

    def run(*moments, pods=None, **options):
        backend.script = moments
        submitted = submit(kubeflow, prepared, name="first", experiment="brainseg")
        lines = []
        follower = Follower(
            kubeflow, pods or HiddenPods(), prepared.steps, lines.append, poll_s=0.01, **options
        )
        return follower.follow(submitted), lines

    return run


def test_a_run_is_followed_to_its_end_with_a_line_for_each_change(follow):
    one = {"root": "RUNNING", "ingest-driver": "SUCCEEDED", "ingest": "RUNNING"}
    two = {"ingest": "SUCCEEDED", "profile": "RUNNING"}
    outcome, lines = follow(
        Moment("RUNNING", one), Moment("RUNNING", one), Moment("RUNNING", two), Moment("SUCCEEDED")
    )
    assert outcome.succeeded
    assert lines == [
        "running; 0 of 6 steps done; ingest running",
        "running; 1 of 6 steps done; profile running",
        "succeeded",
    ]


def test_a_run_that_argo_has_not_looked_at_yet_waits(follow):
    """Seen on a real KFP 2.17.0: after "PENDING" the state is "unspecified", which it omits."""
    outcome, lines = follow(Moment(""), Moment("RUNNING"), Moment("SUCCEEDED"), pods=KnownPods())
    assert outcome.succeeded
    assert lines == ["pending", "running", "succeeded"]


def test_a_run_that_fails_while_it_is_canceled_is_canceled(follow):
    """Seen on a real KFP 2.17.0: a terminated run ends as FAILED."""
    outcome, lines = follow(
        Moment("RUNNING"), Moment("CANCELING"), Moment("FAILED"), pods=KnownPods()
    )
    assert outcome.state == "CANCELED"
    assert lines[-1] == "canceled"


def test_a_failed_run_names_the_step_and_the_pods_reason(follow):
    tasks = {"root": "FAILED", "ingest": "SUCCEEDED", "train": "FAILED", "executor": "FAILED"}
    pods = KnownPods(failures={"train": "brainseg error: loss is not a number"})
    outcome, _ = follow(Moment("RUNNING"), Moment("FAILED", tasks), pods=pods)
    assert not outcome.succeeded
    assert outcome.reasons == {"train": "brainseg error: loss is not a number"}


def test_a_failed_run_without_access_to_pods_names_the_step(follow):
    outcome, _ = follow(Moment("FAILED", {"train": "FAILED", "ingest": "SUCCEEDED"}))
    assert outcome.reasons == {"train": "the reason is unknown: no access to pods (403 Forbidden)"}


def test_a_failed_pod_that_left_nothing_points_to_the_log(follow):
    outcome, _ = follow(Moment("FAILED", {"train": "FAILED"}), pods=KnownPods())
    assert outcome.reasons == {"train": "see its log"}


def test_a_cancelled_run_has_ended(follow):
    """kfp's own client waits for it for ever."""
    outcome, lines = follow(Moment("CANCELING"), Moment("CANCELED"))
    assert (outcome.state, lines) == ("CANCELED", ["canceling", "canceled"])


def test_a_pending_step_is_told_with_what_it_waits_for(follow):
    tasks = {"train": "RUNNING", "executor": "PENDING"}
    pods = KnownPods(waiting={"train": "a node with a free GPU: 0/3 nodes are available"})
    _, lines = follow(Moment("RUNNING", tasks), Moment("SUCCEEDED"), pods=pods)
    assert lines[0].endswith("train waits for a node with a free GPU: 0/3 nodes are available")


def test_a_pending_step_without_access_to_pods_is_told_as_unknown(follow):
    _, lines = follow(Moment("PENDING"), Moment("SUCCEEDED"))
    assert lines[0] == "pending; what it waits for is unknown: no access to pods (403 Forbidden)"


def test_a_short_absence_of_kubeflow_is_told_once_and_waited_for(server, follow):
    server.accidents.append(Accident("GET .*/runs/", "503", times=3))
    outcome, lines = follow(Moment("RUNNING"), Moment("SUCCEEDED"))
    assert outcome.succeeded
    assert [line[:9] for line in lines] == ["no answer", "running", "succeeded"]


def test_a_long_absence_ends_the_waiting_and_not_the_run(server, follow):
    server.accidents.append(Accident("GET .*/runs/", "503", times=999))
    with pytest.raises(KubeflowError, match="The run continues"):
        follow(Moment("RUNNING"), patience_s=0.1)


@pytest.mark.parametrize(("kind", "told"), [("401", "expired"), ("login", "log in")])
def test_an_expired_token_ends_the_waiting_at_once(server, follow, kind, told):
    server.accidents.append(Accident("GET .*/runs/", kind, times=999))
    with pytest.raises(KubeflowError, match=f"{told}.*The run continues"):
        follow(Moment("RUNNING"))
    assert len([one for one in server.sent("GET") if "/runs/" in one]) == 1


def test_a_slow_server_is_waited_for(server, follow):
    server.latency_s = 0.2
    threading.Timer(1.0, lambda: setattr(server, "latency_s", 0.0)).start()
    assert follow(Moment("RUNNING"), Moment("SUCCEEDED"))[0].succeeded
