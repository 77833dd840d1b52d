import multiprocessing
import os
import re
import uuid

import pytest

from components.shared.errors import UserError
from components.shared.storage.store import open_store
from components.shared.tracking.identity import Training, checkpoint_folder
from components.shared.tracking.runs import log_dataset, recording
from components.shared.tracking.server import connect, open_experiment
from components.shared.tracking.status import parent_of, pipeline_run_of, training_digest
from components.shared.tracking.tree import PIPELINE_RUN_TAG, end_pipeline_run, open_run
from tests.components.conftest import BOTH_MLFLOWS, new_run

PROCESSES = 8
ROUNDS = 5


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


def of(pipeline_run):
    """The runs of a pipeline run."""
    client = connect()
    query = f"tags.{PIPELINE_RUN_TAG} = '{pipeline_run}'"
    return client.search_runs([open_experiment(client)], filter_string=query)


def training(**changes):
    values = {"pipeline_run": "run", "dataset_id": "3f2a0123", "split_id": "5911", "recipe": {}}
    return Training(**{**values, **changes})


@BOTH_MLFLOWS
def test_every_attempt_finds_the_run_of_its_training(any_mlflow):
    pipeline_run = uuid.uuid4().hex
    first = new_run(pipeline_run=pipeline_run)
    assert new_run(pipeline_run=pipeline_run) == first
    run = connect().get_run(first)
    assert run.data.tags["dataset_id"] == "da7a"
    assert run.data.tags["split_id"] == "5911"
    assert {found.info.run_id for found in of(pipeline_run)} == {first, parent_of(run)}


@pytest.mark.parametrize(
    "change", [{"label": "two"}, {"dataset_id": "x"}, {"split_id": "x"}, {"recipe": {"epochs": 2}}]
)
def test_another_training_has_a_run_of_its_own_in_the_same_parent(local_mlflow, change):
    """The second training of a pipeline run used to take the first one's run."""
    client, pipeline_run = connect(), uuid.uuid4().hex
    one, two = new_run(pipeline_run=pipeline_run), new_run(pipeline_run=pipeline_run, **change)
    assert one != two
    assert pipeline_run_of(client, one) == pipeline_run_of(client, two) != one
    assert pipeline_run_of(client, new_run()) != pipeline_run_of(client, one)


def test_run_names_differ(local_mlflow):
    given = training(pipeline_run=uuid.uuid4().hex, label="fold-1")
    client = connect()
    run = client.get_run(open_run(given, name="unet-resnet18", run_name="quick"))
    when = r"20\d\d-\d\d-\d\d \d\d:\d\d"
    assert re.fullmatch(f"fold-1 unet-resnet18 {when} 3f2a0123", run.info.run_name)
    parent = client.get_run(parent_of(run))
    assert re.fullmatch(f"quick {when} 3f2a0123", parent.info.run_name)
    assert "mlflow.source.name" in parent.data.tags


@BOTH_MLFLOWS
def test_the_end_finishes_all_runs_and_removes_their_checkpoints(any_mlflow, store):
    client, pipeline_run = connect(), uuid.uuid4().hex
    runs = [new_run(pipeline_run=pipeline_run, label=label) for label in ("one", "two")]
    other = new_run()
    for run_id in (*runs, other):
        folder = checkpoint_folder(training_digest(client.get_run(run_id)))
        store.write(f"{folder}/last.ckpt", b"state")
    end_pipeline_run(client, runs[1], store)
    assert [run.info.status for run in of(pipeline_run)] == ["FINISHED"] * 3
    assert all(run.info.end_time for run in of(pipeline_run))
    assert client.get_run(other).info.status == "RUNNING"
    assert list(store.keys("checkpoints/")) == [f"{folder}/last.ckpt"]


def test_the_end_can_be_set_by_the_pipeline_runs_run_and_again(local_mlflow, store):
    client, pipeline_run = connect(), uuid.uuid4().hex
    run_id = new_run(pipeline_run=pipeline_run)
    for _ in range(2):
        end_pipeline_run(client, pipeline_run_of(client, run_id), store)
    assert [run.info.status for run in of(pipeline_run)] == ["FINISHED"] * 2


