"""The compiled training pipeline as pods of a real cluster, from ingest to register."""

import json
import threading
import uuid

import pytest

from components.ingest.ingestion import ingest_source
from components.ingest.settings import IngestSettings
from components.shared.process import ERROR_PREFIX
from components.shared.storage.store import open_store
from pipelines.catalogue import PIPELINES
from pipelines.compilation import compile_all
from pipelines.graph import settings_of
from pipelines.images import Images
from pipelines.resources import load_profile
from pipelines.settings import load_preset, pipeline_arguments
from tests.cluster.backend import Backend, TaskFailed, job_name
from tests.cluster.conftest import until

pytestmark = pytest.mark.cluster

BUCKET = "s3://brainseg"
TINY = (
    "train.schedule.epochs=4",
    "train.schedule.validate_every_epochs=2",
    "train.compute.threads=1",
    "register.min_patient_dice=0",
)
RUN = """
import json, mlflow, sys
run = mlflow.MlflowClient().get_run(sys.argv[1])
print(json.dumps([run.info.status, run.data.tags, run.data.metrics]))
"""


def read(uri):
    return open_store(BUCKET).read(uri.removeprefix(f"{BUCKET}/"))


def is_there(uri):
    return bool(list(open_store(BUCKET).keys(uri.removeprefix(f"{BUCKET}/"))))


@pytest.fixture(scope="module")
def backend(deployed):
    return Backend(deployed, root=f"{BUCKET}/kfp", read=read, endpoint="http://s3.test:7070")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    # the registry of images that were built on the node
    compile_all(folder, profile=load_profile("test"), images=Images(registry="localhost"))
    return folder


@pytest.fixture(scope="module")
def training(compiled):
    return compiled / "training.yaml"


@pytest.fixture(scope="module")
def retraining(compiled):
    return compiled / "retraining.yaml"


@pytest.fixture(scope="module")
def store():
    """A fresh store; the same address in pods and here."""
    return f"{BUCKET}/store-{uuid.uuid4().hex[:8]}"


def arguments(store, *changes, patients=12):
    steps = settings_of(PIPELINES["training"])
    settings = pipeline_arguments(load_preset("demo", [*TINY, *changes], steps))
    source = f"synthetic:{patients}"
    return {"source": source, "store": store, "run_name": "cluster-test", **settings}


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
    told = tasks["evaluate"]["artifacts"]["metrics"]["metadata"]
    assert metrics["patient_dice_mean"] == pytest.approx(told["patient_dice_mean"])


def test_the_store_keeps_no_checkpoint_of_a_finished_run(finished, store):
    assert list(open_store(store).keys("checkpoints/")) == []


def test_a_killed_training_goes_on_in_a_new_pod(backend, training, deployed, finished, store):
    """As when a node is taken away: the pod is deleted without a word."""
    _, tasks = finished
    run_id = uuid.uuid4().hex[:8]
    killer = threading.Thread(target=kill_training, args=(deployed, run_id, store), daemon=True)
    killer.start()
    again = backend.run(training, arguments(store), run_id)
    killer.join(timeout=1)
    assert not killer.is_alive(), "the training was over before it could be killed"
    figures = [each["evaluate"]["artifacts"]["metrics"]["metadata"] for each in (tasks, again)]
    assert figures[0] == figures[1]


def kill_training(kubectl, run_id, store):
    selector = f"job-name={job_name(run_id, 'train')}"
    until(lambda: list(open_store(store).keys("checkpoints/")), "checkpoint", timeout_s=600)
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
    assert list(tasks) == ["ingest", "detect", "notify"]
    assert f"{run_id}: nothing to do" in told_by_notify(deployed, run_id)


def test_a_retraining_that_fails_tells_step_and_reason(
    backend, retraining, deployed, finished, store
):
    run_id, limit = uuid.uuid4().hex[:8], "profile.min_patients=100"
    with pytest.raises(TaskFailed):
        backend.run(retraining, {**arguments(store, limit), "force": True}, run_id)
    told = told_by_notify(deployed, run_id)
    assert f"{run_id}: failed in step profile" in told
    assert "patients: 12, must be at least 100" in told
