import shutil
import uuid

import pytest

from components.predict.model import scored_threshold
from components.predict.prediction import predict_source
from components.predict.settings import PredictSettings
from components.register.registry import add_version
from components.shared.errors import UserError
from components.shared.tracking.champion import resolve_model
from components.shared.tracking.runs import log_params
from components.shared.tracking.server import connect
from tests.components.conftest import BOTH_MLFLOWS, new_run


@pytest.fixture
def name():
    return uuid.uuid4().hex


def add(name, folder, **tags):
    return add_version(connect(), name, new_run(), folder, tags, [])


@BOTH_MLFLOWS
def test_the_champion_is_named_by_its_version(any_mlflow, name, threshold_model, tmp_path):
    add(name, threshold_model(150))
    add(name, threshold_model(155))
    connect().set_registered_model_alias(name, "champion", "2")
    assert resolve_model("champion", name) == f"models:/{name}/2"
    settings = PredictSettings(model_name=name, device="cpu")
    result = predict_source("champion", "synthetic:1", tmp_path / "out", settings)
    assert (result.model, result.predicted) == (f"models:/{name}/2", 1)
    assert f"models:/{name}/2" in (tmp_path / "out" / "predictions.html").read_text()


def test_a_missing_model_and_a_missing_champion_have_different_messages(
    any_mlflow, name, threshold_model
):
    with pytest.raises(UserError, match=f"has no model '{name}' .*train one with `brainseg run`"):
        resolve_model("champion", name)
    add(name, threshold_model(150))
    with pytest.raises(UserError, match=f"model '{name}' .*has no champion.* models:/{name}/"):
        resolve_model("champion", name)


def test_an_alias_or_version_that_is_not_there_is_reported(local_mlflow, name, threshold_model):
    add(name, threshold_model(150))
    for uri, problem in (
        (f"models:/{name}@best", "alias best not found"),
        (f"models:/{name}/7", "version=7"),
        (f"models:/{uuid.uuid4().hex}@champion", "Registered Model with name"),
    ):
        with pytest.raises(UserError, match=problem):
            predict_source(uri, "synthetic:1", "unused", PredictSettings(device="cpu"))


@pytest.mark.parametrize("model", ["champion", "models:/brainseg/1", "runs:/0123/model"])
def test_a_server_that_is_down_is_reported_at_once(no_mlflow, monkeypatch, model):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9 cannot be used"):
        resolve_model(model, "brainseg")


def test_a_folder_needs_no_mlflow(no_mlflow, tmp_path):
    assert resolve_model(str(tmp_path), "brainseg") == str(tmp_path)


def test_an_alias_is_named_by_its_version_too(any_mlflow, name, threshold_model):
    add(name, threshold_model(150))
    add(name, threshold_model(155))
    connect().set_registered_model_alias(name, "best", "1")
    assert resolve_model(f"models:/{name}@best", "brainseg") == f"models:/{name}/1"
    assert resolve_model(f"models:/{name}/latest", "brainseg") == f"models:/{name}/2"
    assert resolve_model(f"models:/{name}/1", "brainseg") == f"models:/{name}/1"


def test_a_version_brings_the_threshold_that_it_was_scored_with(
    any_mlflow, name, threshold_model, tmp_path
):
    add(name, threshold_model(150), threshold="0.35")
    add(name, threshold_model(155))
    connect().set_registered_model_alias(name, "champion", "1")
    settings = PredictSettings(model_name=name, device="cpu")
    result = predict_source("champion", "synthetic:1", tmp_path / "out", settings)
    assert result.threshold == 0.35
    assert scored_threshold(f"models:/{name}/2", None) == 0.5


def test_a_run_and_its_model_bring_the_threshold_of_evaluate(local_mlflow, name, threshold_model):
    run_id = new_run()
    log_params(connect(), run_id, {"evaluate": {"threshold": 0.4}})
    version = add_version(connect(), name, run_id, threshold_model(150), {}, [])
    assert scored_threshold(f"runs:/{run_id}/segmenter", None) == 0.4
    assert scored_threshold(version.source, None) == 0.4


def test_a_folder_without_a_threshold_has_the_default(no_mlflow, threshold_model):
    assert scored_threshold(str(threshold_model(150)), None) == 0.5


def test_a_folder_can_show_its_threshold(no_mlflow, threshold_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(threshold_model(150), folder)
    config = folder / "segmenter" / "config.json"
    config.write_text(config.read_text().replace('"threshold": null', '"threshold": 0.25'))
    settings = PredictSettings(device="cpu")
    assert predict_source(str(folder), "synthetic:1", tmp_path, settings).threshold == 0.25


@pytest.mark.parametrize("found", ["half", "1.5", "nan", ""])
def test_a_threshold_that_is_none_is_reported(local_mlflow, name, threshold_model, found):
    add(name, threshold_model(150), threshold=found)
    with pytest.raises(UserError, match=rf"version 1 of model {name} has the threshold"):
        scored_threshold(f"models:/{name}/1", None)
