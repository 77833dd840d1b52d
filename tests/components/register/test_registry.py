import shutil
import uuid

import pytest

from components.register.champion import rollback
from components.register.registry import add_version, folder_digest, move_back
from components.shared.errors import UserError
from components.shared.tracking import connect, find_champion, open_run


@pytest.fixture
def name():
    return uuid.uuid4().hex


def add(name, folder, run_id=None, **tags):
    return add_version(connect(), name, run_id or open_run(""), folder, tags, [])


def test_a_folder_is_registered_once_for_a_run(local_mlflow, name, threshold_model):
    run_id = open_run("")
    first = add(name, threshold_model(140), run_id, dataset_id="x")
    assert add(name, threshold_model(140), run_id).version == first.version
    assert add(name, threshold_model(150), run_id).version != first.version
    assert add(name, threshold_model(140)).version != first.version


def test_bytes_that_change_on_the_way_are_refused(
    local_mlflow, name, threshold_model, monkeypatch, tmp_path
):
    short = shutil.copytree(threshold_model(140), tmp_path / "short")
    (short / "data" / "model.pt2").write_bytes(b"")
    from mlflow import MlflowClient

    upload = MlflowClient.log_model_artifacts
    monkeypatch.setattr(
        MlflowClient, "log_model_artifacts", lambda self, to, _: upload(self, to, str(short))
    )
    with pytest.raises(UserError, match="MLflow holds other bytes"):
        add(name, threshold_model(140))


def test_the_digest_is_of_names_and_bytes(tmp_path):
    for folder, file, text in (("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / file).write_text(text)
    (tmp_path / "b" / "registered_model_meta").write_text("MLflow writes this when it loads")
    a, b, c, d = (folder_digest(tmp_path / folder) for folder in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_rollback_without_a_model_or_champion(local_mlflow, name, threshold_model):
    with pytest.raises(UserError, match=f"model {name} has no champion"):
        rollback(name)
    add(name, threshold_model(140))
    with pytest.raises(UserError, match="has no champion, so there is nothing to roll back"):
        rollback(name)


def champions(name, folder, *numbers):
    """Makes versions champion one after the other."""
    client, before = connect(), "none"
    for number in numbers:
        version = add(name, folder)
        assert str(version.version) == number
        client.set_model_version_tag(name, number, "champion_before", before)
        client.set_registered_model_alias(name, "champion", number)
        before = number


def test_rollback_goes_back_step_by_step_to_the_first(local_mlflow, name, threshold_model):
    champions(name, threshold_model(140), "1", "2", "3")
    assert move_back(connect(), name) == ("3", "2")
    assert move_back(connect(), name) == ("2", "1")
    with pytest.raises(UserError, match=r"version 1 of model .* is the first champion"):
        move_back(connect(), name)
    assert str(find_champion(connect(), name).version) == "1"
    assert connect().get_model_version(name, "3").tags["rolled_back_to"] == "2"


def test_rollback_to_a_deleted_version_is_told(local_mlflow, name, threshold_model):
    champions(name, threshold_model(140), "1", "2")
    connect().delete_model_version(name, "1")
    with pytest.raises(UserError, match="replaced version 1, which was deleted"):
        move_back(connect(), name)
    assert str(find_champion(connect(), name).version) == "2"


def test_rollback_needs_a_server(no_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be used: connection refused"):
        rollback("brainseg")
