import pytest

from components.shared.errors import OutageError, UserError
from components.train.group.pod_status import (
    group_error,
    has_ended,
    pod_failures,
    running,
    waiting_for,
)


def pod(number, phase, state=None, conditions=(), reason=None):
    status = {"phase": phase, "conditions": list(conditions)}
    if state:
        status["containerStatuses"] = [{"name": "node", "image": "r/x", "state": state}]
    if reason:
        status["reason"] = reason
    labels = {"batch.kubernetes.io/job-completion-index": str(number)}
    return {"metadata": {"name": f"a-{number}", "labels": labels}, "status": status}


def ended(number, status, message="", reason="Error"):
    state = {"terminated": {"exitCode": status, "reason": reason, "message": message}}
    return pod(number, "Failed", state)


def job(kind, reason="", message=""):
    condition = {"type": kind, "status": "True", "reason": reason, "message": message}
    return {"status": {"conditions": [condition]}}


NO_NODE = {
    "type": "PodScheduled",
    "status": "False",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
}


def test_what_pods_wait_for_is_what_kubernetes_says():
    assert waiting_for([pod(0, "Running"), pod(1, "Pending", conditions=[NO_NODE])]) == (
        "pod 1 waits for a node with a free GPU: "
        "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    )
    image = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image r/x"}}
    assert waiting_for([pod(0, "Pending", image)]) == (
        "pod 0 waits for the image r/x: Back-off pulling image r/x"
    )
    starting = {"waiting": {"reason": "ContainerCreating"}}
    assert waiting_for([pod(0, "Pending", starting), pod(1, "Running")]) == ""


def test_pods_that_are_done_have_what_they_need():
    assert (
        running([pod(0, "Running"), pod(1, "Succeeded"), pod(1, "Failed"), pod(2, "Pending")]) == 2
    )


def test_a_suspended_job_has_not_ended():
    assert not has_ended({})
    assert not has_ended(job("Suspended"))
    assert has_ended(job("Complete"))
    assert has_ended(job("Failed"))


def test_the_end_of_a_pod_in_one_line():
    killed = ended(1, 137, reason="OOMKilled")
    assert [str(end) for end in pod_failures([pod(0, "Running"), killed])] == [
        "pod 1 ended with 137 (OOMKilled)"
    ]
    evicted = pod(
        0, "Failed", {"terminated": {"exitCode": 143, "message": "a\n b"}}, reason="Evicted"
    )
    assert [str(end) for end in pod_failures([evicted])] == ["pod 0 ended with 143 (Evicted): a b"]


def test_a_mistake_is_told_in_its_own_words():
    pods = [ended(0, 143), ended(1, 78, "brainseg error: encoder 'x' is not known")]
    error = group_error(job("Failed", "PodFailurePolicy", "rule 0"), pods)
    assert type(error) is UserError
    assert str(error) == "encoder 'x' is not known"


def test_an_outage_is_told_as_one():
    pods = [ended(0, 75, "brainseg outage: MLflow is away"), ended(1, 76)]
    error = group_error(job("Failed", "BackoffLimitExceeded", "the limit is reached"), pods)
    assert isinstance(error, OutageError)
    assert str(error) == "MLflow is away"


def test_another_failure_tells_the_job_and_its_last_pods():
    pods = [ended(number, 137, reason="OOMKilled") for number in range(5)]
    error = group_error(job("Failed", "BackoffLimitExceeded", "the limit is reached"), pods)
    assert not isinstance(error, UserError)
    assert "BackoffLimitExceeded: the limit is reached" in str(error)
    assert str(error).count("OOMKilled") == 3


@pytest.mark.parametrize("pods", [[], [pod(0, "Succeeded", {"terminated": {"exitCode": 0}})]])
def test_a_group_without_a_result_has_failed(pods):
    assert "no result" in str(group_error(job("Complete"), pods))
