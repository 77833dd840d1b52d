"""`brainseg doctor --cluster` on a real cluster: what is right, and what was broken on purpose."""

import json
import os
import signal
import subprocess
import sys
import uuid

import kubernetes
import pytest
import yaml

from pipelines.doctor.cluster.checks import run_cluster_checks
from pipelines.doctor.cluster.target import Target
from pipelines.placement.images import Images
from pipelines.placement.profiles import load_profile
from tests.cluster.conftest import MANIFESTS, OVERLAY, Kubectl
from tests.cluster.test_manifests import moved
from tests.kfp_api.backend import Backend
from tests.kfp_api.server import serve
from tests.pipelines.doctor.cluster.api_server import everything
from tests.test_layout import PROJECT
from tests.waiting import until

pytestmark = pytest.mark.cluster

STORE = "s3://brainseg/doctor"
PROBES = ("pods", "--selector=app.kubernetes.io/name=brainseg-doctor")
# What runs need in their namespace; MLflow is asked where the overlay has put it
OF_RUNS = {"ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Secret", "ResourceQuota"}
OF_RUNS |= {"LimitRange"}


@pytest.fixture(scope="module")
def kubectl_there(deployed):
    """A fresh namespace with what the overlay has for runs, and KFP's own objects to be read."""
    name = f"brainseg-{uuid.uuid4().hex[:8]}"
    namespace = yaml.safe_load((MANIFESTS / "base" / "namespace.yaml").read_text())
    namespace["metadata"]["name"] = name
    namespace["metadata"]["labels"]["brainseg/mlflow-client"] = "true"
    there = Kubectl(name)
    there("apply", "-f", "-", text=json.dumps(namespace))
    apply(there, *of_overlay(name), *of_kubeflow(name))
    yield there
    there("delete", "namespace", name, "--wait=false")


@pytest.fixture
def there(kubectl_there):
    """The same; it is whole again after the test, and no pod of the doctor is in it."""
    yield kubectl_there
    assert not kubectl_there.get(*PROBES)["items"], "pods are left behind"
    apply(kubectl_there, *of_overlay(kubectl_there.namespace))


@pytest.fixture(scope="module")
def kubeflow():
    with serve(Backend()) as served:
        yield served


@pytest.fixture
def looked(there, kubeflow, monkeypatch):
    """What the doctor finds, by name, for a target with changes."""
    set_kubeconfig(monkeypatch, os.environ["KUBECONFIG"])

    def look(profile="test", store=STORE, registry="localhost"):
        target = Target(
            load_profile(str(profile)),
            Images(registry=registry),
            store=store,
            namespace=there.namespace,
            endpoint=kubeflow.url,
        )
        return {check.name: check for check in run_cluster_checks(target)}

    return look


def set_kubeconfig(monkeypatch, path):
    monkeypatch.setenv("KUBECONFIG", path)
    location = "KUBE_CONFIG_DEFAULT_LOCATION"  # read when it is imported
    monkeypatch.setattr(kubernetes.config.kube_config, location, path)


def test_all_is_well_with_the_overlay(looked):
    found = looked()
    assert not [check for check in found.values() if check.status != "ok"]
    assert {"pod, data", "store, data", "pod, trainer", "store, trainer", "MLflow, trainer"} <= set(
        found
    )


def test_a_secret_that_is_missing(there, looked):
    there("delete", "secret", "brainseg-store")
    found = looked()
    assert found["store, data"].status == found["store, trainer"].status == "error"
    assert "AWS_ACCESS_KEY_ID" in found["store, data"].found
    assert found["MLflow, trainer"].status == "ok"


def test_a_key_that_is_missing(there, looked):
    remove = [{"op": "remove", "path": "/data/MLFLOW_TRACKING_URI"}]
    there("patch", "configmap", "brainseg-settings", "--type=json", "-p", json.dumps(remove))
    found = looked()
    assert found["pod, data"].status == "error"
    assert "couldn't find key MLFLOW_TRACKING_URI" in found["pod, data"].found


def test_a_wrong_password(there, looked):
    change = {"stringData": {"password": "not-the-password"}}
    there("patch", "secret", "brainseg-mlflow", "-p", json.dumps(change))
    found = looked()
    assert found["MLflow, trainer"].status == "error"
    assert "MLFLOW_TRACKING_USERNAME" in found["MLflow, trainer"].found
    assert "not-the-password" not in str(found)


def test_a_bucket_that_is_missing(looked):
    found = looked(store="s3://no-such-bucket/x")
    assert found["store, data"].status == "error"
    assert "no-such-bucket" in found["store, data"].found


def test_a_right_that_is_missing(there, looked):
    role = there.get("role", "brainseg-run")
    rules = [each for each in role["rules"] if "workflowtaskresults" not in each["resources"]]
    there("patch", "role", "brainseg-run", "--type=merge", "-p", json.dumps({"rules": rules}))
    found = looked()
    assert found["run's rights"].status == "error"
    assert found["run's rights"].found == (
        "brainseg-run may not create, patch workflowtaskresults.argoproj.io "
        "(Argo reports how steps ended)"
    )


