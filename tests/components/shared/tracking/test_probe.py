import os
import subprocess
import sys
import uuid

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from components.shared.errors import OutageError, UserError
from components.shared.tracking import server
from components.shared.tracking.probe import probe
from components.shared.tracking.server import connect, open_experiment
from tests.components.mlflow_proxy import mlflow_proxy


@pytest.fixture
def proxy(no_mlflow, monkeypatch, mlflow_server_uri):
    """The shared server behind a proxy, with an experiment of its own."""
    with mlflow_proxy(mlflow_server_uri) as found:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", found.uri)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", uuid.uuid4().hex)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield found


def refused(kind=UserError, **options):
    with pytest.raises(UserError) as raised:
        probe(**options)
    message = str(raised.value)
    assert type(raised.value) is kind, message
    assert message.startswith(f"MLflow at {os.environ['MLFLOW_TRACKING_URI']} cannot be used: ")
    assert "\n" not in message
    return message


def runs(view):
    client = connect()
    return client.search_runs([open_experiment(client)], run_view_type=view)


def test_leaves_nothing_but_a_deleted_run(any_mlflow, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", uuid.uuid4().hex)
    probe(large_bytes=100_000)
    assert runs(ViewType.ACTIVE_ONLY) == []
    (run,) = runs(ViewType.DELETED_ONLY)
    assert connect().list_artifacts(run.info.run_id) == []


def test_a_user_who_may_not_delete_runs_leaves_one(proxy):
    proxy.refuse("POST", "runs/delete", 403)
    probe()
    probe()
    (run,) = runs(ViewType.ALL)
    assert (run.info.run_name, run.info.status) == ("probe", "FINISHED")


@pytest.mark.parametrize(
    ("method", "part", "status", "advice"),
    [
        ("PUT", "mlflow-artifacts", 413, "nginx: client_max_body_size 0"),
        ("PUT", "probe-large", 413, "nginx: client_max_body_size 0"),
        ("PUT", "mlflow-artifacts", 403, "the user needs the right to it"),
        ("PUT", "mlflow-artifacts", 401, "or a valid _TOKEN"),
        ("GET", "mlflow-artifacts", 403, "the user needs the right to it"),
        ("GET", "probe.txt", 403, "the user needs the right to it"),
        ("POST", "runs/create", 403, "the user needs the right to it"),
        ("POST", "runs/create", 401, "or a valid _TOKEN"),
        ("GET", "registered-models/search", 403, "the user needs the right to it"),
    ],
)
def test_what_is_refused_has_its_status_and_advice(proxy, method, part, status, advice):
    proxy.refuse(method, part, status)
    message = refused(large_bytes=1000)
    assert str(status) in message
    assert advice in message


@pytest.mark.parametrize(
    ("method", "part"),
    [("PUT", "mlflow-artifacts"), ("GET", "probe.txt"), ("POST", "runs/create")],
)
def test_a_server_that_fails_is_an_outage(proxy, method, part):
    proxy.refuse(method, part, 503)
    assert "503" in refused(OutageError)


def test_a_server_without_logged_models_is_too_old(proxy):
    proxy.refuse("POST", "logged-models/search", 404)
    assert "it has no API for logged models, which came with version 3" in refused()


def experiment(monkeypatch, place):
    """An experiment whose files are elsewhere than the server's own."""
    name = uuid.uuid4().hex
    MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).create_experiment(name, place)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)


def test_a_folder_of_the_servers_machine_is_refused(proxy, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    experiment(monkeypatch, (tmp_path / "file" / "mlruns").as_uri())
    assert "Not a directory" in (message := refused())
    assert "started with --artifacts-destination writes artifacts itself" in message


def test_a_folder_that_the_server_does_not_share_is_refused(proxy, monkeypatch, tmp_path):
    experiment(monkeypatch, tmp_path.as_uri())
    probe()  # this server is on the same machine and sees the folder
    proxy.refuse("GET", "mlflow/artifacts/list", 200)  # an answer without files
    with pytest.raises(UserError, match="does not see what this machine writes there"):
        probe()


def test_a_bucket_needs_its_package(proxy, monkeypatch):
    experiment(monkeypatch, "s3://bucket/mlflow")
    monkeypatch.setitem(sys.modules, "boto3", None)
    assert "install the extra mlflow-s3" in refused()


def test_a_bucket_needs_credentials(proxy, monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    experiment(monkeypatch, "s3://bucket/mlflow")
    assert "no credentials for it; set AWS_ACCESS_KEY_ID" in refused()


def test_files_that_are_lost_are_reported(proxy, monkeypatch):
    monkeypatch.setattr(server.Client, "list_artifacts", lambda *_: [])
    assert "is not found there again" in refused()


WITH_MLFLOW_SKINNY = """
import importlib.metadata, importlib.util, sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as plain

def needed(name, found):
    if plain(name) not in found:
        found.add(plain(name))
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(requirement.name, found)
    return found

client = needed("mlflow-skinny", needed("boto3", needed("kubernetes", needed("brainseg", set()))))
for name, distributions in importlib.metadata.packages_distributions().items():
    if name != "mlflow" and not {plain(one) for one in distributions} & client:
        sys.modules[name] = None

from components.shared.tracking.probe import probe
probe()
"""


@pytest.mark.slow
def test_the_image_of_the_data_steps_has_what_it_takes(proxy):
    """It has mlflow-skinny: everything else is hidden here."""
    subprocess.run([sys.executable, "-c", WITH_MLFLOW_SKINNY], check=True, timeout=300)
