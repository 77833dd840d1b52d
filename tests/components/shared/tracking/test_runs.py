import json
import math
import uuid

import numpy as np
import pytest
from matplotlib.figure import Figure
from mlflow import MlflowClient

from components.shared.errors import UserError
from components.shared.tracking.election import IDENTITY
from components.shared.tracking.runs import (
    log_dataset,
    log_headline,
    log_metrics,
    log_outcome,
    log_params,
    log_text_once,
    recording,
)
from components.shared.tracking.server import connect
from components.shared.tracking.status import pipeline_run_of
from components.shared.tracking.view import VIEW
from tests.components.conftest import BOTH_MLFLOWS, new_run
from tests.components.mlflow_proxy import mlflow_proxy


def logged(run_id):
    """A run's parameters without the one that it is found by."""
    params = connect().get_run(run_id).data.params
    return {name: value for name, value in params.items() if name != IDENTITY}


def above(run_id):
    client = connect()
    return client.get_run(pipeline_run_of(client, run_id)).data


@BOTH_MLFLOWS
def test_parameters_are_flat_and_can_be_logged_again(any_mlflow):
    run_id, client = new_run(), connect()
    params = {"train": {"rate": 0.1, "sizes": (1, 2), "deep": {"name": None}}, "seed": 3}
    log_params(client, run_id, params)
    log_params(client, run_id, {**params, "more": "x"})
    assert logged(run_id) == {
        "train.rate": "0.1",
        "train.sizes": "(1, 2)",
        "train.deep.name": "None",
        "seed": "3",
        "more": "x",
    }


def test_a_changed_parameter_is_refused_before_any_is_logged(local_mlflow):
    run_id, client = new_run(), connect()
    log_params(client, run_id, {"rate": 0.1})
    with pytest.raises(UserError, match=r"\(rate: 0.1 then, 0.2 now\); .*start a new pipeline run"):
        log_params(client, run_id, {"other": 1, "rate": 0.2})
    assert logged(run_id) == {"rate": "0.1"}


@BOTH_MLFLOWS
def test_many_and_long_parameters(any_mlflow):
    run_id, client = new_run(), connect()
    params = {f"name{number}": number for number in range(250)} | {"long": "x" * 20_000}
    log_params(client, run_id, params)
    log_params(client, run_id, params)
    found = logged(run_id)
    assert len(found) == 251
    assert found["long"].startswith("xxx")
    with pytest.raises(UserError, match="long"):
        log_params(client, run_id, {"long": "x" * 20_001})


@BOTH_MLFLOWS
def test_metrics_keep_their_steps(any_mlflow):
    run_id, client = new_run(), connect()
    for epoch in range(3):
        log_metrics(client, run_id, {"loss": 1 / (1 + epoch), "odd": math.nan}, step=epoch)
    log_metrics(client, run_id, {f"metric{number}": number for number in range(1500)})
    history = client.get_metric_history(run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(0, 1), (1, 1 / 2), (2, 1 / 3)]
    assert client.get_metric_history(run_id, "metric1499")[0].value == 1499


@BOTH_MLFLOWS
def test_the_data_set_is_an_input_of_the_run_once(any_mlflow, make_data):
    run_id, client, manifest = new_run(), connect(), make_data(5)
    for _ in range(2):
        log_dataset(client, run_id, manifest, "s3://bucket/store")
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.digest == manifest.dataset_id
    assert json.loads(found.dataset.profile)["volumes"] == 5
    assert f"s3://bucket/store/datasets/{manifest.dataset_id}" in found.dataset.source


