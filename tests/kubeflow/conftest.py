"""A real Kubeflow Pipelines: the one at KF_PIPELINES_ENDPOINT, with pods in KUBECONFIG's cluster.

`make kubeflow-test SUBMIT='...'` runs these tests with the options that the user gives to
`brainseg submit`. They start runs on synthetic volumes in a fresh folder of the store. Nothing is
read from the store or MLflow here: a pod with a step's settings does so.
"""

import argparse
import json
import os
import shlex
import subprocess
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from components.shared.cluster import Cluster, KubernetesError
from components.shared.cluster import connect as connect_cluster
from components.shared.step import TRAINER_IMAGE
from pipelines.kubeflow.client import Kubeflow, KubeflowError, connect
from pipelines.kubeflow.pods import nodes_of, step_of
from pipelines.placement.images import read_images
from pipelines.placement.pod import pod_fragment
from pipelines.placement.profiles import load_profile
from tests.waiting import until

PRESET = Path(__file__).with_name("preset.yaml")
PATIENTS = 8
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
STEPS = ("ingest", "profile", "split", "train", "evaluate", "register")

_RUNS = """
import json, mlflow
client = mlflow.MlflowClient()
experiments = [each.experiment_id for each in client.search_experiments()]
found = client.search_runs(experiments, f"tags.kfp_run_id = '{sys.argv[1]}'")
print(json.dumps([
    {
        "id": run.info.run_id,
        "status": run.info.status,
        "tags": run.data.tags,
        "metrics": run.data.metrics,
    }
    for run in found
]))
"""
_AS_A_STEP = """
import sys
from components.shared.process import step_process
with step_process("check"):
    exec(sys.argv.pop(1))
"""


@dataclass(frozen=True)
class Run:
    """A run that was submitted."""

    id: str
    name: str


@dataclass(frozen=True)
class Installation:
    """Kubeflow Pipelines with the pods of its runs.

    Attributes:
        options: Options of `brainseg submit` that belong to the installation.
        store: Store of these tests.
        kubeflow: Connection to KFP's API.
        cluster: Connection to the pods' namespace.
        started: Runs that these tests have started.
    """

    options: list[str]
    store: str
    kubeflow: Kubeflow
    cluster: Cluster
    started: list = field(default_factory=list)

    def submit(self, *words, source=f"synthetic:{PATIENTS}"):
        """Starts a small run by `brainseg submit` and returns it."""
        done = self.brainseg("submit", "--json", "--source", source, *words)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        self.started.append(run := Run(answer["run_id"], answer["name"]))
        return run

    def brainseg(self, command, *words):
        """Runs `brainseg submit` or `schedule create` on the small preset."""
        options = ["--preset", str(PRESET), "--store", self.store, *self.options]
        line = ["brainseg", *command.split(), *options, *words]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    def plain(self, command, *words):
        """Runs a command of `brainseg` without the options of runs; it must succeed."""
        line = ["brainseg", *command.split(), *words, *self.place]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    @property
    def place(self):
        return ["--namespace", self.kubeflow.namespace] if self.kubeflow.namespace else []

    def find(self, run):
        """The run as KFP's API describes it, once it answers."""

        def ask():
            try:
                return self.kubeflow.ask(self.kubeflow.api.runs.run_service_get_run, run.id)
            except KubeflowError as error:
                if not error.may_pass:
                    raise
                return None

        return until(ask, f"answer of Kubeflow about {run.name}", 300, 5)

    def state(self, run):
        """State of a run, as KFP's page of runs shows it."""
        return self.find(run).state

    def steps(self, run):
        """Phases of a run's tasks by name, from Argo; KFP's own list may lack the last ones."""
        place = f"/apis/argoproj.io/v1alpha1/namespaces/{self.cluster.namespace}/workflows"
        (workflow,) = self.cluster.get(place, labelSelector=f"pipeline/runid={run.id}")["items"]
        return {node["displayName"]: node["phase"] for node in nodes_of(workflow)}

    def wait(self, run, timeout_s=1800):
        """Waits for the end of a run; returns its state."""
        until(lambda: self.state(run) in ENDED, f"end of {run.name}", timeout_s, 3)
        return self.state(run)

    def succeeds(self, run):
        """Waits for a run that must succeed."""
        state = self.wait(run)
        assert state == "SUCCEEDED", f"{run.name} {state}: {self.reasons(run)}"

    def pods(self, run, step=""):
        """Pods of a run's steps: the containers of users, not of KFP's driver."""
        found = self.cluster.get("pods", labelSelector=f"pipeline/runid={run.id}")["items"]
        inner = [pod for pod in found if "-driver" not in pod["metadata"]["name"]]
        return [pod for pod in inner if not step or step_of(pod, [step]) == step]

    def phases(self, run, step=""):
        return {pod["status"].get("phase") for pod in self.pods(run, step)}

    def until_running(self, run, step, timeout_s=900):
        """Waits for the pod of a step; returns its name."""

        def running():
            assert self.state(run) not in ENDED, (
                f"{run.name} has ended before {step}: {self.reasons(run)}"
            )
            for pod in self.pods(run, step):
                if pod["status"].get("phase") == "Running":
                    return pod["metadata"]["name"]
            return None

        return until(running, f"pod of {step}", timeout_s, 0.5)

    def reasons(self, run):
        """Logs of a run's failed pods."""
        failed = [pod for pod in self.pods(run) if pod["status"].get("phase") == "Failed"]
        return "\n".join(f"{name}: {self.log(name)}" for name in map(_name, failed))

    def log(self, pod, lines=60):
        """The last lines of a pod's main container."""
        query = {"container": "main", "tailLines": str(lines)}
        try:
            return self.cluster.ask("GET", f"pods/{pod}/log", query=query, response_type="str")[0]
        except KubernetesError as error:
            return str(error)

    def delete_pod(self, name):
        self.cluster.delete(f"pods/{name}", gracePeriodSeconds="0")

    def terminate(self, run):
        self.kubeflow.ask(self.kubeflow.api.runs.run_service_terminate_run, run.id)

    def retry(self, run):
        """Retries a failed run; returns once it runs again."""
        try:
            self.kubeflow.ask(self.kubeflow.api.runs.run_service_retry_run, run.id)
        except KubeflowError as error:
            if error.status:  # no answer: Kubeflow still waits for MLflow, after the retry itself
                raise
        until(lambda: self.state(run) not in ENDED, f"retry of {run.name}", 300)


