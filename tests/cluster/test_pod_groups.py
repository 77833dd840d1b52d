"""A training in two pods of a real cluster: followed, ended, killed, found again."""

import copy
import json
import re
import time
import uuid

import pytest
import yaml

from components.shared.process import ERROR_PREFIX
from components.shared.storage.store import open_store
from components.train.group.objects import group_objects
from components.train.group.settings import GroupSettings
from pipelines.placement.compilation import compile_all
from pipelines.placement.images import Images
from pipelines.placement.profiles import load_profile
from tests.cluster.backend import TaskFailed, job_name
from tests.cluster.conftest import BUCKET, arguments, is_there, read
from tests.components.train.group.pods import OWNER
from tests.components.train.group.test_objects import PODS, TASK
from tests.waiting import until

pytestmark = pytest.mark.cluster

GROUP = "app.kubernetes.io/component=pod-group"
PROFILE = """
extends: test
train:
  memory: {request: 512Mi, limit: 3Gi}
  retries: 0
  pod_group: {pods: 2, wait_s: 300}
"""
# Argo ends a container by a signal to all processes that it has started
END_STEP = """
import os, signal, sys
for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
    with open(f"/proc/{pid}/cmdline", "rb") as line:
        if pid not in (1, os.getpid()) and b"executor_main" in line.read():
            os.kill(pid, getattr(signal, sys.argv[1]))
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("groups")
    (folder / "profile.yaml").write_text(PROFILE)
    profile = load_profile(str(folder / "profile.yaml"))
    compile_all(folder, profile=profile, images=Images(registry="localhost"))
    return folder / "training.yaml"


@pytest.fixture(scope="module")
def prepared(backend, graph, tmp_path_factory):
    """The steps before the training, once: each test trains by itself from there."""
    store = f"{BUCKET}/groups-{uuid.uuid4().hex[:8]}"
    spec, platform = yaml.safe_load_all(graph.read_text())
    dag = spec["root"]["dag"]
    dag["tasks"] = {name: dag["tasks"][name] for name in ("ingest", "profile", "split")}
    del dag["outputs"]
    first = tmp_path_factory.mktemp("first") / "first.yaml"
    first.write_text(yaml.safe_dump_all([spec, platform]))
    return store, backend.run(first, arguments(store), uuid.uuid4().hex[:8])


@pytest.fixture
def train(backend, graph, prepared, deployed):
    """Starts only the training of a run of its own; nothing of the group is left afterwards."""
    store, done = prepared
    started = []

    def train(*changes, retries=0, compiled=graph):
        run_id = uuid.uuid4().hex[:8]
        started.append(run_id)
        given = arguments(store, "train.network.image_size=64", *changes)
        backend.start_one(compiled, "train", given, done, run_id, retries=retries)
        return run_id

    yield train
    for run_id in started:
        deployed("delete", "job", job_name(run_id, "train"), "--ignore-not-found")
    gone(deployed)


def group(kubectl):
    """The Job of the only group there is, once it is there."""
    found = kubectl.get("jobs", "-l", GROUP)["items"]
    return found[0] if found else None


def pods(kubectl, *, phase="Running"):
    found = kubectl.get("pods", "-l", GROUP)["items"]
    return [pod for pod in found if pod["status"].get("phase") == phase]


def gone(kubectl, timeout_s=120):
    for kind in ("jobs", "services", "pods"):
        until(lambda: not kubectl.get(kind, "-l", GROUP)["items"], f"end of {kind}", timeout_s)  # noqa: B023


def step_pod(kubectl, run_id):
    found = kubectl.get("pods", "-l", f"job-name={job_name(run_id, 'train')}")["items"]
    return found[-1]["metadata"]["name"]


def end_step(kubectl, run_id, name="SIGTERM"):
    python = "/opt/brainseg/bin/python"
    kubectl("exec", step_pod(kubectl, run_id), "-c", "main", "--", python, "-c", END_STEP, name)


def log(kubectl, run_id):
    selector = f"job-name={job_name(run_id, 'train')}"
    return kubectl("logs", "-l", selector, "-c", "main", "--tail=-1", check=False)


def until_logged(kubectl, run_id, text, timeout_s=600):
    """Waits for a line of the step's log, which the group's log is a part of."""

    def found():
        status = kubectl.get("job", job_name(run_id, "train"))["status"]
        assert not status.get("failed"), log(kubectl, run_id)
        return text in log(kubectl, run_id)

    until(found, f"line {text!r}", timeout_s)


def test_two_pods_train_and_a_lost_one_is_replaced(train, backend, deployed):
    run_id = train("train.schedule.epochs=10")
    until_logged(deployed, run_id, "epoch 2 of 10")
    assert len(pods(deployed)) == 2
    lost = next(
        pod["metadata"]["name"]
        for pod in pods(deployed)
        if pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] == "1"
    )
    deployed("delete", "pod", lost, "--grace-period=0", "--force")
    backend.wait(job_name(run_id, "train"), 900)
    assert "resuming after epoch" in log(deployed, run_id)
    folder = f"{backend.root}/{run_id}/train"
    history = json.loads(read(f"{folder}/history"))["epochs"]
    assert [epoch["epoch"] for epoch in history][-1] == 10
    assert is_there(f"{folder}/model")
    gone(deployed)


def test_a_cancelled_step_leaves_no_group_and_loses_no_step(train, deployed, prepared):
    run_id = train("train.schedule.epochs=200")
    until_logged(deployed, run_id, "epoch 2 of 200")
    end_step(deployed, run_id)
    gone(deployed)
    store, _ = prepared
    states = [key for key in open_store(store).keys("checkpoints/") if "/state-" in key]
    newest = max(json.loads(open_store(store).read(key))["epoch"] for key in states)
    assert newest >= 2


def test_a_second_attempt_follows_the_group_that_runs(train, backend, deployed):
    run_id = train("train.schedule.epochs=10", retries=1)
    until_logged(deployed, run_id, "epoch 2 of 10")
    before = group(deployed)["metadata"]["uid"]
    end_step(deployed, run_id, "SIGKILL")
    until(lambda: len(group(deployed)["metadata"]["ownerReferences"]) == 2, "second owner", 300)
    assert group(deployed)["metadata"]["uid"] == before
    backend.wait(job_name(run_id, "train"), 900)
    assert "exists already; following it" in log(deployed, run_id)
    gone(deployed)


def test_pods_end_when_the_step_has_been_killed(train, deployed):
    run_id = train("train.schedule.epochs=2000")
    until_logged(deployed, run_id, "epoch 2 of 2000")
    end_step(deployed, run_id, "SIGKILL")
    killed = time.monotonic()
    gone(deployed, timeout_s=590)
    assert time.monotonic() - killed < 600


def test_a_mistake_fails_at_once_in_its_own_words(train, backend, deployed):
    run_id = train("train.sampling.batch_size=7")  # two pods cannot share it: only they see that
    with pytest.raises(TaskFailed) as failure:
        backend.wait(job_name(run_id, "train"), 600)
    assert ERROR_PREFIX.strip() in str(failure.value)
    assert "batch_size=7 cannot be divided" in str(failure.value)
    gone(deployed)


def test_a_refusal_of_the_cluster_is_told_and_leaves_nothing(train, backend, deployed):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-services"}}
    quota["spec"] = {"hard": {"count/services": "0"}}
    deployed("apply", "-f", "-", text=json.dumps(quota))
    try:
        run_id = train()
        with pytest.raises(TaskFailed, match="exceeded quota"):
            backend.wait(job_name(run_id, "train"), 300)
    finally:
        deployed("delete", "resourcequota", "no-services")
    gone(deployed)


def test_what_the_pods_wait_for_is_told(train, backend, deployed, graph, tmp_path):
    """More memory than the node has: no node takes them."""
    text = re.sub(r"memory(\W+)(512Mi|3Gi)", r"memory\g<1>12Gi", graph.read_text())
    large = tmp_path / "large.yaml"
    large.write_text(re.sub(r"wait_s(\W+)300", r"wait_s\g<1>20", text))
    run_id = train(compiled=large)
    with pytest.raises(TaskFailed) as failure:
        backend.wait(job_name(run_id, "train"), 300)
    assert "of the group's 2 pods run" in str(failure.value)
    gone(deployed)


@pytest.fixture
def trainer(deployed):
    if "trainjobs.trainer.kubeflow.org" not in deployed("get", "crd", "-o", "name"):
        pytest.skip("no Kubeflow Trainer: its custom resources are not installed")

    def apply(objects):
        text = "\n---\n".join(map(json.dumps, objects))
        options = ("--dry-run=server", "--validate=strict")
        return deployed("apply", *options, "-f", "-", text=text, check=False)

    return apply


@pytest.fixture
def trainjob():
    return group_objects(GroupSettings(backend="trainjob", pods=2), TASK, PODS, OWNER)


def test_trainer_takes_a_trainjob_and_its_runtime(trainer, trainjob):
    output = trainer(trainjob)
    assert output.count("created (server dry run)") == 2, output


def test_trainer_refuses_a_wrong_one(trainer, trainjob):
    runtime, job = copy.deepcopy(trainjob)
    runtime["spec"]["mlPolicy"]["numNodes"] = "two"
    job["spec"]["podSpecOverides"] = []
    output = trainer([runtime, job])
    assert "numNodes" in output
    assert "podSpecOverides" in output
    assert "created" not in output