def test_a_server_that_goes_away_is_reported_with_its_address(
    no_mlflow, monkeypatch, mlflow_server_uri
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server_uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run_id = new_run()
    with pytest.raises(UserError, match=r"MLflow at .* cannot be used"), recording(run_id):
        MlflowClient("http://127.0.0.1:9").get_run(run_id)
    assert connect().get_run(run_id).info.status == "FAILED"


def test_other_errors_of_mlflow_are_not_taken_for_an_outage(local_mlflow):
    run_id = new_run()
    refusal = pytest.raises(UserError, match=r"MLflow at .*not found")
    with refusal as raised, recording(run_id) as client:
        client.get_run("0123")
    assert type(raised.value) is UserError


@BOTH_MLFLOWS
def test_a_text_is_logged_by_the_first_who_does(any_mlflow):
    run_id, client = new_run(), connect()
    for text in ("first", "second"):
        log_text_once(client, run_id, text, "splits/x.json")
        log_text_once(client, run_id, text, "top.json")
    assert client.download_artifacts(run_id, "splits/x.json") != ""
    for path in ("splits/x.json", "top.json"):
        with open(client.download_artifacts(run_id, path)) as stream:
            assert stream.read() == "first"


@BOTH_MLFLOWS
def test_the_headline_of_a_single_training_is_the_pipeline_runs(any_mlflow):
    run_id, client = new_run(), connect()
    log_metrics(client, run_id, {"dice": 0.8, "loss": 0.2})
    log_headline(client, run_id, ("dice", "undefined"))
    assert above(run_id).metrics == {"dice": 0.8}


@BOTH_MLFLOWS
def test_headlines_of_several_trainings_stand_side_by_side(any_mlflow):
    client, pipeline_run = connect(), uuid.uuid4().hex
    for label, dice in (("fold-1", 0.8), ("fold-2", 0.7)):
        run_id = new_run(pipeline_run=pipeline_run, label=label)
        log_metrics(client, run_id, {"dice": dice})
        log_headline(client, run_id, ["dice"])
    assert above(run_id).metrics == {"fold-1/dice": 0.8, "fold-2/dice": 0.7}
    experiment = client.get_run(run_id).info.experiment_id
    view = client.get_experiment(experiment).tags[f"mlflow.sharedViewState.{VIEW}"]
    shown = json.loads(view)["selectedColumns"]
    assert {"metrics.`dice`", "metrics.`fold-1/dice`", "metrics.`fold-2/dice`"} <= set(shown)
    log_outcome(client, run_id, ["dice"], {"decision": "promoted"})
    assert above(run_id).metrics["dice"] == 0.7
    assert above(run_id).tags["decision"] == "promoted"
    assert "other" not in above(run_id).tags


def test_a_retry_shows_a_headline_once(local_mlflow):
    run_id, client = new_run(), connect()
    for dice in (0.8, 0.8, 0.9):
        log_metrics(client, run_id, {"dice": dice})
        log_headline(client, run_id, ["dice"])
    points = client.get_metric_history(pipeline_run_of(client, run_id), "dice")
    assert [point.value for point in points] == [0.8, 0.9]


def test_a_run_that_is_nested_in_none_is_its_own_pipeline_run(local_mlflow, monkeypatch):
    client = connect()
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    run_id = new_run()
    log_metrics(client, run_id, {"dice": 0.8})
    log_headline(client, run_id, ["dice"])
    log_outcome(client, run_id, ["dice"], {"decision": "rejected"})
    assert pipeline_run_of(client, run_id) == run_id
    assert len(client.get_metric_history(run_id, "dice")) == 1


@pytest.mark.parametrize(
    "store",
    [
        lambda client, run_id, _: client.log_text(run_id, "a page", "report.html"),
        lambda client, run_id, _: client.log_dict(run_id, {"a": 1}, "groups.json"),
        lambda client, run_id, _: client.log_image(run_id, np.zeros((4, 4), np.uint8), "a.png"),
        lambda client, run_id, _: client.log_figure(run_id, Figure(), "chart.png"),
        lambda client, run_id, folder: client.log_model_artifacts(
            client.create_logged_model(client.get_run(run_id).info.experiment_id).model_id, folder
        ),
    ],
)
def test_a_file_that_a_proxy_refuses_ends_the_step_with_one_message(
    no_mlflow, monkeypatch, mlflow_server_uri, tmp_path, store
):
    (tmp_path / "file").touch()
    with mlflow_proxy(mlflow_server_uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)
        run_id = new_run()
        proxy.refuse("PUT", "mlflow-artifacts", 413)
        with pytest.raises(UserError) as raised, recording(run_id) as client:
            store(client, run_id, str(tmp_path))
        assert connect().get_run(run_id).info.status == "FAILED"
    assert f"MLflow at {proxy.uri} cannot be used: " in str(raised.value)
    assert "413" in str(raised.value)
    assert "client_max_body_size" in str(raised.value)
