import pytest

from components.shared.pod_reasons import failed_by, waits_for

GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: No victims found."


def pod(phase="Pending", *, labels=None, **status):
    return {"metadata": {"name": "x", "labels": labels}, "status": {"phase": phase, **status}}


def unscheduled(message, reason="Unschedulable"):
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"conditions": [condition]}


def container(**state):
    return {"containerStatuses": [{"name": "main", "image": "r.example/x:1", "state": state}]}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (GPU, "a node with a free GPU: 0/3"),
        ("0/1 nodes: 1 Insufficient memory, 1 Insufficient cpu.", "enough free cpu and memory"),
        ("1 node(s) didn't match Pod's node affinity/selector.", "the profile's selector allows"),
        (
            "1 node(s) had untolerated taint {gpu: yes}.",
            "a node whose taints the profile tolerates",
        ),
        ("pod has unbound immediate PersistentVolumeClaims", "a volume: "),
        ("0/1 nodes are available: something new", "a node: 0/1"),
    ],
)
def test_an_unscheduled_pod_waits_for_a_node(message, told):
    assert told in waits_for(pod(**unscheduled(message)))


def test_a_gated_pod_waits_for_its_queue():
    gated = pod(labels={"kueue.x-k8s.io/queue-name": "gpus"}, **unscheduled("", "SchedulingGated"))
    assert waits_for(gated) == "its turn in the queue gpus"


def test_a_pod_without_its_image_waits_for_it():
    back_off = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    found = waits_for(pod(**container(waiting=back_off)))
    assert found == "the image r.example/x:1: Back-off pulling image"


def test_a_pod_without_its_secret_waits_for_its_configuration():
    missing = {
        "reason": "CreateContainerConfigError",
        "message": 'secret "brainseg-store" not found',
    }
    found = waits_for(pod(**container(waiting=missing)))
    assert found == 'its configuration: secret "brainseg-store" not found'


def test_a_container_that_cannot_be_created_is_waited_for():
    error = {"reason": "CreateContainerError", "message": "no such device"}
    assert waits_for(pod(**container(waiting=error))) == "its container: no such device"
    creating = {"reason": "ContainerCreating"}
    assert waits_for(pod(**container(waiting=creating))) is None


@pytest.mark.parametrize("phase", ["Running", "Succeeded"])
def test_a_pod_that_runs_neither_waits_nor_failed(phase):
    assert waits_for(pod(phase)) is None
    assert failed_by(pod(phase)) is None


EVICTION = 'Usage of EmptyDir volume "{}" exceeds the limit "1Mi".'
NO_MEMORY = "RuntimeError: unable to allocate shared memory(shm) for file </t>: No space left (28)"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            container(terminated={"exitCode": 1, "message": "brainseg error: no"}),
            "brainseg error: no",
        ),
        (container(terminated={"exitCode": 2}), "exit code 2"),
        (
            container(terminated={"exitCode": 137, "reason": "OOMKilled"}),
            "more memory than its limit (container main); raise the step's memory",
        ),
        ({"reason": "Evicted", "message": "disk pressure"}, "Evicted: disk pressure"),
        (
            {"reason": "Evicted", "message": EVICTION.format("shared-memory")},
            "raise the step's scratch.shared_memory in the pod profile",
        ),
        (
            {"reason": "Evicted", "message": EVICTION.format("var-run-argo")},
            EVICTION.format("var-run-argo").rstrip("."),
        ),
        (
            container(terminated={"exitCode": 1, "message": f"RuntimeError: x ... {NO_MEMORY}"}),
            f"{NO_MEMORY}; raise the step's scratch.shared_memory in the pod profile",
        ),
        ({"reason": "DeadlineExceeded", "message": "x"}, "raise the step's timeout_s"),
        ({}, "its pod failed"),
    ],
)
def test_a_failed_pod_is_told_with_its_own_words(status, told):
    assert told in failed_by(pod("Failed", **status))


def test_a_long_message_is_cut():
    assert len(waits_for(pod(**unscheduled(f"a{'b' * 999}")))) < 320
