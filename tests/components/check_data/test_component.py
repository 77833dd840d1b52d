import uuid

import pytest

from components.check_data.component import check_data
from components.shared.storage.outcome import read_outcome
from components.shared.storage.store import open_store
from components.shared.tracking.server import connect


@pytest.fixture
def run(local_mlflow, tmp_path, monkeypatch):
    """Runs the step's body as its process would."""
    monkeypatch.delenv("KFP_RUN_ID", raising=False)

    def run(model, force=False):
        change = check_data.python_func(
            store=str(tmp_path / "store"),
            dataset_id="aaaa",
            pipeline_run="the run",
            register_settings=f"{{model_name: {model}, margin: 0.1}}",
            force=force,
            reference_id=str(tmp_path / "reference_id"),
            previous_split=str(tmp_path / "previous_split"),
        )
        files = [(tmp_path / name).read_text() for name in ("reference_id", "previous_split")]
        return change, *files

    return run


@pytest.fixture
def model(local_mlflow):
    client, name = connect(), uuid.uuid4().hex
    client.create_registered_model(name)
    tags = {"dataset_id": "aaaa", "split_id": "5911", "decision": "promoted"}
    client.create_model_version(name, source="s3://models/none", tags=tags)
    client.set_registered_model_alias(name, "champion", "1")
    return name


def test_an_unchanged_source_is_the_outcome_of_the_run(run, model, tmp_path):
    assert run(model) == ("unchanged", "", "")
    found = read_outcome(open_store(str(tmp_path / "store")), "the run")
    assert (found.kind, found.dataset_id) == ("unchanged", "aaaa")
    assert found.model == f"models:/{model}/1"


def test_a_changed_one_is_not_yet(run, model, tmp_path):
    store = open_store(str(tmp_path / "store"))
    store.write("datasets/aaaa/manifest.json", b"{}")
    store.write("splits/5911.json", b"{}")
    assert run(model, force=True) == ("changed", "aaaa", "5911")
    assert read_outcome(store, "the run") is None


def test_mlflow_that_is_away_ends_the_step(run, monkeypatch, capfd):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(SystemExit):
        run("any")
    assert "brainseg error: MLflow at http://127.0.0.1:1 cannot be used" in capfd.readouterr().err