def test_a_training_that_failed_for_good_is_not_hidden_by_the_end(local_mlflow, store):
    client, pipeline_run = connect(), uuid.uuid4().hex
    good, bad = (new_run(pipeline_run=pipeline_run, label=label) for label in ("good", "bad"))
    with pytest.raises(KeyError), recording(bad):
        raise KeyError
    end_pipeline_run(client, good, store)
    found = {run.info.run_id: run.info.status for run in of(pipeline_run)}
    parent = pipeline_run_of(client, good)
    assert found == {good: "FINISHED", bad: "FAILED", parent: "FAILED"}


@BOTH_MLFLOWS
def test_a_given_run_is_joined_and_never_ended(any_mlflow, monkeypatch, store):
    client = connect()
    given = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    pipeline_run = uuid.uuid4().hex
    assert new_run(pipeline_run=pipeline_run) == given
    store.write(f"{checkpoint_folder(training_digest(client.get_run(given)))}/last", b"state")
    with recording(given) as client:
        end_pipeline_run(client, given, store)
    assert not list(store.keys("checkpoints/"))
    run = client.get_run(given)
    assert run.info.status == "RUNNING"
    assert run.data.tags[PIPELINE_RUN_TAG] == pipeline_run


def test_pipeline_runs_that_joined_one_parent_leave_each_other_alone(
    local_mlflow, monkeypatch, store
):
    client = connect()
    parent = client.create_run("0").info.run_id
    joined = []
    for _ in range(2):
        run = client.create_run("0", tags={"mlflow.parentRunId": parent})
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
        joined.append(new_run())
        folder = checkpoint_folder(training_digest(client.get_run(joined[-1])))
        store.write(f"{folder}/last.ckpt", b"state")
    end_pipeline_run(client, joined[0], store)
    assert list(store.keys("checkpoints/")) == [f"{folder}/last.ckpt"]
    assert client.get_run(parent).info.status == "RUNNING"


def test_a_given_run_that_does_not_exist_is_reported(local_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    reported = r"MLFLOW_RUN_ID names run 0123: MLflow at sqlite:.* has no such run"
    with pytest.raises(UserError, match=reported):
        new_run()


def race(uri, number, start, pipeline_runs, manifest, found):
    """One process: opens the same runs as the others, at the same moment."""
    os.environ["MLFLOW_TRACKING_URI"] = uri
    connect()
    for pipeline_run in pipeline_runs:
        start.wait(120)
        label = f"fold-{number % 2}"
        run_id = new_run(pipeline_run=pipeline_run, label=label)
        client = connect()
        parent = pipeline_run_of(client, run_id)
        log_dataset(client, parent, manifest, "s3://bucket/store")
        found.put((pipeline_run, label, run_id, parent))


@BOTH_MLFLOWS
def test_processes_that_race_make_one_run(any_mlflow, make_data):
    context, manifest = multiprocessing.get_context("forkserver"), make_data(3)
    context.set_forkserver_preload(["mlflow.tracking", "mlflow.store.tracking.sqlalchemy_store"])
    start, found = context.Barrier(PROCESSES), context.Queue()
    names = [uuid.uuid4().hex for _ in range(ROUNDS)]
    given = (start, names, manifest, found)
    processes = [
        context.Process(target=race, args=(os.environ["MLFLOW_TRACKING_URI"], number, *given))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    results = {found.get(timeout=600) for _ in range(PROCESSES * ROUNDS)}
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    assert len(results) == 2 * ROUNDS  # of each pipeline run two trainings
    for name in names:
        mine = {result[2:] for result in results if result[0] == name}
        (parent,) = {parent for _, parent in mine}
        assert {run.info.run_id for run in of(name)} == {parent, *(run_id for run_id, _ in mine)}
        assert len(connect().get_run(parent).inputs.dataset_inputs) == 1
