import base64
import gzip
import json
import threading

import kubernetes
import pytest
import yaml
from flask import Flask, Response, request
from werkzeug.serving import make_server

from pipelines.kubeflow.pods import Pods, UnknownPodsError

STEPS = frozenset({"ingest", "train"})
RUN = "7f0c"
GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: No victims found."


class Cluster:
    """Kubernetes' HTTP API with what a test puts into it; tests/cluster asks a real one."""

    def __init__(self):
        self.pods, self.events, self.workflows = [], [], []
        self.status, self.asked, self.log = 200, [], None

    def serve(self):
        app = Flask("kubernetes")
        kinds = {"pods": self.pods, "events": self.events, "workflows": self.workflows}

        @app.get("/<path:path>")
        def get(path):
            self.asked.append(request.full_path)
            if self.status != 200:
                return Response("{}", self.status, content_type="application/json")
            if path.endswith("/log"):
                found = self.log is not None
                return Response(self.log or "{}", 200 if found else 403, mimetype="text/plain")
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


def test_a_pod_on_its_node_is_told_with_the_last_complaint_about_it(cluster):
    cluster.events[:] = [
        {"metadata": {}, "involvedObject": {}, "message": "first"},
        {"metadata": {}, "involvedObject": {}, "message": "MountVolume.SetUp failed: no ca.crt"},
    ]
    found = waiting(cluster, pod(node="n1", **container(waiting={"reason": "ContainerCreating"})))
    assert found == {"train": "its containers to be created: MountVolume.SetUp failed: no ca.crt"}
    assert "involvedObject.name%3Dpod-of-train" in cluster.asked[-1]


@pytest.mark.parametrize("is_large", [False, True])
def test_a_pod_that_a_quota_refuses_is_told_by_argo(cluster, is_large):
    node = {
        "name": "brainseg-training-x.root.train.executor",
        "displayName": "executor",
        "type": "Pod",
        "phase": "Pending",
        "message": 'pods "x" is forbidden: exceeded quota: brainseg, requested: cpu=4',
    }
    nodes = {"x-1": node}
    packed = base64.b64encode(gzip.compress(json.dumps(nodes).encode())).decode()
    status = {"compressedNodes": packed} if is_large else {"nodes": nodes}
    cluster.workflows[:] = [{"status": status}]
    assert waiting(cluster)["train"].startswith("the namespace's quota: pods")


def test_a_driver_is_told_as_its_step(cluster):
    driver = pod("ingest-driver", **unscheduled(GPU))
    driver["metadata"]["annotations"]["workflows.argoproj.io/node-name"] = "x.root.ingest-driver"
    assert list(waiting(cluster, driver)) == ["ingest"]


def test_a_pod_of_no_known_step_is_told_by_its_name(cluster):
    assert list(waiting(cluster, pod("", **unscheduled(GPU)))) == ["pod-of-"]


def test_a_running_pod_waits_for_nothing(cluster):
    assert waiting(cluster, pod(phase="Running", node="n1")) == {}


def test_a_failed_pod_is_told_as_its_step(cluster):
    failed = container(terminated={"exitCode": 1, "message": "brainseg error: no"})
    cluster.pods[:] = [pod(phase="Failed", **failed)]
    assert Pods("mri").failures(RUN, STEPS) == {"train": "brainseg error: no"}


def test_a_run_without_pods_may_be_elsewhere(cluster):
    with pytest.raises(UnknownPodsError, match="no pod of the run is in the namespace mri yet"):
        waiting(cluster)


def test_only_the_runs_own_pods_are_asked_for(cluster):
    waiting(cluster, pod(phase="Running", node="n1"))
    asked = [path for path in cluster.asked if "/pods" in path]
    assert "labelSelector=pipeline%2Frunid%3D7f0c" in asked[0]
    assert "/namespaces/mri/pods" in asked[0]


@pytest.mark.parametrize("status", [401, 403])
def test_without_rights_the_reason_is_unknown(cluster, status):
    cluster.status = status
    with pytest.raises(UnknownPodsError, match=rf"no access to pods \({status}"):
        Pods("mri").waiting(RUN, STEPS)


def test_without_a_kubeconfig_there_is_no_access():
    with pytest.raises(UnknownPodsError, match="no kubeconfig"):
        Pods("mri").failures(RUN, STEPS)


def test_a_broken_kubeconfig_is_none(tmp_path, monkeypatch):
    path = tmp_path / "broken"
    path.write_text("{")
    monkeypatch.setattr(kubernetes.config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    with pytest.raises(UnknownPodsError, match="no kubeconfig"):
        Pods("mri").failures(RUN, STEPS)


def failed_alone(cluster, **terminated):
    end = {"exitCode": 1, **terminated}
    status = {"name": "main", "image": "x", "state": {"terminated": end}}
    cluster.pods.append(pod(phase="Failed", containerStatuses=[status]))
    return Pods("mri").failures(RUN, STEPS)["train"]


def test_the_log_of_a_pod_without_a_message_is_shown_with_its_usual_cause(cluster):
    cluster.log = (
        "train: done\nF1130 18:20:33.123456      28 main.go:60] failed to execute component: "
        "failed to upload output artifact: operation error S3: PutObject, https response error "
        "StatusCode: 404, api error NoSuchBucket: The specified bucket does not exist\n"
    )
    told = failed_alone(cluster)
    assert told.startswith("exit code 1; its log ends with: failed to execute component: ")
    assert "Usually KFP's artifact bucket is gone: create it" in told
    assert any("/pods/pod-of-train/log?container=main" in path for path in cluster.asked)


def test_a_message_of_our_own_needs_no_log(cluster):
    assert failed_alone(cluster, message="brainseg error: no such bucket") == (
        "brainseg error: no such bucket"
    )
    assert not any("/log" in path for path in cluster.asked)


def test_a_log_that_may_not_be_read_is_told(cluster):
    assert failed_alone(cluster) == "exit code 1; its log cannot be read (403 FORBIDDEN)"
