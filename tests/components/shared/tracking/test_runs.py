import json
import math
import os
import subprocess
import uuid

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from components.shared.errors import UserError
from components.shared.tracking.runs import (
    PIPELINE_RUN_TAG,
    finish_run,
    log_dataset,
    log_metrics,
    log_params,
    open_run,
    recording,
)
from components.shared.tracking.server import connect


def new_name():
    return uuid.uuid4().hex


def test_a_pipeline_run_has_one_run_in_all_its_steps(any_mlflow):
    pipeline_run = new_name()
    first = open_run(pipeline_run)
    assert open_run(pipeline_run) == first
    assert open_run(new_name()) != first
    tags = connect().get_run(first).data.tags
    assert tags[PIPELINE_RUN_TAG] == pipeline_run


def test_without_a_pipeline_run_every_run_is_new(local_mlflow):
    assert open_run("") != open_run("")


def test_a_run_is_in_the_experiment_of_the_project_or_the_one_that_is_set(
    local_mlflow, monkeypatch
):
    client = connect()
    run = client.get_run(open_run(""))
    assert client.get_experiment(run.info.experiment_id).name == "brainseg"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", new_name())
    other = client.get_run(open_run("")).info.experiment_id
    assert client.get_experiment(other).name == os.environ["MLFLOW_EXPERIMENT_NAME"]
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", run.info.experiment_id)
    assert client.get_run(open_run("")).info.experiment_id == run.info.experiment_id


def test_a_given_run_is_joined_and_never_ended(any_mlflow, monkeypatch):
    client = connect()
    given = client.create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    pipeline_run = new_name()
    assert open_run(pipeline_run) == given
    with recording(given) as client:
        finish_run(client, given)
    with pytest.raises(ValueError, match="stop"), recording(given):
        raise ValueError("stop")
    run = client.get_run(given)
    assert run.info.status == "RUNNING"
    assert run.data.tags[PIPELINE_RUN_TAG] == pipeline_run


def test_a_given_run_that_does_not_exist_is_told(local_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    with pytest.raises(UserError, match=r"MLFLOW_RUN_ID=0123: MLflow at sqlite:.* has no such run"):
        open_run("some run")


def test_a_run_names_commit_and_image(local_mlflow, monkeypatch):
    monkeypatch.setenv("BRAINSEG_GIT_COMMIT", "c0ffee")
    monkeypatch.setenv("BRAINSEG_IMAGE_DIGEST", "sha256:abc")
    tags = connect().get_run(open_run("")).data.tags
    assert tags["mlflow.source.git.commit"] == "c0ffee"
    assert tags["image_digest"] == "sha256:abc"


def test_in_a_checkout_the_commit_is_found(local_mlflow):
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        pytest.skip("not in a git checkout")
    tags = connect().get_run(open_run("")).data.tags
    assert tags["mlflow.source.git.commit"] == head.stdout.strip()
    assert tags["mlflow.source.git.dirty"] in ("true", "false")


def test_work_that_fails_marks_the_run_and_a_retry_takes_it_up_again(local_mlflow):
    run_id = open_run("")
    with pytest.raises(KeyError, match="broken"), recording(run_id):
        raise KeyError("broken")
    assert connect().get_run(run_id).info.status == "FAILED"
    with recording(run_id) as client:
        assert client.get_run(run_id).info.status == "RUNNING"
        finish_run(client, run_id)
    assert client.get_run(run_id).info.status == "FINISHED"


def test_parameters_are_flat_and_can_be_logged_again(any_mlflow):
    run_id, client = open_run(""), connect()
    params = {"train": {"rate": 0.1, "sizes": (1, 2), "deep": {"name": None}}, "seed": 3}
    log_params(client, run_id, params)
    log_params(client, run_id, {**params, "more": "x"})
    assert client.get_run(run_id).data.params == {
        "train.rate": "0.1",
        "train.sizes": "(1, 2)",
        "train.deep.name": "None",
        "seed": "3",
        "more": "x",
    }


def test_a_changed_parameter_is_refused_before_any_is_logged(local_mlflow):
    run_id, client = open_run(""), connect()
    log_params(client, run_id, {"rate": 0.1})
    with pytest.raises(UserError, match=r"\(rate: 0.1 then, 0.2 now\); .*start a new pipeline run"):
        log_params(client, run_id, {"other": 1, "rate": 0.2})
    assert client.get_run(run_id).data.params == {"rate": "0.1"}


def test_many_and_long_parameters(any_mlflow):
    run_id, client = open_run(""), connect()
    params = {f"name{number}": number for number in range(250)} | {"long": "x" * 20_000}
    log_params(client, run_id, params)
    log_params(client, run_id, params)
    found = client.get_run(run_id).data.params
    assert len(found) == 251
    assert found["long"].startswith("xxx")
    with pytest.raises(UserError, match="long"):
        log_params(client, run_id, {"long": "x" * 20_001})


def test_metrics_keep_their_steps(any_mlflow):
    run_id, client = open_run(""), connect()
    for epoch in range(3):
        log_metrics(client, run_id, {"loss": 1 / (1 + epoch), "odd": math.nan}, step=epoch)
    log_metrics(client, run_id, {f"metric{number}": number for number in range(1500)})
    history = client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1), (1, 1 / 2), (2, 1 / 3)]
    assert client.get_metric_history(run_id, "metric1499")[0].value == 1499


def test_the_data_set_is_an_input_of_the_run_once(any_mlflow, make_data):
    run_id, client, manifest = open_run(""), connect(), make_data(5)
    for _ in range(2):
        log_dataset(client, run_id, manifest.dataset_id, manifest, "s3://bucket/store")
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.digest == manifest.dataset_id
    assert json.loads(found.dataset.profile)["volumes"] == 5
    assert f"s3://bucket/store/datasets/{manifest.dataset_id}" in found.dataset.source


def test_a_server_that_goes_away_is_told_with_its_address(
    no_mlflow, monkeypatch, mlflow_server_uri
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_id = open_run("")
    with pytest.raises(UserError, match=r"MLflow at .* cannot be used"), recording(run_id):
        MlflowClient("http://127.0.0.1:9").get_run(run_id)
    assert connect().get_run(run_id).info.status == "FAILED"


def test_other_errors_of_mlflow_are_not_taken_for_an_outage(local_mlflow):
    run_id = open_run("")
    with pytest.raises(MlflowException, match="not found"), recording(run_id) as client:
        client.get_run("0123")
