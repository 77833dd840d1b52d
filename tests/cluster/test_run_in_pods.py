"""The compiled training pipeline as pods of a real cluster, from ingest to register."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.process import ERROR_PREFIX
from components.shared.storage.store import open_store
from tests.cluster.backend import TaskFailed, job_name
from tests.cluster.conftest import (
    BUCKET,
    TREE,
    arguments,
    inner_keys,
    is_there,
    read,
    wait_within,
)

pytestmark = pytest.mark.cluster

RUN = """
import json, mlflow, sys
run = mlflow.MlflowClient().get_run(sys.argv[1])
print(json.dumps([run.info.status, run.data.tags, run.data.metrics]))
"""
# MLflow's client takes seconds to be imported, in which a step may end
VERSIONS = """
import os, requests
who = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
place = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/model-versions/search"
answer = requests.get(place, params={"max_results": 1000}, auth=who).json()
print(len(answer.get("model_versions", [])))
"""


@pytest.fixture(scope="module")
def store():
    """A fresh store; the same address in pods and here."""
    return f"{BUCKET}/store-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def finished(backend, training, store):
    run_id = uuid.uuid4().hex[:8]
    return run_id, backend.run(training, arguments(store), run_id)


def test_the_chain_runs_from_ingest_to_register(finished):
    _, tasks = finished
    assert list(tasks) == ["ingest", "profile", "split", "train", "evaluate", "register"]
    assert tasks["register"]["parameters"]["model_uri"].startswith("models:/brainseg/")
    lost = [
        artifact["uri"]
        for task in tasks.values()
        for artifact in task["artifacts"].values()
        # metrics are in the artifact's metadata
        if "Metrics" not in artifact["type"]["schemaTitle"] and not is_there(artifact["uri"])
    ]
    assert lost == []


def test_a_source_is_the_same_data_set_in_pods_as_here(finished, tmp_path):
    _, tasks = finished
    store = open_store(str(tmp_path / "store"))
    here = ingest_source("synthetic:12", store, IngestSettings())
    assert tasks["ingest"]["parameters"]["Output"] == here.account.dataset_id


def test_mlflow_has_the_run_with_its_metrics(finished, step):
    run_id, tasks = finished
    training = tasks["train"]["parameters"]["Output"]
    status, tags, metrics = json.loads(step(RUN, training))
    assert status == "FINISHED"
    assert tags["kfp_run_id"] == run_id
    output = tasks["evaluate"]["artifacts"]["metrics"]["metadata"]
    assert metrics["patient_dice_mean"] == pytest.approx(output["patient_dice_mean"])


def test_the_store_keeps_no_checkpoint_of_a_finished_run(finished, store):
    assert list(open_store(store).keys("checkpoints/")) == []


def test_a_run_of_which_every_step_is_killed_ends_as_others_do(
    backend, training, deployed, finished, store, step
):
    """As when nodes are taken away: the pods are deleted without a word, in the midst of it."""
    (first_id, before), run_id = finished, uuid.uuid4().hex[:8]
    fresh = f"{BUCKET}/store-{run_id}"
    versions = int(step(VERSIONS))
    moments = {
        "ingest": lambda: is_there(f"{fresh}/volumes/"),
        "profile": lambda: True,
        "split": lambda: is_there(f"{fresh}/splits/"),
        "train": lambda: is_there(f"{fresh}/checkpoints/"),
        "evaluate": lambda: True,
        "register": lambda: int(step(VERSIONS)) > versions,
    }
    with ThreadPoolExecutor(1) as pool:
        killer = pool.submit(kill_every_step, deployed, run_id, moments)
        # split is over in a second
        after = replace(backend, linger_s=5).run(training, arguments(fresh), run_id)
        killer.result()
    assert after["evaluate"]["parameters"] == before["evaluate"]["parameters"]
    figures = [each["evaluate"]["artifacts"]["metrics"]["metadata"] for each in (before, after)]
    assert figures[0] == figures[1]
    left = [sorted(inner_keys(each)) for each in (store, fresh)]
    assert left[0] == left[1]
    trees = [json.loads(step(TREE, each)) for each in (first_id, run_id)]
    assert trees[0] == trees[1]


def kill_every_step(kubectl, run_id, moments):
    for name, has_come in moments.items():
        selector = wait_within(kubectl, run_id, name, has_come)
        kubectl("delete", "pod", "-l", selector, "--grace-period=0", "--force")


def test_a_limit_that_is_not_kept_is_told_in_the_termination_message(backend, training, store):
    run_id = uuid.uuid4().hex[:8]
    with pytest.raises(TaskFailed) as failure:
        backend.run(training, arguments(store, "profile.min_patients=100"), run_id)
    assert ERROR_PREFIX.strip() in str(failure.value)
    assert "min_patients" in str(failure.value)
    report = next(word for word in str(failure.value).split() if word.startswith(f"{store}/"))
    assert b"<html" in read(report.strip(".,;()"))


def told_by_notify(kubectl, run_id):
    return kubectl("logs", f"job/{job_name(run_id, 'notify')}")


def test_a_retraining_ends_early_where_nothing_is_new(
    backend, retraining, deployed, finished, store
):
    run_id = uuid.uuid4().hex[:8]
    tasks = backend.run(retraining, arguments(store), run_id)
    assert list(tasks) == ["ingest", "check-data", "notify"]
    assert f"{run_id}: nothing to do" in told_by_notify(deployed, run_id)


def test_a_retraining_that_fails_tells_step_and_reason(
    backend, retraining, deployed, finished, store
):
    run_id, limit = uuid.uuid4().hex[:8], "profile.min_patients=100"
    with pytest.raises(TaskFailed):
        backend.run(retraining, {**arguments(store, limit), "force": True}, run_id)
    output = told_by_notify(deployed, run_id)
    assert f"{run_id}: failed in step profile" in output
    assert "patients: 12, must be at least 100" in output
