"""The real cluster of these tests: the one that KUBECONFIG names, with the overlay `test`."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from components.shared.storage.store import open_store
from pipelines.catalogue import PIPELINES
from pipelines.placement.compilation import compile_all
from pipelines.placement.images import Images
from pipelines.placement.profiles import load_profile
from pipelines.settings.presets import load_preset, pipeline_arguments, settings_of
from tests.cluster.backend import Backend, job_name
from tests.waiting import until

NAMESPACE = "brainseg"
MANIFESTS = Path(__file__).parents[2] / "manifests"
OVERLAY = MANIFESTS / "overlays" / "test"

# The local volume of the overlay; the tests run on the cluster's only node
DATABASE_FOLDER = Path("/var/local/brainseg-test/postgres")

BUCKET = "s3://brainseg"
_S3_IN_PODS = "http://s3.test:7070"
_TINY = (
    "train.schedule.epochs=4",
    "train.schedule.validate_every_epochs=2",
    "train.compute.threads=1",
    "register.min_patient_dice=0",
)

_MAKE_BUCKET = """
import boto3
s3 = boto3.client("s3")
if "brainseg" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
    s3.create_bucket(Bucket="brainseg")
"""
# What MLflow keeps of a pipeline run, without what differs from run to run
TREE = """
import json, mlflow, sys
client = mlflow.MlflowClient()
experiments = [each.experiment_id for each in client.search_experiments()]
runs = client.search_runs(experiments, f"tags.kfp_run_id = '{sys.argv[1]}'")
versions = client.search_model_versions("name = 'brainseg'")
print(json.dumps(sorted(
    [
        run.info.status,
        "mlflow.parentRunId" in run.data.tags,
        [version.run_id for version in versions].count(run.info.run_id),
        sorted(item for item in run.data.params.items() if item[0] != "unique_id"),
    ]
    for run in runs
)))
"""


class Kubectl:
    """Runs kubectl in one namespace."""

    def __init__(self, namespace):
        self.namespace = namespace

    def __call__(self, *arguments, text=None, check=True, timeout_s=300):
        """Returns what kubectl prints; with `check=False` also what it complains of.

        Raises:
            AssertionError: If kubectl fails, with its words.
        """
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if not check:
            return done.stdout + done.stderr
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}{done.stdout}"
        return done.stdout

    def get(self, *arguments):
        """An object, or a list of them, as Python's own types."""
        return json.loads(self("get", *arguments, "--output=json"))

    def apply_overlay(self):
        """Applies the overlay and returns once PostgreSQL and MLflow answer their probes."""
        DATABASE_FOLDER.mkdir(parents=True, exist_ok=True)
        self("apply", "--kustomize", str(OVERLAY))
        self.wait_for_rollouts()

    def wait_for_rollouts(self):
        """Returns once PostgreSQL and MLflow answer their probes."""
        for workload in ("statefulset/postgres", "deployment/mlflow"):
            self("rollout", "status", workload, "--timeout=240s")


def read(uri):
    """Content of an object in the bucket."""
    return open_store(BUCKET).read(uri.removeprefix(f"{BUCKET}/"))


def is_there(uri):
    """Whether the bucket has something at or below a URI."""
    return bool(list(open_store(BUCKET).keys(uri.removeprefix(f"{BUCKET}/"))))


def arguments(store, *changes, patients=12):
    """Of a small training pipeline run that takes minutes on two cores."""
    steps = settings_of(PIPELINES["training"])
    settings = pipeline_arguments(load_preset("demo", [*_TINY, *changes], steps))
    source = f"synthetic:{patients}"
    return {"source": source, "store": store, "run_name": "cluster-test", **settings}


def inner_keys(store):
    """What a store keeps of a finished run, whose own folder has another name in each run."""
    return [key for key in open_store(store).keys("") if not key.startswith("runs/")]


def wait_within(kubectl, run_id, name, has_come):
    """Returns at a moment in the midst of a step's pod: the selector of the pod.

    Raises:
        AssertionError: If the step is over by then.
    """
    selector = f"job-name={job_name(run_id, name)}"

    def phases():
        return {pod["status"]["phase"] for pod in kubectl.get("pods", "-l", selector)["items"]}

    until(lambda: phases() - {"Pending"}, f"pod of {name}", 900, 0.2)
    until(has_come, f"moment in {name}", 600, 0.2)
    assert phases() == {"Running"}, f"{name} was over before its moment"
    return selector


@pytest.fixture(scope="session")
def kubectl(request):
    """kubectl in the namespace `brainseg`; skips where no cluster was asked for or answers.

    These tests delete what they find in the namespace, so it must be the overlay `test`'s.
    """
    if "cluster" not in request.config.getoption("-m"):
        pytest.skip("changes the cluster that KUBECONFIG names: run `make cluster-test`")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set")
    kubectl = Kubectl(NAMESPACE)
    answer = kubectl("get", "--raw=/readyz", "--request-timeout=10s", check=False)
    if answer != "ok":
        pytest.skip(f"no cluster: {answer.strip()}")
    labels = {
        each["metadata"]["name"]: each["metadata"]["labels"]
        for each in kubectl.get("namespaces")["items"]
    }
    if NAMESPACE in labels and labels[NAMESPACE].get("brainseg/overlay") != "test":
        pytest.fail(f"namespace {NAMESPACE} is not the overlay test's; use another cluster")
    return kubectl


@pytest.fixture(scope="session")
def deployed(kubectl):
    """The same kubectl once the overlay `test` is applied and answers, and its bucket is there."""
    kubectl.apply_overlay()
    kubectl("delete", "jobs", "-l", "pipeline/runid")  # those of runs before count for the quota
    kubectl("exec", "deployment/mlflow", "--", "python", "-c", _MAKE_BUCKET)
    return kubectl


@pytest.fixture(scope="session")
def backend(deployed):
    return Backend(deployed, root=f"{BUCKET}/kfp", read=read, endpoint=_S3_IN_PODS)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """The folder of the compiled pipelines, for images that were built on the node."""
    folder = tmp_path_factory.mktemp("compiled")
    compile_all(folder, profile=load_profile("test"), images=Images(registry="localhost"))
    return folder


@pytest.fixture(scope="session")
def training(compiled):
    return compiled / "training.yaml"


@pytest.fixture(scope="session")
def retraining(compiled):
    return compiled / "retraining.yaml"


@pytest.fixture(scope="session")
def step(deployed):
    """Runs Python in a pod that has what steps have to reach MLflow; returns what it prints."""
    deployed("apply", "-f", "-", text=json.dumps(pod("client")))
    deployed("wait", "pod/client", "--for=condition=Ready", "--timeout=120s")
    yield lambda script, *words: deployed("exec", "client", "--", "python", "-c", script, *words)
    deployed("delete", "pod", "client", "--grace-period=1")


def pod(name):
    """A pod of a step's kind that sleeps; it names no resources."""
    environment = [
        ("MLFLOW_TRACKING_URI", "configMapKeyRef", "brainseg-settings", "MLFLOW_TRACKING_URI"),
        ("MLFLOW_TRACKING_USERNAME", "secretKeyRef", "brainseg-mlflow", "username"),
        ("MLFLOW_TRACKING_PASSWORD", "secretKeyRef", "brainseg-mlflow", "password"),
    ]
    container = {
        "name": "main",
        "image": "localhost/brainseg-mlflow:0.2.0",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import time; time.sleep(3600)"],
        "env": [
            {"name": variable, "valueFrom": {kind: {"name": source, "key": key}}}
            for variable, kind, source, key in environment
        ],
        "resources": {},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {}}],
        },
    }
