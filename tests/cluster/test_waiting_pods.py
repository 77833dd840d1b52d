"""What `submit --wait` reports of pods, on a real cluster: its words, not ours."""

import os
import time
import uuid

import kubernetes
import pytest

from components.shared.cluster import login
from pipelines.kubeflow.pods import Pods

pytestmark = pytest.mark.cluster

STEPS = frozenset({"train", "ingest"})


@pytest.fixture(scope="module")
def core(request):
    if "cluster" not in request.config.getoption("-m"):
        pytest.skip("changes the cluster that KUBECONFIG names: run `make cluster-test`")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set")
    login()
    return kubernetes.client.CoreV1Api()


@pytest.fixture
def namespace(core):
    name = f"brainseg-test-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    core.delete_namespace(name, grace_period_seconds=0)


@pytest.fixture
def image(core):
    """Any image that the node has; one whose tag another has taken since has no name."""
    images = core.list_node().items[0].status.images
    return next(name for image in images for name in image.names or ())


@pytest.fixture
def start(core, namespace):
    """Makes the pod of a step, as Argo labels it, and asks until it reports the expected."""

    def run(expected, image, container=None, *, asked="waiting", timeout_s=90, **spec):
        main = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
        node = "brainseg-training-x.root.train.executor"
        body = {
            "metadata": {
                "generateName": "train-",
                "labels": {"pipeline/runid": namespace},
                "annotations": {"workflows.argoproj.io/node-name": node},
            },
            "spec": {"containers": [main | (container or {})], "restartPolicy": "Never", **spec},
        }
        _when_allowed(lambda: core.create_namespaced_pod(namespace, body))
        ask = getattr(Pods(namespace), asked)
        return _until(lambda: ask(namespace, STEPS).get("train"), expected, timeout_s)

    return run


def _when_allowed(create):
    """A new namespace has its default service account a moment later."""
    for _ in range(30):
        try:
            return create()
        except kubernetes.client.ApiException as error:
            if "serviceaccount" not in str(error.body):
                raise
            time.sleep(0.5)
    return create()


def _until(answer, expected, timeout_s):
    end, reason = time.monotonic() + timeout_s, None
    while time.monotonic() < end:
        reason = answer()
        if reason is not None and reason.startswith(expected):
            return reason
        time.sleep(0.5)
    raise AssertionError(f"within {timeout_s} s: {reason!r}, not {expected!r}")


def test_a_gpu_that_no_node_has(start, image):
    start("a node with a free GPU: 0/", image, {"resources": {"limits": {"nvidia.com/gpu": "1"}}})


def test_more_memory_than_any_node_has(start, image):
    large = {"resources": {"requests": {"memory": "999Ti"}}}
    start("a node with enough free memory: 0/", image, large)


def test_a_node_selector_that_fits_none(start, image):
    selector = {"gpu": "none"}
    start("a node that the profile's selector allows: 0/", image, nodeSelector=selector)


def test_a_gate_of_a_queue(start, image):
    gates = [{"name": "kueue.x-k8s.io/admission"}]
    start("its turn in the queue", image, schedulingGates=gates)


def test_an_image_that_cannot_be_pulled(start):
    start("the image 127.0.0.1:1/nothing:1: ", "127.0.0.1:1/nothing:1")


def test_a_secret_that_is_not_there(start, image):
    secret = {"secretKeyRef": {"name": "brainseg-store", "key": "x"}}
    environment = {"env": [{"name": "X", "valueFrom": secret}]}
    start('its configuration: secret "brainseg-store" not found', image, environment)


def test_a_volume_that_is_not_there(start, image):
    mounted = {"volumeMounts": [{"name": "ca", "mountPath": "/ca"}]}
    volumes = [{"name": "ca", "configMap": {"name": "brainseg-ca"}}]
    reason = start("its containers to be created: MountVolume.", image, mounted, volumes=volumes)
    assert 'configmap "brainseg-ca" not found' in reason


OURS = "localhost/brainseg-data-python:0.2.0"
FILL = """
import time
with open("/folder/file", "wb") as file:
    file.write(bytes(8 << 20))
time.sleep(300)
"""


@pytest.mark.parametrize("folder", ["tmp", "cache"])
def test_a_folder_that_is_full(start, folder):
    """The kubelet looks every minute or so, and ends the pod."""
    filling = {
        "command": ["/opt/brainseg/bin/python", "-c", FILL],
        "volumeMounts": [{"name": folder, "mountPath": "/folder"}],
    }
    volumes = [{"name": folder, "emptyDir": {"sizeLimit": "1Mi"}}]
    expected = f'Evicted: Usage of EmptyDir volume "{folder}" exceeds the limit "1Mi"'
    wanted = {"asked": "failures", "timeout_s": 180, "volumes": volumes}
    reason = start(expected, OURS, filling, **wanted, securityContext={"fsGroup": 1000})
    assert reason.endswith(f"; raise the step's scratch.{folder} in the pod profile")


def test_a_step_that_is_not_ready_in_time(start):
    sleeping = {"command": ["/opt/brainseg/bin/python", "-c", "import time; time.sleep(300)"]}
    reason = start("DeadlineExceeded: ", OURS, sleeping, asked="failures", activeDeadlineSeconds=5)
    assert reason.endswith("raise the step's timeout_s in the pod profile")


def test_a_pod_that_failed(start, image):
    reason = start("", image, {"command": ["/not-there"]}, asked="failures")
    assert "/not-there" in reason
