"""Runs that go on: after Kubeflow's button "Retry", and after the loss of every pod."""

import uuid

import pytest

from tests.kubeflow.conftest import PATIENTS, STEPS
from tests.waiting import until

pytestmark = pytest.mark.kubeflow

# A source that is not there at first
WRITE_SOURCE = """
import json, tempfile
from pathlib import Path
from components.shared.reading.sources.synthetic import write_synthetic
from components.shared.storage.store import open_store
folder = Path(tempfile.mkdtemp())
write_synthetic(folder, int(sys.argv[2]), 3)
store = open_store(sys.argv[1])
for path in folder.rglob("*"):
    if path.is_file():
        store.write(str(path.relative_to(folder)), path.read_bytes())
print(json.dumps(len(list(store.keys("")))))
"""
STATES = """
import json
from components.shared.storage.store import open_store
keys = open_store(sys.argv[1]).keys("")
print(json.dumps([key for key in keys if "/state-" in key]))
"""


def test_a_failed_run_continues_after_a_retry(installation, as_step, mlflow_runs):
    source = f"{installation.store}/source-{uuid.uuid4().hex[:6]}"
    run = installation.submit(source=source)
    assert installation.wait(run) == "FAILED"
    assert "brainseg error: " in installation.reasons(run)
    assert as_step(WRITE_SOURCE, source, str(PATIENTS)) > 0
    installation.retry(run)
    installation.succeeds(run)
    assert len(mlflow_runs(run, "brainseg.training")) == 1


def test_a_run_goes_on_after_the_loss_of_every_pod(installation, as_step, mlflow_runs):
    """As when nodes are taken away. Argo replaces the pods (its rule "OnError")."""
    store = f"{installation.store}/lost"
    run = installation.submit("--store", store, "--set", "train.schedule.epochs=20")
    for step in STEPS:
        pod = installation.until_running(run, step)
        if step == "train":
            until(lambda: as_step(STATES, store), "checkpoint", 600)
        installation.delete_pod(pod)
    installation.succeeds(run)
    (pod,) = installation.pods(run, "train")
    assert "resuming after epoch" in installation.log(pod["metadata"]["name"], lines=10_000)
    (training,) = mlflow_runs(run, "brainseg.training")
    assert training["status"] == "FINISHED"