def test_an_image_that_cannot_be_pulled(looked):
    found = looked(registry="registry.invalid/team")
    for kind in ("data", "trainer"):
        check = found[f"pod, {kind}"]
        assert check.status == "error"
        assert f"the image registry.invalid/team/brainseg-{kind}-python" in check.found
        assert "--registry" in check.advice


def test_a_gpu_profile_without_gpus(looked, tmp_path):
    profile = tmp_path / "gpu.yaml"
    profile.write_text("extends: test\ntrain: {gpu: {count: 1}}\n")
    found = looked(profile)
    assert found["nodes"].found == "train: no node has nvidia.com/gpu 1"
    assert found["quota"].status == "error"
    assert "requests.nvidia.com/gpu 1, not 0" in found["quota"].found


def test_a_quota_that_is_used_up(there, looked):
    hard = {"spec": {"hard": {"pods": "0"}}}
    there("patch", "resourcequota", "brainseg", "--type=merge", "-p", json.dumps(hard))
    until(lambda: quota_of(there)["pods"] == "0", "quota")
    found = looked()
    assert found["quota"].status == "error"
    assert found["pod, data"].status == "error"
    assert "exceeded quota: brainseg" in found["pod, data"].found


def test_a_pod_security_level_that_is_none(there, looked):
    there("label", "namespace", there.namespace, "pod-security.kubernetes.io/enforce-")
    found = looked()
    there("label", "namespace", there.namespace, "pod-security.kubernetes.io/enforce=restricted")
    assert found["namespace"].status == "warning"
    assert found["pod, data"].status == "ok"


def test_a_caller_who_may_hardly_anything(there, looked, tmp_path, monkeypatch):
    config = there.get("serviceaccounts", "brainseg-run")  # as a run that looks at itself
    token = there("create", "token", config["metadata"]["name"]).strip()
    content = yaml.safe_load(there("config", "view", "--raw", "--minify"))
    content["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    set_kubeconfig(monkeypatch, str(path))
    found = looked()
    assert "as system:serviceaccount:" in found["Kubernetes"].found
    assert "create, delete pods (" in found["your rights"].found
    unknown = {name for name, check in found.items() if check.status == "unknown"}
    assert unknown >= {
        *("namespace", "your rights", "run's rights", "settings", "quota", "nodes"),
        *("pod, data", "pod, trainer"),
    }
    assert not {name for name, check in found.items() if check.status == "error"}


def test_an_interrupted_doctor_leaves_no_pods(there):
    command = [
        *(sys.executable, "-c", "from pipelines.cli import main; main()", "doctor", "--cluster"),
        *("--namespace", there.namespace, "--profile", "test", "--registry", "localhost"),
        *("--store", STORE),
    ]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.DEVNULL)
    until(lambda: len(there.get(*PROBES)["items"]) == 2, "pods", timeout_s=60)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert not there.get(*PROBES)["items"]


def apply(there, *objects):
    text = json.dumps({"kind": "List", "apiVersion": "v1", "items": list(objects)})
    there("apply", "-f", "-", text=text)


def of_overlay(namespace):
    documents = yaml.safe_load_all(Kubectl(namespace)("kustomize", str(OVERLAY)))
    for each in documents:
        if each["kind"] in OF_RUNS:
            if each["metadata"]["name"] == "brainseg-settings":
                each["data"]["MLFLOW_TRACKING_URI"] = "http://mlflow.brainseg:5000"
            yield moved(each, namespace)


def of_kubeflow(namespace):
    """KFP's Deployments, without pods, and ConfigMaps: only what they say is read."""
    for path, made in everything().items():
        if "kubeflow" not in path or path.split("/")[-2] not in ("deployments", "configmaps"):
            continue
        name = path.rpartition("/")[2]
        about = {"metadata": {"name": name, "namespace": namespace, "labels": {"app": name}}}
        if "data" in made:
            yield {"apiVersion": "v1", "kind": "ConfigMap", **about, "data": made["data"]}
        else:
            template = {"metadata": {"labels": {"app": name}}, **made["spec"]["template"]}
            selector = {"matchLabels": {"app": name}}
            spec = {"replicas": 0, "selector": selector, "template": template}
            yield {"apiVersion": "apps/v1", "kind": "Deployment", **about, "spec": spec}
    data = {"accesskey": "x", "secretkey": "x"}
    about = {"metadata": {"name": "mlpipeline-minio-artifact", "namespace": namespace}}
    yield {"apiVersion": "v1", "kind": "Secret", **about, "stringData": data}


def quota_of(there):
    return there.get("resourcequota", "brainseg")["status"]["hard"]
