import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow import MlflowClient

from components.shared.errors import UserError
from components.shared.tracking.address import sqlite_file
from components.shared.tracking.local import ensure_local
from components.shared.tracking.server import connect, open_experiment


def test_initialising_twice_keeps_the_runs(local_mlflow_uri, local_mlflow, tmp_path):
    client = connect()
    run_id = client.create_run(open_experiment(client)).info.run_id
    database = Path(local_mlflow_uri.removeprefix("sqlite:///"))
    ensure_local(local_mlflow_uri)
    run = client.get_run(run_id)
    assert run.info.artifact_uri.startswith(f"file://{database.parent}/mlartifacts/")


def test_two_launchers_may_initialise_at_once(no_mlflow, tmp_path):
    with ThreadPoolExecutor(2) as pool:  # the lock is of the open file, so threads will do
        started = [pool.submit(ensure_local, f"sqlite:///{tmp_path}/mlflow.db") for _ in range(2)]
    assert [one.result() for one in started] == [None, None]
    assert (tmp_path / "mlflow.db").is_file()
    assert not (tmp_path / ".mlflow.db.part").exists()


def test_a_first_use_that_was_killed_is_repaired(no_mlflow, tmp_path):
    (tmp_path / ".mlflow.db.part").write_bytes(b"half a file")
    ensure_local(uri := f"sqlite:///{tmp_path}/mlflow.db")
    assert MlflowClient(uri).get_experiment_by_name("brainseg") is not None


def test_a_file_that_is_no_database_is_reported(no_mlflow, tmp_path):
    path = tmp_path / "mlflow.db"
    path.write_text("not a database, but long enough to be looked at as one" * 100)
    with pytest.raises(UserError, match=r"cannot be used: .*not a database"):
        ensure_local(f"sqlite:///{path}")


def test_a_file_named_by_its_uri_is_created_with_its_folder(no_mlflow, monkeypatch, tmp_path):
    """A new `sqlite:///` file used to end the run at its fourth step."""
    uri = f"sqlite:///{tmp_path}/new folder/mlflow.db"
    ensure_local(uri)
    ensure_local(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = connect()
    run = client.create_run(open_experiment(client))
    assert run.info.artifact_uri.startswith(f"file://{tmp_path}/new%20folder/mlartifacts/")


@pytest.mark.parametrize(("name", "shown"), [("LGG%20data", "%20"), ("what?", "?")])
def test_a_folder_that_no_uri_can_name_is_refused_at_once(no_mlflow, tmp_path, name, shown):
    """MLflow would create a folder next to it."""
    with pytest.raises(UserError, match=rf"name holds '{re.escape(shown)}', which .* rename"):
        ensure_local(f"sqlite:///{tmp_path}/{name}/mlflow.db")
    assert not list(tmp_path.iterdir())


def test_a_percent_sign_and_a_query_are_no_trouble():
    uri = "sqlite:////data/100% #;&+@=[]'/mlflow.db"
    assert sqlite_file(f"{uri}?timeout=60") == Path("/data/100% #;&+@=[]'/mlflow.db")


def test_a_file_that_cannot_be_created_is_reported_before_any_step(no_mlflow, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose a writable folder"):
        ensure_local(f"sqlite:///{tmp_path}/file/mlflow.db")


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:9", "postgresql://u@127.0.0.1:9/x", "databricks"]
)
def test_a_server_is_not_created(no_mlflow, uri):
    ensure_local(uri)