def _name(pod):
    return pod["metadata"]["name"]


@pytest.fixture(scope="session")
def options(request):
    """Words of `BRAINSEG_SUBMIT`; skips where no installation was asked for."""
    if "kubeflow" not in request.config.getoption("-m"):
        pytest.skip("starts runs in Kubeflow: run `make kubeflow-test`")
    missing = [
        name
        for name in ("KF_PIPELINES_ENDPOINT", "KUBECONFIG", "BRAINSEG_SUBMIT")
        if not os.environ.get(name)
    ]
    if missing:
        pytest.skip(f"no Kubeflow Pipelines: {', '.join(missing)} not set")
    return shlex.split(os.environ["BRAINSEG_SUBMIT"])


@pytest.fixture(scope="session")
def known(options):
    """The installation's options as values; the store is taken out of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--store", required=True)
    for name in ("--namespace", "--registry", "--digests", "--service-account"):
        parser.add_argument(name, default="")
    parser.add_argument("--profile", default="cpu")
    return parser.parse_known_args(options)[0]


@pytest.fixture(scope="session")
def installation(options, known):
    """The installation; what these tests have started and what still runs is ended."""
    try:
        kubeflow = connect(namespace=known.namespace)
    except KubeflowError as error:
        pytest.skip(f"no Kubeflow Pipelines: {error}")
    place = kubeflow.namespace or known.namespace or "kubeflow"
    words = list(options)
    at = words.index("--store")
    del words[at : at + 2]
    store = f"{known.store.rstrip('/')}/check-{uuid.uuid4().hex[:8]}"
    found = Installation(words, store, kubeflow, connect_cluster(place))
    yield found
    for run in found.started:
        if found.state(run) not in ENDED:
            found.terminate(run)


@pytest.fixture(scope="session")
def as_step(installation, known):
    """Runs Python in a pod with the settings of a step; returns what it prints as JSON."""
    settings = load_profile(known.profile).steps["register"]
    pod = pod_fragment(settings)
    (container,) = pod["spec"]["containers"]
    container |= {
        "image": read_images(known.registry, known.digests or None).full_name(TRAINER_IMAGE),
        "command": ["python", "-c", "import time; time.sleep(7200)"],
    }
    name = f"brainseg-check-{uuid.uuid4().hex[:6]}"
    pod["metadata"] = {"name": name, "labels": {"app": "brainseg-check"}}
    pod["spec"] |= {"restartPolicy": "Never", "activeDeadlineSeconds": 7200}
    if known.service_account:
        pod["spec"]["serviceAccountName"] = known.service_account
    installation.cluster.create("pods", {"apiVersion": "v1", "kind": "Pod", **pod})
    namespace = installation.cluster.namespace

    def kubectl(*words):
        line = ["kubectl", "--namespace", namespace, *words]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=300s")
    yield lambda script, *words: json.loads(
        kubectl("exec", name, "-c", "main", "--", "python", "-c", _AS_A_STEP, script, *words)
    )
    installation.delete_pod(name)


@pytest.fixture(scope="session")
def mlflow_runs(as_step):
    """MLflow's runs of a pipeline run; with a tag's name only those that have it."""

    def find(run, tag=""):
        return [one for one in as_step(_RUNS, run.id) if not tag or tag in one["tags"]]

    return find
