import uuid

import pytest

from components.shared.tracking.runs import recording
from components.shared.tracking.server import connect
from components.shared.tracking.status import (
    parent_of,
    pipeline_run_of,
    set_status,
    training_digest,
    trainings_of,
)
from tests.components.conftest import BOTH_MLFLOWS, new_run


def statuses(*run_ids):
    return [connect().get_run(run_id).info.status for run_id in run_ids]


def fail(run_id):
    with pytest.raises(KeyError, match="broken"), recording(run_id):
        raise KeyError("broken")


@BOTH_MLFLOWS
def test_work_that_fails_marks_both_runs_and_a_retry_takes_them_up_again(any_mlflow):
    run_id = new_run()
    parent = parent_of(connect().get_run(run_id))
    fail(run_id)
    assert statuses(run_id, parent) == ["FAILED", "FAILED"]
    with recording(run_id):
        assert statuses(run_id, parent) == ["RUNNING", "RUNNING"]


def test_a_pipeline_run_has_failed_while_one_of_its_trainings_has(local_mlflow):
    pipeline_run = uuid.uuid4().hex
    one, two = (new_run(pipeline_run=pipeline_run, label=label) for label in ("one", "two"))
    parent = parent_of(connect().get_run(one))
    fail(one)
    with recording(two):
        assert statuses(one, two, parent) == ["FAILED", "RUNNING", "FAILED"]
    with recording(one):
        assert statuses(one, two, parent) == ["RUNNING", "RUNNING", "RUNNING"]


def test_runs_of_other_tools_are_no_trainings_and_keep_their_status(local_mlflow, monkeypatch):
    client = connect()
    parent = client.create_run("0").info.run_id
    nested = {"mlflow.parentRunId": parent}
    client.create_run("0", tags=nested)
    joined = client.create_run("0", tags=nested).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", joined)
    assert new_run() == joined
    (found,) = trainings_of(client, client.get_run(joined))
    assert found.info.run_id == joined
    assert training_digest(found)
    set_status(client, joined, "FINISHED")
    fail(joined)
    assert statuses(joined, parent) == ["RUNNING", "RUNNING"]
    client.set_terminated(joined)  # by its creator
    with recording(joined):
        assert statuses(joined) == ["FINISHED"]


def test_the_pipeline_runs_run_is_above_all(local_mlflow):
    client, run_ids = connect(), [None]
    for _ in range(3):
        tags = {"mlflow.parentRunId": run_ids[-1]} if run_ids[-1] else {}
        run_ids.append(client.create_run("0", tags=tags).info.run_id)
    assert [pipeline_run_of(client, run_id) for run_id in run_ids[1:]] == [run_ids[1]] * 3
