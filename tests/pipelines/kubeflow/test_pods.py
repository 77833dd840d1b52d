import threading

import kubernetes
import pytest
import yaml
from flask import Flask, Response, request
from werkzeug.serving import make_server

from pipelines.kubeflow.pods import NoClusterError, Pods, UnknownPodsError, find_cluster

STEPS = frozenset({"ingest", "train"})
RUN = "7f0c"
GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: No victims found."


class Cluster:
    """Kubernetes' HTTP API with what a test puts into it; tests/cluster asks a real one."""

    def __init__(self):
        self.pods, self.events, self.workflows = [], [], []
        self.status, self.asked = 200, []

    def serve(self):
        app = Flask("kubernetes")
        kinds = {"pods": self.pods, "events": self.events, "workflows": self.workflows}

        @app.get("/<path:path>")
        def get(path):
            self.asked.append(request.full_path)
            if self.status != 200:
                return Response("{}", self.status, content_type="application/json")
            return {"items": kinds[path.rpartition("/")[2]]}

        return make_server("127.0.0.1", 0, app, threaded=True)


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    held = Cluster()
    listening = held.serve()
    thread = threading.Thread(target=listening.serve_forever, args=[0.02], daemon=True)
    thread.start()
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [
            {"name": "here", "cluster": {"server": f"http://127.0.0.1:{listening.server_port}"}}
        ],
        "users": [{"name": "me", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    yield held
    listening.shutdown()
    listening.server_close()
    thread.join()


def pod(step="train", phase="Pending", *, node=None, labels=None, **status):
    part = f"brainseg-training-x.root.{step}.executor(0)" if step else "nobody's"
    return {
        "metadata": {
            "name": f"pod-of-{step}",
            "labels": {"pipeline/runid": RUN} | (labels or {}),
            "annotations": {"workflows.argoproj.io/node-name": part},
        },
        "spec": {"containers": [{"name": "main"}], "nodeName": node},
        "status": {"phase": phase, **status},
    }


def unscheduled(message, reason="Unschedulable"):
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return {"conditions": [condition]}


def container(**state):
    names = {"name": "main", "image": "r.example/x:1", "imageID": "", "ready": False}
    return {"containerStatuses": [{**names, "restartCount": 0, "state": state}]}


def waiting(cluster, *pods):
    cluster.pods[:] = pods
    return Pods("mri").waiting(RUN, STEPS)


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
def test_an_unscheduled_pod_waits_for_a_node(cluster, message, told):
    assert told in waiting(cluster, pod(**unscheduled(message)))["train"]


def test_a_gated_pod_waits_for_its_queue(cluster):
    gated = pod(labels={"kueue.x-k8s.io/queue-name": "gpus"}, **unscheduled("", "SchedulingGated"))
    assert waiting(cluster, gated) == {"train": "its turn in the queue gpus"}


def test_a_pod_without_its_image_waits_for_it(cluster):
    back_off = {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}
    found = waiting(cluster, pod(node="n1", **container(waiting=back_off)))
    assert found == {"train": "the image r.example/x:1: Back-off pulling image"}


def test_a_pod_without_its_secret_waits_for_its_configuration(cluster):
    missing = {
        "reason": "CreateContainerConfigError",
        "message": 'secret "brainseg-store" not found',
    }
    found = waiting(cluster, pod(node="n1", **container(waiting=missing)))
    assert found == {"train": 'its configuration: secret "brainseg-store" not found'}


def test_a_pod_on_its_node_is_told_with_the_last_complaint_about_it(cluster):
    cluster.events[:] = [
        {"metadata": {}, "involvedObject": {}, "message": "first"},
        {"metadata": {}, "involvedObject": {}, "message": "MountVolume.SetUp failed: no ca.crt"},
    ]
    found = waiting(cluster, pod(node="n1", **container(waiting={"reason": "ContainerCreating"})))
    assert found == {"train": "its containers to be made: MountVolume.SetUp failed: no ca.crt"}
    assert "involvedObject.name%3Dpod-of-train" in cluster.asked[-1]


def test_a_pod_that_a_quota_refuses_is_told_by_argo(cluster):
    node = {
        "name": "brainseg-training-x.root.train.executor",
        "displayName": "executor",
        "type": "Pod",
        "phase": "Pending",
        "message": 'pods "x" is forbidden: exceeded quota: brainseg, requested: cpu=4',
    }
    cluster.workflows[:] = [{"status": {"nodes": {"x-1": node}}}]
    assert waiting(cluster)["train"].startswith("the namespace's quota: pods")


def test_a_driver_is_told_as_its_step(cluster):
    driver = pod("ingest-driver", **unscheduled(GPU))
    driver["metadata"]["annotations"]["workflows.argoproj.io/node-name"] = "x.root.ingest-driver"
    assert list(waiting(cluster, driver)) == ["ingest"]


def test_a_pod_of_no_known_step_is_told_by_its_name(cluster):
    assert list(waiting(cluster, pod("", **unscheduled(GPU)))) == ["pod-of-"]


def test_a_running_pod_waits_for_nothing(cluster):
    assert waiting(cluster, pod(phase="Running", node="n1")) == {}


def test_a_run_without_pods_may_be_elsewhere(cluster):
    with pytest.raises(UnknownPodsError, match="no pod of the run is in the namespace mri yet"):
        waiting(cluster)


def test_only_the_runs_own_pods_are_asked_for(cluster):
    waiting(cluster, pod(phase="Running", node="n1"))
    asked = [path for path in cluster.asked if "/pods" in path]
    assert "labelSelector=pipeline%2Frunid%3D7f0c" in asked[0]
    assert "/namespaces/mri/pods" in asked[0]


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
def test_a_failed_pod_is_told_with_its_own_words(cluster, status, told):
    cluster.pods[:] = [pod(phase="Failed", **status)]
    assert told in Pods("mri").failures(RUN, STEPS)["train"]


def test_a_long_message_is_cut(cluster):
    found = waiting(cluster, pod(**unscheduled(f"a{'b' * 999}")))
    assert len(found["train"]) < 320


@pytest.mark.parametrize("status", [401, 403])
def test_without_rights_the_reason_is_unknown(cluster, status):
    cluster.status = status
    with pytest.raises(UnknownPodsError, match=rf"no access to pods \({status}"):
        Pods("mri").waiting(RUN, STEPS)


def test_without_a_kubeconfig_there_is_no_cluster():
    with pytest.raises(NoClusterError, match="no kubeconfig"):
        find_cluster()


def test_a_broken_kubeconfig_is_none(tmp_path, monkeypatch):
    path = tmp_path / "broken"
    path.write_text("{")
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(NoClusterError):
        find_cluster()
